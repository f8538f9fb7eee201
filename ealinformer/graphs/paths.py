"""How far sensors are from each other on a graph."""

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path

from ealinformer.graphs.checks import checked_adjacency


def hop_distances(adjacency: np.ndarray) -> np.ndarray:
    """Fewest edges between two sensors `[N, N]`, each taken both ways: 0 on the diagonal, inf where there is no way.

    Raises ValueError for what is no adjacency.
    """
    linked = checked_adjacency(adjacency) > 0
    return _shortest((linked | linked.T).astype(np.float64))


def path_lengths(adjacency: np.ndarray) -> np.ndarray:
    """Length of the shortest way from i to j along the edges `[N, N]`: 0 on the diagonal, inf where there is no way.

    An edge of weight w is 1 / w long, for weights are closeness: on a graph whose weights are 1, lengths are hops.
    Raises ValueError for what is no adjacency.
    """
    weights = checked_adjacency(adjacency)
    return _shortest(np.divide(1, weights, out=np.zeros_like(weights), where=weights > 0))


def _shortest(lengths: np.ndarray) -> np.ndarray:
    # Sparse, because of a dense matrix scipy takes small entries for none.
    return shortest_path(csr_array(lengths), directed=True)
