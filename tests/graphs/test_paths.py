"""Hops and lengths against breadth-first search, the recursion of Floyd and Warshall, and networkx."""

import time

import networkx as nx
import numpy as np
import pytest

from ealinformer.graphs.paths import hop_distances, path_lengths


def breadth_first(adjacency: np.ndarray) -> np.ndarray:
    n = len(adjacency)
    hops = np.full((n, n), np.inf)
    for start in range(n):
        reached, frontier, step = {start}, {start}, 0
        while frontier:
            hops[start, list(frontier)] = step
            near = {j for i in frontier for j in range(n) if adjacency[i, j] or adjacency[j, i]}
            frontier, step = near - reached, step + 1
            reached |= frontier
    return hops


def floyd_warshall(adjacency: np.ndarray) -> np.ndarray:
    n = len(adjacency)
    lengths = np.full((n, n), np.inf)
    lengths[adjacency > 0] = 1 / adjacency[adjacency > 0]
    np.fill_diagonal(lengths, 0)
    for k in range(n):
        for i in range(n):
            for j in range(n):
                lengths[i, j] = min(lengths[i, j], lengths[i, k] + lengths[k, j])
    return lengths


def test_hops_are_those_of_a_breadth_first_search_both_ways(adjacency: np.ndarray) -> None:
    np.testing.assert_array_equal(hop_distances(adjacency), breadth_first(adjacency))


def test_lengths_are_those_of_floyd_and_warshall_along_the_edges(adjacency: np.ndarray) -> None:
    np.testing.assert_allclose(path_lengths(adjacency), floyd_warshall(adjacency), rtol=1e-12)


def test_both_are_those_of_networkx() -> None:
    graph = nx.gnp_random_graph(30, 0.03, seed=2, directed=True)
    generator = np.random.default_rng(0)
    for _, _, edge in graph.edges(data=True):
        edge["weight"] = generator.uniform(0.1, 1)
        edge["length"] = 1 / edge["weight"]
    adjacency = nx.to_numpy_array(graph)
    hops, lengths = hop_distances(adjacency), path_lengths(adjacency)
    their_hops = dict(nx.all_pairs_shortest_path_length(graph.to_undirected()))
    their_lengths = dict(nx.all_pairs_dijkstra_path_length(graph, weight="length"))
    for found, theirs in ((hops, their_hops), (lengths, their_lengths)):
        expected = [[theirs[i].get(j, np.inf) for j in range(30)] for i in range(30)]
        assert np.isinf(expected).any()
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_hops_go_against_a_one_way_road_and_lengths_do_not() -> None:
    one_way = np.array([[0.0, 0.5, 0.0], [0.0, 0.0, 0.25], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(hop_distances(one_way), [[0, 1, 2], [1, 0, 1], [2, 1, 0]])
    np.testing.assert_array_equal(path_lengths(one_way), [[0, 2, 6], [np.inf, 0, 4], [np.inf, np.inf, 0]])


def test_a_tiny_weight_is_an_edge() -> None:
    adjacency = np.array([[0, 1e-30], [1e-30, 0]])
    assert hop_distances(adjacency)[0, 1] == 1
    assert path_lengths(adjacency)[0, 1] == pytest.approx(1e30)


def test_of_weights_of_1_lengths_are_hops() -> None:
    adjacency = nx.to_numpy_array(nx.random_geometric_graph(60, 0.15, seed=5))
    np.testing.assert_array_equal(path_lengths(adjacency), hop_distances(adjacency))


def test_883_sensors_take_a_moment() -> None:
    adjacency = nx.to_numpy_array(nx.random_geometric_graph(883, 0.05, seed=1))
    for compute in (hop_distances, path_lengths):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            compute(adjacency)
            times.append(time.perf_counter() - start)
        assert min(times) < 5  # 0.3 s alone on two cores
