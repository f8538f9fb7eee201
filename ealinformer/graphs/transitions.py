"""Random walks on a graph (DCRNN, arXiv 1707.01926, section 2.2)."""

import numpy as np

from ealinformer.graphs.checks import checked_adjacency


def random_walk(adjacency: np.ndarray) -> np.ndarray:
    """D_out^-1 A `[N, N]`: row i holds the chances of a step from i along its edges.

    Rows sum to 1, and are 0 where no edge goes out. Raises ValueError for what is no adjacency.
    """
    weights = checked_adjacency(adjacency)
    out = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, out, out=np.zeros_like(weights), where=out > 0)


def double_transition(adjacency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walks along the edges and against them, (D_out^-1 A, D_in^-1 A^T), each `[N, N]`; ValueError as above."""
    return random_walk(adjacency), random_walk(np.asarray(adjacency).T)
