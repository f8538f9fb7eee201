"""What the functions of this package take."""

import numpy as np


def checked_adjacency(adjacency: np.ndarray) -> np.ndarray:
    """`adjacency` in float64. Raises ValueError unless it is `[N, N]` of finite numbers that are 0 or more."""
    weights = np.asarray(adjacency)
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not weights.size:
        raise ValueError(f"the adjacency has shape {weights.shape}, expected [N, N] with N of at least 1")
    if weights.dtype.kind not in "fiub":
        raise ValueError(f"the adjacency has dtype {weights.dtype}, expected integers or floats")
    weights = weights.astype(np.float64)
    for wrong, what in ((~np.isfinite(weights), "not finite"), (weights < 0, "negative")):
        if wrong.any():
            raise ValueError(f"{int(wrong.sum())} weights of the adjacency are {what}, expected numbers of 0 or more")
    return weights


def checked_readings(readings: np.ndarray) -> np.ndarray:
    """`readings` as they are. Raises ValueError unless they are `[T, N]` of numbers, with T and N of at least 1."""
    series = np.asarray(readings)
    if series.ndim != 2 or not series.size:
        raise ValueError(f"the readings have shape {series.shape}, expected [T, N] with T and N of at least 1")
    if series.dtype.kind not in "fiub":
        raise ValueError(f"the readings have dtype {series.dtype}, expected integers or floats")
    return series


def check_count(name: str, value: int) -> None:
    """Raises ValueError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} has to be a positive whole number, got {value!r}")
