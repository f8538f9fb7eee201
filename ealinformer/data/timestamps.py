"""Time of day and day of week, the two calendar features that BasicTS feeds to its models."""

from datetime import datetime
from typing import Literal

import numpy as np

from ealinformer.data.spec import MINUTES_PER_DAY

DAYS_PER_WEEK = 7
_SECOND = np.timedelta64(1, "s")
_DAY = np.timedelta64(1, "D")
# 1970-01-01, day 0 of datetime64, was a Thursday; Monday is 0.
_WEEKDAY_OF_DAY_0 = 3

DayOfWeek = Literal["calendar", "row"]


def regular_times(start: datetime, interval_minutes: int, num_steps: int) -> np.ndarray:
    """The times of `num_steps` readings, one every `interval_minutes` from `start` on: datetime64[s] `[T]`."""
    steps = np.arange(num_steps) * np.timedelta64(interval_minutes * 60, "s")
    return np.datetime64(start, "s") + steps


def calendar_features(
    start: datetime, interval_minutes: int, num_steps: int, day_of_week: DayOfWeek = "calendar"
) -> np.ndarray:
    """Time of day and day of week of a gapless series, float32 `[T, 2]`, both in [0, 1) as BasicTS 1.1.0 reads them.

    See `calendar_features_at` for the two rules of `day_of_week`.
    """
    return calendar_features_at(regular_times(start, interval_minutes, num_steps), interval_minutes, day_of_week)


def calendar_features_at(times: np.ndarray, interval_minutes: int, day_of_week: DayOfWeek = "calendar") -> np.ndarray:
    """Time of day and day of week at `times` (datetime64 `[T]`), float32 `[T, 2]`, both in [0, 1).

    Day of week "calendar" is Monday 0 to Sunday 6, over 7. "row" counts days from row 0, whatever day that was, which
    is what BasicTS's scripts do for PEMS03, 04, 07 and 08. Models read the table row as `int(feature * table_size)` in
    float32; the features are rounded so that this gives the right row at every time.
    """
    steps_per_day = MINUTES_PER_DAY // interval_minutes
    seconds = (times - times.astype("datetime64[D]")) / _SECOND
    if day_of_week == "row":
        days = np.arange(len(times)) // steps_per_day
    else:
        days = times.astype("datetime64[D]").astype(np.int64) + _WEEKDAY_OF_DAY_0
    return np.stack(
        [
            _share(seconds / (_DAY / _SECOND), steps_per_day),
            _share((days % DAYS_PER_WEEK) / DAYS_PER_WEEK, DAYS_PER_WEEK),
        ],
        axis=1,
    )


def _share(share: np.ndarray, table_size: int) -> np.ndarray:
    """`share` in float32, one unit in the last place up where `int(share * table_size)` would fall a row short."""
    # 1e-6 of a row is far below a second and far above float64's rounding of k / table_size.
    row = np.floor(share * table_size + 1e-6)
    rounded = share.astype(np.float32)
    falls_short = np.floor(rounded * np.float32(table_size)) < row
    return np.where(falls_short, np.nextafter(rounded, np.float32(1)), rounded)
