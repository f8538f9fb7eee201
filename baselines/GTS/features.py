"""What GTS knows of the sensors before it is trained: their training series, and which of them are alike."""

import numpy as np


def node_features(readings: np.ndarray) -> np.ndarray:
    """Readings `[T, N]` -> series `[N, T]`, float32, z-scored by the mean and deviation of all of them.

    What is no number counts as the mean.
    """
    present = np.isfinite(readings)
    known = readings[present]
    mean, deviation = (known.mean(dtype=np.float64), known.std(dtype=np.float64)) if known.size else (0.0, 0.0)
    scaled = (readings - np.float32(mean)) / np.float32(deviation or 1.0)
    return np.ascontiguousarray(np.where(present, scaled, 0).T, dtype=np.float32)


def nearest_neighbours(features: np.ndarray, count: int) -> np.ndarray:
    """Series `[N, T]` -> graph `[N, N]`, float32: 1 from a sensor to the `count` others of the largest cosine."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    units = features / np.where(lengths > 0, lengths, 1)
    cosine = units @ units.T
    np.fill_diagonal(cosine, -np.inf)
    nearest = np.argsort(-cosine, axis=1, kind="stable")[:, : min(count, len(features) - 1)]
    graph = np.zeros_like(cosine)
    np.put_along_axis(graph, nearest, 1, axis=1)
    return graph
