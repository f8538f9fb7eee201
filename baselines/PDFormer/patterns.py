"""Traffic patterns: what short windows of the training part look like, found by k-Shape."""

import numpy as np

MAX_WINDOWS = 1024  # of a training part with millions of them; k-Shape takes seconds on these
MAX_ITERATIONS = 5  # as the authors have it
ATTEMPTS = 5  # k-Shape gives up where a cluster runs empty
NULL_VALUE = 0.0


def traffic_patterns(readings: np.ndarray, count: int, length: int, seed: int = 0) -> np.ndarray:
    """Readings `[T, N]` -> `count` patterns `[count, length]`, each with mean 0 and standard deviation 1.

    The centroids of k-Shape (Paparrizos and Gravano, SIGMOD 2015) on windows of single sensors, as the paper has it.
    It compares shapes, so windows are z-scored one by one first; those with a missing reading and those that are
    constant have no shape. With no more than `count` shapes in the series these are the patterns, repeated.
    """
    rng = np.random.default_rng(seed)
    shapes = _shapes(_sampled_windows(readings, length, rng))
    distinct = np.unique(shapes.round(6), axis=0)
    if len(distinct) == 0:
        return np.zeros((count, length))
    if len(distinct) <= count:
        return np.resize(distinct, (count, length))
    return _centroids(shapes, distinct, count, rng)


def _sampled_windows(readings: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """At most MAX_WINDOWS windows `[W, length]` of random sensors and steps, float64."""
    starts, sensors = readings.shape[0] - length + 1, readings.shape[1]
    if starts < 1:
        return np.zeros((0, length))
    total = starts * sensors
    picked = np.arange(total) if total <= MAX_WINDOWS else rng.integers(total, size=MAX_WINDOWS)
    start, sensor = np.divmod(picked, sensors)
    return np.asarray(readings[start[:, None] + np.arange(length), sensor[:, None]], np.float64)


def _shapes(windows: np.ndarray) -> np.ndarray:
    """Those of `[W, length]` that have a shape, z-scored."""
    windows = windows[np.isfinite(windows).all(axis=1) & (windows != NULL_VALUE).all(axis=1)]
    centred = windows - windows.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    varies = deviation[:, 0] > 1e-6 * np.abs(windows).max(axis=1, initial=0)
    return centred[varies] / deviation[varies]


def _centroids(shapes: np.ndarray, distinct: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    from tslearn.clustering import KShape  # takes seconds to import

    starts = [distinct[rng.choice(len(distinct), count, replace=False)] for _ in range(ATTEMPTS)]
    for start in starts:
        clustering = KShape(n_clusters=count, max_iter=MAX_ITERATIONS, init=start[..., None])
        clustering.fit(shapes[..., None])
        if clustering.n_iter_ > 0:  # 0 where a cluster ran empty
            return np.asarray(clustering.cluster_centers_[..., 0])
    return starts[0]
