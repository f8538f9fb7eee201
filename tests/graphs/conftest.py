"""Graphs to test on."""

import networkx as nx
import numpy as np
import pytest


def _random(num_sensors: int, share: float, seed: int) -> np.ndarray:
    """A directed weighted graph; about `share` of the pairs have an edge."""
    generator = np.random.default_rng(seed)
    weights = generator.uniform(0.05, 1, (num_sensors, num_sensors))
    return weights * (generator.random((num_sensors, num_sensors)) < share)


def _two_parts() -> np.ndarray:
    """A ring of 5 sensors, a path of 4, and 2 sensors without edges, shuffled."""
    parts = nx.disjoint_union_all([nx.cycle_graph(5), nx.path_graph(4), nx.empty_graph(2)])
    order = np.random.default_rng(3).permutation(11)
    return nx.to_numpy_array(parts)[np.ix_(order, order)]


GRAPHS = {
    "one sensor": np.zeros((1, 1)),
    "one sensor, a loop": np.ones((1, 1)),
    "no edges": np.zeros((6, 6)),
    "loops alone": np.diag([1.0, 2.0, 0.5]),
    "one edge, one way": np.array([[0.0, 0.3], [0.0, 0.0]]),
    "two parts": _two_parts(),
    "sparse": _random(23, 0.06, seed=0),
    "dense": _random(40, 0.7, seed=1),
    "complete": np.ones((7, 7)),
    "tiny and huge weights": _random(12, 0.4, seed=2) * np.logspace(-12, 12, 12)[:, None],
}


@pytest.fixture(params=list(GRAPHS))
def adjacency(request: pytest.FixtureRequest) -> np.ndarray:
    """Each of the graphs `[N, N]`."""
    return GRAPHS[request.param].copy()
