"""Which sensors a sensor sees (arXiv 2301.07945, section "Spatial Self-Attention"): near ones, and similar ones."""

import numpy as np


def geographic_mask(hops: np.ndarray, far_hops: int) -> np.ndarray:
    """Hop distances `[N, N]`, inf where there is no way -> bool `[N, N]`, True where fewer hops than `far_hops`.

    A sensor sees itself, whatever the distances say.
    """
    visible = hops < far_hops
    np.fill_diagonal(visible, True)
    return visible


def semantic_mask(distances: np.ndarray, count: int) -> np.ndarray:
    """DTW distances `[N, N]` -> bool `[N, N]`, True at the `count` nearest sensors of each row, itself among them.

    Of sensors equally near the first ones are taken; NaN is farthest.
    """
    ranked = distances.astype(np.float64)
    np.fill_diagonal(ranked, -np.inf)
    nearest = ranked.argsort(axis=1, kind="stable")[:, :count]
    visible = np.zeros(distances.shape, dtype=bool)
    np.put_along_axis(visible, nearest, True, axis=1)
    return visible
