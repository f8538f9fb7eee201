"""Which sensors a sensor sees (arXiv 2301.07945, section "Spatial Self-Attention"): near ones, and similar ones."""

import numpy as np


def near_sensors(hops: np.ndarray, far_hops: int) -> np.ndarray:
    """Hop distances `[N, N]`, inf where there is no way -> bool `[N, N]`, True where fewer hops than `far_hops`.

    A sensor sees itself, whatever the distances say.
    """
    visible = hops < far_hops
    np.fill_diagonal(visible, True)
    return visible


def similar_sensors(distances: np.ndarray, count: int) -> np.ndarray:
    """DTW distances `[N, N]` -> the `count` nearest sensors of each row, nearest first, `[N, K]`.

    K is `count`, or N where N is less. The first one is the sensor itself. Of sensors equally near the first ones are
    taken; NaN is farthest.
    """
    ranked = distances.astype(np.float64)
    np.fill_diagonal(ranked, -np.inf)
    return ranked.argsort(axis=1, kind="stable")[:, :count]
