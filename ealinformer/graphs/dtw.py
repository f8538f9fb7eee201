"""Dynamic time warping between the mean days of sensors (PDFormer, arXiv 2301.07945, section 3.2; STWave)."""

import numpy as np
from scipy.sparse import csr_array

from ealinformer.graphs.checks import check_count, checked_readings
from ealinformer.graphs.missing import missing_readings

# k / 1440 in float32 times 1440 may come out below k; a hundredth of a slot is more than that, up to one slot a second.
SLOT_TOLERANCE = 0.01
READINGS_PER_BLOCK = 1 << 24  # bounds the float64 copies to some hundred MB on networks of thousands of sensors


def daily_profiles(
    readings: np.ndarray, timestamps: np.ndarray, steps_per_day: int, null_value: float = 0.0
) -> np.ndarray:
    """Mean reading of every sensor at every slot of the day: `[T, N]` -> `[N, steps_per_day]`.

    `timestamps` `[T, 2]`: time of day and day of week, in [0, 1); days of all weekdays count alike. NaN and readings
    equal to `null_value` are missing and left out. A slot that was never read has the sensor's mean, a sensor without
    one reading 0. Raises ValueError on shapes that do not fit, times outside [0, 1) and infinite readings.
    """
    series = checked_readings(readings)
    check_count("steps_per_day", steps_per_day)
    slots = _slot_matrix(np.asarray(timestamps), len(series), steps_per_day)
    profiles = np.empty((series.shape[1], steps_per_day))
    width = max(1, READINGS_PER_BLOCK // len(series))
    for start in range(0, series.shape[1], width):
        block = series[:, start : start + width].astype(np.float64)
        missing = missing_readings(block, null_value)
        block[missing] = 0
        sums, counts = slots @ block, slots @ (~missing).astype(np.float64)
        mean = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
        profiles[start : start + width] = np.where(counts > 0, sums / np.maximum(counts, 1), mean).T
    return profiles


def dtw_distances(profiles: np.ndarray) -> np.ndarray:
    """Dynamic time warping distance between each two profiles: `[N, S]` -> `[N, N]`, symmetric, 0 on the diagonal.

    sqrt(min over alignments of the sum of (a_i - b_j)^2), without a window: exact, where the authors of PDFormer and
    STWave take |a_i - b_j| and search near a coarser alignment (fastdtw, radius 6). As with them the profiles are not
    z-scored: sensors of alike volume are near. Time grows with N^2 S^2, some minutes at N = 883 and S = 288.

    Raises ValueError on another number of axes and on values that are not finite.
    """
    from tslearn.metrics import cdist_dtw  # takes seconds to import

    days = np.asarray(profiles, np.float64)
    if days.ndim != 2 or not days.size:
        raise ValueError(f"the profiles have shape {days.shape}, expected [N, S] with N and S of at least 1")
    if not np.isfinite(days).all():
        raise ValueError(f"{int((~np.isfinite(days)).sum())} values of the profiles are not finite, expected numbers")
    return np.asarray(cdist_dtw(days))


def _slot_matrix(timestamps: np.ndarray, steps: int, steps_per_day: int) -> csr_array:
    """1 at (slot, t) where step t is in that slot of the day: `[steps_per_day, T]`."""
    if timestamps.shape != (steps, 2):
        raise ValueError(f"the timestamps have shape {timestamps.shape}, expected {(steps, 2)}")
    clock = timestamps[:, 0].astype(np.float64)
    if not ((clock >= 0) & (clock < 1)).all():  # so that NaN fails too
        raise ValueError(f"times of day range from {clock.min()} to {clock.max()}, expected values in [0, 1)")
    slots = np.floor(clock * steps_per_day + SLOT_TOLERANCE).astype(np.intp) % steps_per_day
    return csr_array((np.ones(steps), (slots, np.arange(steps))), shape=(steps_per_day, steps))
