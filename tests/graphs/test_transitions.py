"""Random walks against sums over edges, one at a time."""

import networkx as nx
import numpy as np

from ealinformer.graphs.transitions import double_transition, random_walk


def walk(adjacency: np.ndarray) -> np.ndarray:
    """The chance of each step, edge by edge."""
    expected = np.zeros_like(adjacency)
    for i, row in enumerate(adjacency):
        for j, weight in enumerate(row):
            if weight:
                expected[i, j] = weight / sum(row)
    return expected


def test_a_row_holds_the_chances_of_a_step(adjacency: np.ndarray) -> None:
    found = random_walk(adjacency)
    np.testing.assert_allclose(found, walk(adjacency), rtol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), (adjacency.sum(axis=1) > 0).astype(float), rtol=1e-12)


def test_the_second_walk_goes_against_the_edges(adjacency: np.ndarray) -> None:
    forward, backward = double_transition(adjacency)
    np.testing.assert_array_equal(forward, random_walk(adjacency))
    reversed_edges = np.array([[adjacency[j, i] for j in range(len(adjacency))] for i in range(len(adjacency))])
    np.testing.assert_allclose(backward, walk(reversed_edges), rtol=1e-12)


def test_a_walk_is_that_of_networkx() -> None:
    graph = nx.gnp_random_graph(15, 0.3, seed=4, directed=True)
    stochastic = nx.stochastic_graph(graph)  # leaves rows without edges at 0
    np.testing.assert_allclose(random_walk(nx.to_numpy_array(graph)), nx.to_numpy_array(stochastic), rtol=1e-12)


def test_a_signal_arrives_at_the_ends_of_edges() -> None:
    """A car at sensor 0 of 0 -> 1 -> 2 is at 1 after a step along the edges: entry (i, j) is the step from i to j."""
    adjacency = np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    forward, backward = double_transition(adjacency)
    np.testing.assert_array_equal(np.array([1.0, 0.0, 0.0]) @ forward, [0, 1, 0])
    np.testing.assert_array_equal(np.array([0.0, 0.0, 1.0]) @ backward, [0, 1, 0])
    np.testing.assert_array_equal(np.array([0.0, 0.0, 1.0]) @ forward, [0, 0, 0])
