"""Laplacians and eigenvectors against their definition entry by entry, networkx, and graphs with a known spectrum."""

import time

import networkx as nx
import numpy as np
import pytest

from ealinformer.graphs.laplacians import laplacian_eigenvectors, normalised_laplacian, scaled_laplacian


def undirected(adjacency: np.ndarray) -> np.ndarray:
    return np.maximum(adjacency, adjacency.T)


def test_an_entry_is_minus_the_weight_over_the_roots_of_both_degrees(adjacency: np.ndarray) -> None:
    weights = undirected(adjacency)
    degree = [sum(row) for row in weights]
    expected = np.eye(len(weights))
    for i in range(len(weights)):
        for j in range(len(weights)):
            if weights[i, j]:
                expected[i, j] -= weights[i, j] / (np.sqrt(degree[i]) * np.sqrt(degree[j]))
    found = normalised_laplacian(adjacency)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    eigenvalues = np.linalg.eigvalsh(found)
    assert eigenvalues.min() > -1e-12
    assert eigenvalues.max() < 2 + 1e-12


def test_it_is_that_of_networkx_but_for_sensors_without_edges(adjacency: np.ndarray) -> None:
    weights = undirected(adjacency)
    theirs = nx.normalized_laplacian_matrix(nx.from_numpy_array(weights)).toarray()
    theirs[weights.sum(axis=1) == 0, weights.sum(axis=1) == 0] = 1  # networkx has 0, I - D^-1/2 A D^-1/2 has 1
    np.testing.assert_allclose(normalised_laplacian(adjacency), theirs, rtol=1e-9, atol=1e-12)


def test_the_scaled_laplacian_has_the_same_eigenvectors_and_eigenvalues_up_to_1(adjacency: np.ndarray) -> None:
    laplacian, scaled = normalised_laplacian(adjacency), scaled_laplacian(adjacency)
    values, vectors = np.linalg.eigh(laplacian)
    if values.max() < 1e-12:  # loops alone
        np.testing.assert_allclose(scaled, -np.eye(len(scaled)))
        return
    expected = 2 * values / values.max() - 1
    np.testing.assert_allclose(vectors.T @ scaled @ vectors, np.diag(expected), atol=1e-10)
    assert np.linalg.eigvalsh(scaled).max() == pytest.approx(1, abs=1e-10)
    assert np.linalg.eigvalsh(scaled).min() >= -1 - 1e-10


def test_without_edges_both_are_the_identity() -> None:
    np.testing.assert_array_equal(normalised_laplacian(np.zeros((5, 5))), np.eye(5))
    np.testing.assert_allclose(scaled_laplacian(np.zeros((5, 5))), np.eye(5), rtol=1e-15)


@pytest.mark.parametrize("count", [1, 3, 50])
def test_eigenvectors_solve_the_equation_of_the_smallest_eigenvalues_above_0(adjacency: np.ndarray, count: int) -> None:
    weights = undirected(adjacency)
    linked = weights.sum(axis=1) > 0
    inner = normalised_laplacian(adjacency)[np.ix_(linked, linked)]
    parts = nx.number_connected_components(nx.from_numpy_array(weights[np.ix_(linked, linked)]))
    values = np.linalg.eigvalsh(inner) if linked.any() else np.zeros(0)
    assert (np.abs(values[:parts]) < 1e-9).all()
    wanted = values[parts : parts + count]

    found = laplacian_eigenvectors(adjacency, count)
    assert found.shape == (len(weights), count)
    assert not found[~linked].any()
    assert not found[:, len(wanted) :].any()
    vectors = found[linked][:, : len(wanted)]
    np.testing.assert_allclose(inner @ vectors, vectors * wanted, atol=1e-9)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(wanted)), atol=1e-9)


def test_the_eigenvectors_of_a_path_are_cosines() -> None:
    """v_k(i) is cos(pi k i / (n - 1)) times the root of the degree of i."""
    n = 12
    path = nx.to_numpy_array(nx.path_graph(n))
    found = laplacian_eigenvectors(path, n - 1)
    for k in range(1, n):
        expected = np.cos(np.pi * k * np.arange(n) / (n - 1)) * np.sqrt(path.sum(axis=1))
        expected /= np.linalg.norm(expected)
        assert abs(expected @ found[:, k - 1]) == pytest.approx(1, abs=1e-10)


def test_the_largest_entry_of_an_eigenvector_is_positive(adjacency: np.ndarray) -> None:
    found = laplacian_eigenvectors(adjacency, 4)
    for column in found.T[found.any(axis=0)]:
        size = np.abs(column)
        assert column[np.flatnonzero(size > (1 - 1e-6) * size.max())[0]] > 0


@pytest.mark.parametrize("count", [0, -2, 1.5, True])
def test_a_count_below_1_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"count has to be a positive whole number, got {count!r}"):
        laplacian_eigenvectors(np.ones((3, 3)), count)


def test_883_sensors_take_a_moment() -> None:
    adjacency = nx.to_numpy_array(nx.random_geometric_graph(883, 0.05, seed=1))
    for compute in (scaled_laplacian, lambda graph: laplacian_eigenvectors(graph, 8)):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            compute(adjacency)
            times.append(time.perf_counter() - start)
        assert min(times) < 5  # 0.2 s alone on two cores
