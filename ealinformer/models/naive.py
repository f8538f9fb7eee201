"""The simple forecasts that a model has to beat, on numpy arrays in the unit of the data."""

import numpy as np
from numpy.typing import NDArray

from ealinformer.models.windows import SLOT_TOLERANCE

DAYS_PER_WEEK = 7
NULL_TOLERANCE = 5e-5  # what BasicTS's masked metrics count as equal to the null value
# Bounds the float64 copies of `fit` to some hundred MB on networks of thousands of sensors.
READINGS_PER_BLOCK = 1 << 24


def last_value(inputs: NDArray, output_len: int) -> NDArray:
    """Repeat the newest reading of every sensor: `[B, L, N]` -> `[B, H, N]`, H = `output_len`.

    The reading is taken as it stands, a missing one (0 in the PEMS sets) too. Raises ValueError on other shapes.
    """
    _check_windows(inputs, output_len)
    return np.repeat(inputs[:, -1:, :], output_len, axis=1)


def historical_inertia(inputs: NDArray, output_len: int) -> NDArray:
    """Copy the newest `output_len` steps of the input window: `[B, L, N]` -> `[B, H, N]` (Cui et al., CIKM 2021).

    Raises ValueError on other shapes and where H exceeds L.
    """
    _check_windows(inputs, output_len)
    input_len = inputs.shape[1]
    if output_len > input_len:
        raise ValueError(
            f"historical inertia copies its input: output_len {output_len} exceeds input length {input_len}"
        )
    return inputs[:, input_len - output_len :, :].copy()


class WeeklyProfile:
    """The mean of every sensor at every slot of the week over the training readings.

    A slot of the week that training never saw takes the sensor's mean at that slot of the day, a slot of the day never
    seen the sensor's mean, and a sensor without one reading 0.
    """

    def __init__(self) -> None:
        self.steps_per_day = 0
        self.profile: NDArray | None = None  # [7 * steps_per_day, N]

    def fit(
        self, data: NDArray, timestamps: NDArray, steps_per_day: int, null_value: float | None = None
    ) -> "WeeklyProfile":
        """Average `data` `[T, N]` by slot; NaN and readings equal to `null_value` are missing and left out.

        `timestamps` `[T, 2]`: time of day and day of week, both in [0, 1). Sums are float64, the profile has the
        precision of `data`. Raises ValueError on shapes that do not fit and on timestamps outside [0, 1).
        """
        data = np.asarray(data)
        if data.ndim != 2:
            raise ValueError(f"data has shape {data.shape}, expected [T, N]")
        if np.shape(timestamps) != (len(data), 2):
            raise ValueError(f"timestamps has shape {np.shape(timestamps)}, expected {(len(data), 2)}")
        if steps_per_day < 1:
            raise ValueError(f"steps_per_day is {steps_per_day}, expected at least 1")
        slots = _slot_of_week(timestamps, steps_per_day)
        precision = data.dtype if np.issubdtype(data.dtype, np.floating) else np.dtype(np.float64)
        profile = np.empty((DAYS_PER_WEEK * steps_per_day, data.shape[1]), dtype=precision)
        width = max(1, READINGS_PER_BLOCK // max(1, len(data)))
        for start in range(0, data.shape[1], width):
            block = slice(start, start + width)
            profile[:, block] = _mean_by_slot(data[:, block], slots, steps_per_day, null_value)
        self.steps_per_day, self.profile = steps_per_day, profile
        return self

    def predict(self, targets_timestamps: NDArray) -> NDArray:
        """The profile at the times to forecast: `[..., 2]` -> `[..., N]`, so `[B, H, 2]` -> `[B, H, N]`.

        Raises RuntimeError before `fit`, ValueError on timestamps outside [0, 1).
        """
        if self.profile is None:
            raise RuntimeError("WeeklyProfile.predict was called before fit")
        return self.profile[_slot_of_week(targets_timestamps, self.steps_per_day)]


def _check_windows(inputs: NDArray, output_len: int) -> None:
    if inputs.ndim != 3 or inputs.shape[1] < 1:
        raise ValueError(f"inputs has shape {inputs.shape}, expected [B, L, N] with L of at least 1")
    if output_len < 1:
        raise ValueError(f"output_len is {output_len}, expected at least 1")


def _slot_of_week(timestamps: NDArray, steps_per_day: int) -> NDArray[np.intp]:
    """`[..., 2]` -> `[...]`, numbered from the first slot of day 0 to 7 * steps_per_day - 1."""
    stamps = np.asarray(timestamps, dtype=np.float64)
    if stamps.ndim < 1 or stamps.shape[-1] != 2:
        raise ValueError(f"timestamps has shape {stamps.shape}, expected [..., 2]: time of day and day of week")
    # Written so that NaN fails too.
    if not ((stamps >= 0) & (stamps < 1)).all():
        raise ValueError(f"timestamps range from {stamps.min()} to {stamps.max()}, expected values in [0, 1)")
    step = np.floor(stamps[..., 0] * steps_per_day + SLOT_TOLERANCE).astype(np.intp)
    day = np.floor(stamps[..., 1] * DAYS_PER_WEEK + SLOT_TOLERANCE).astype(np.intp)
    return np.minimum(day, DAYS_PER_WEEK - 1) * steps_per_day + np.minimum(step, steps_per_day - 1)


def _mean_by_slot(data: NDArray, slots: NDArray[np.intp], steps_per_day: int, null_value: float | None) -> NDArray:
    """`[T, n]` -> `[7 * steps_per_day, n]`, in float64, with the fallbacks of `WeeklyProfile`."""
    present = ~np.isnan(data)
    if null_value is not None and not np.isnan(null_value):
        present &= ~np.isclose(data, null_value, rtol=0.0, atol=NULL_TOLERANCE)
    shape = (DAYS_PER_WEEK, steps_per_day, data.shape[1])
    sums = _sum_by_slot(np.where(present, data, 0.0).astype(np.float64), slots, shape[0] * shape[1]).reshape(shape)
    counts = _sum_by_slot(present.astype(np.float64), slots, shape[0] * shape[1]).reshape(shape)
    mean = _mean_or(sums.sum(axis=(0, 1)), counts.sum(axis=(0, 1)), np.zeros(shape[2]))
    mean = _mean_or(sums.sum(axis=0), counts.sum(axis=0), mean)
    return _mean_or(sums, counts, mean).reshape(-1, shape[2])


def _sum_by_slot(values: NDArray, slots: NDArray[np.intp], slot_count: int) -> NDArray:
    """Sum the rows of `values` `[T, n]` that share a slot -> `[slot_count, n]`."""
    sums = np.zeros((slot_count, values.shape[1]))
    if len(values):
        # Sorted by slot, whole rows add up in runs: no Python loop over slots or sensors, no scattered additions.
        order = np.argsort(slots, kind="stable")
        seen, starts = np.unique(slots[order], return_index=True)
        sums[seen] = np.add.reduceat(values[order], starts, axis=0)
    return sums


def _mean_or(sums: NDArray, counts: NDArray, fallback: NDArray) -> NDArray:
    return np.where(counts > 0, sums / np.maximum(counts, 1), fallback)
