"""What STWave makes of its graphs before it is trained: spectral positions, neighbours, the graph of alike days."""

import math

import numpy as np
from scipy.linalg import eigh

from ealinformer.data.prior import SensorPrior
from ealinformer.graphs.dtw import daily_profiles, dtw_distances
from ealinformer.graphs.laplacians import normalised_laplacian
from ealinformer.graphs.paths import path_lengths


def eigenpairs(adjacency: np.ndarray, count: int) -> np.ndarray:
    """Eigenvalues and, below them, eigenvectors of the normalised Laplacian of A + I: `[1 + N, count]`.

    Those of the largest eigenvalues, falling (arXiv 2112.02740, section IV-B); none is below 0. A graph of fewer than
    `count` sensors leaves the last columns 0. Each vector has the sign in which its largest entry is positive (of those
    equal up to rounding the first), because what is trained on top of it must not hang on the sign a library gives.
    """
    num_sensors = len(adjacency)
    found = min(count, num_sensors)
    laplacian = normalised_laplacian(adjacency + np.eye(num_sensors))
    values, vectors = eigh(laplacian, subset_by_index=[num_sensors - found, num_sensors - 1])
    size = np.abs(vectors)
    largest = np.take_along_axis(vectors, (size > (1 - 1e-6) * size.max(axis=0)).argmax(axis=0)[None], axis=0)
    pairs = np.zeros((1 + num_sensors, count))
    pairs[0, :found] = values[::-1]
    pairs[1:, :found] = (vectors * np.sign(largest))[:, ::-1]
    return pairs


def nearest_sensors(adjacency: np.ndarray, count: int) -> np.ndarray:
    """Each sensor and the `count` others that are nearest to it along the edges, taken both ways: `[N, 1 + count]`.

    The first of two that are equally near is the one of the lower number. Where fewer can be reached the sensor itself
    stands in their place.
    """
    lengths = path_lengths(np.maximum(adjacency, adjacency.T))
    np.fill_diagonal(lengths, -1)  # so that it comes first
    order = np.argsort(lengths, axis=1, kind="stable")[:, : 1 + count]
    reached = np.isfinite(np.take_along_axis(lengths, order, axis=1))
    return np.where(reached, order, order[:, :1])


def alike_days(prior: SensorPrior, steps_per_day: int) -> np.ndarray:
    """The graph of sensors whose mean days are alike under dynamic time warping: 0 and 1, `[N, N]`.

    N log2 N edges, counted from both ends, and those as long as the last of them.
    """
    distances = dtw_distances(daily_profiles(prior.readings(), prior.timestamps(), steps_per_day))
    between = ~np.eye(len(distances), dtype=bool)
    edges = log_count(len(distances), len(distances))
    if not edges:
        return np.zeros(distances.shape)
    farthest = np.partition(distances[between], edges - 1)[edges - 1]
    return (between & (distances <= farthest)).astype(np.float64)


def log_count(num_sensors: int, factor: int) -> int:
    """`factor` log2 N, rounded down."""
    return int(factor * math.log2(num_sensors))
