"""Which readings of a series are none."""

import numpy as np

NULL_TOLERANCE = 5e-5  # what BasicTS's masked metrics count as equal to the null value


def missing_readings(readings: np.ndarray, null_value: float) -> np.ndarray:
    """True where a reading is NaN or equals `null_value`. Raises ValueError where one is infinite."""
    infinite = np.isinf(readings)
    if infinite.any():
        raise ValueError(f"{int(infinite.sum())} readings are infinite, expected numbers, or NaN where one is missing")
    missing = np.isnan(readings)
    return missing if np.isnan(null_value) else missing | (np.abs(readings - null_value) <= NULL_TOLERANCE)
