"""Laplacians of a graph and their eigenvectors.

A Laplacian is one of an undirected graph: of the two edges between a pair of sensors the stronger one counts.
"""

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from ealinformer.graphs.checks import check_count, checked_adjacency


def normalised_laplacian(adjacency: np.ndarray) -> np.ndarray:
    """I - D^-1/2 A D^-1/2 `[N, N]`, symmetric, with eigenvalues in [0, 2].

    D^-1/2 is 0 for a sensor without edges, so that it has 1 on the diagonal and 0 beside it. Raises ValueError for what
    is no adjacency.
    """
    return _laplacian(_undirected(adjacency))


def scaled_laplacian(adjacency: np.ndarray) -> np.ndarray:
    """2 L / lambda_max - I `[N, N]`, with eigenvalues in [-1, 1], where Chebyshev polynomials stay within [-1, 1].

    L is the normalised Laplacian and lambda_max its largest eigenvalue (STGCN, arXiv 1709.04875, section 3.2). L is I
    without edges, and so is this; where loops are all the edges there are, L is 0 and this is -I. Raises ValueError for
    what is no adjacency.
    """
    laplacian = normalised_laplacian(adjacency)
    last = len(laplacian) - 1
    largest = float(eigh(laplacian, eigvals_only=True, subset_by_index=[last, last])[0])
    if largest <= len(laplacian) * np.finfo(float).eps:  # L is 0 up to rounding
        return -np.eye(len(laplacian))
    return 2 / largest * laplacian - np.eye(len(laplacian))


def laplacian_eigenvectors(adjacency: np.ndarray, count: int) -> np.ndarray:
    """Eigenvectors `[N, count]` of the `count` smallest eigenvalues above 0 of the normalised Laplacian, in that order.

    Those of 0, one for each connected part of the graph, say nothing of places within it (PDFormer, arXiv 2301.07945,
    section 3.1; Dwivedi and Bresson, arXiv 2012.09699). Columns have length 1, and the sign in which the largest entry
    is positive. Sensors without edges have rows of 0, and so have the columns that a small graph has no eigenvectors
    for. Raises ValueError for what is no adjacency, and for a count below 1.
    """
    weights = _undirected(adjacency)
    check_count("count", count)
    vectors = np.zeros((len(weights), count))
    linked = np.flatnonzero(weights.sum(axis=1))
    if not len(linked):
        return vectors
    weights = weights[np.ix_(linked, linked)]
    parts = int(connected_components(csr_array(weights), directed=False, return_labels=False))
    found = min(count, len(linked) - parts)
    if found:
        _, columns = eigh(_laplacian(weights), subset_by_index=[parts, parts + found - 1])
        vectors[linked, :found] = columns * _signs(columns)
    return vectors


def _undirected(adjacency: np.ndarray) -> np.ndarray:
    weights = checked_adjacency(adjacency)
    return np.maximum(weights, weights.T)


def _laplacian(weights: np.ndarray) -> np.ndarray:
    degrees = weights.sum(axis=1)
    scale = np.divide(1, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0)
    return np.eye(len(weights)) - scale[:, None] * weights * scale


def _signs(columns: np.ndarray) -> np.ndarray:
    """1 or -1 for each column: an eigenvector has no sign of its own, and libraries differ in the one they give."""
    size = np.abs(columns)
    # The first among equals: on a symmetric graph entries are equal up to rounding.
    largest = (size > (1 - 1e-6) * size.max(axis=0)).argmax(axis=0)
    return np.sign(np.take_along_axis(columns, largest[None], axis=0))
