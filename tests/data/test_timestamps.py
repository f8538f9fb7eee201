"""Calendar features agree with pandas' calendar and always name the right row of an embedding table."""

from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from ealinformer.data.timestamps import calendar_features, calendar_features_at, regular_times

FRIDAY = datetime(2016, 7, 1)
DAY_ROWS = np.float32(7)


def day_numbers(features: np.ndarray) -> list[int]:
    return (features[:, 1] * DAY_ROWS).astype(int).tolist()


def test_two_weeks_of_five_minutes_follow_the_calendar() -> None:
    features = calendar_features(FRIDAY, 5, 14 * 288, "calendar")
    index = pd.date_range(FRIDAY, periods=14 * 288, freq="5min")

    assert features.shape == (14 * 288, 2)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[:, 0], (index.hour * 60 + index.minute) / 1440, atol=1e-7)
    np.testing.assert_allclose(features[:, 1], index.day_of_week / 7, atol=1e-7)
    assert features.min() == 0
    assert features.max() < 1


@pytest.mark.parametrize(
    ("start", "weekday"),
    [
        (datetime(2018, 9, 1), 5),
        (datetime(2018, 1, 1), 0),
        (datetime(2017, 5, 1), 0),
        (FRIDAY, 4),
        (datetime(2017, 1, 1), 6),
        (datetime(2012, 3, 1), 3),
        (datetime(1969, 12, 29), 0),
    ],
)
def test_first_day_of_the_public_series(start: datetime, weekday: int) -> None:
    assert day_numbers(calendar_features(start, 5, 1, "calendar")) == [weekday]


def test_row_rule_counts_days_from_row_0() -> None:
    features = calendar_features(FRIDAY, 5, 8 * 288, "row")

    assert day_numbers(features)[::288] == [0, 1, 2, 3, 4, 5, 6, 0]
    assert day_numbers(features)[287:289] == [0, 1]
    np.testing.assert_array_equal(features[:, 0], calendar_features(FRIDAY, 5, 8 * 288, "calendar")[:, 0])


def test_a_start_within_a_day_shifts_the_clock_and_midnight_but_not_the_row_count() -> None:
    start = datetime(2016, 7, 1, 22, 30)
    calendar = calendar_features(start, 30, 60, "calendar")
    row = calendar_features(start, 30, 60, "row")

    assert (calendar[:4, 0] * 48).round().tolist() == [45, 46, 47, 0]
    assert day_numbers(calendar)[:4] == [4, 4, 4, 5]
    assert day_numbers(row)[:49] == [0] * 48 + [1]


@pytest.mark.parametrize("interval_minutes", [1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60])
def test_float32_features_name_the_right_table_row(interval_minutes: int) -> None:
    steps_per_day = 1440 // interval_minutes
    features = calendar_features(FRIDAY, interval_minutes, 7 * steps_per_day)

    rows = (features[:, 0] * np.float32(steps_per_day)).astype(np.int64)
    np.testing.assert_array_equal(rows, np.tile(np.arange(steps_per_day), 7))
    np.testing.assert_array_equal(day_numbers(features), np.repeat([4, 5, 6, 0, 1, 2, 3], steps_per_day))
    assert features.max() < 1


def test_times_with_a_gap_keep_their_own_clock() -> None:
    whole = regular_times(FRIDAY, 60, 48)
    kept = np.delete(whole, [2, 3, 30]).astype("datetime64[ns]")

    expected = np.delete(calendar_features(FRIDAY, 60, 48), [2, 3, 30], axis=0)
    np.testing.assert_array_equal(calendar_features_at(kept, 60), expected)
