"""What is no adjacency and what are no readings is refused, and the message says what was found."""

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ealinformer.graphs
from ealinformer.graphs.laplacians import laplacian_eigenvectors, normalised_laplacian, scaled_laplacian
from ealinformer.graphs.paths import hop_distances, path_lengths
from ealinformer.graphs.similarity import correlation_graph, nearest_neighbour_graph
from ealinformer.graphs.transitions import double_transition, random_walk

OF_ADJACENCY = [
    random_walk,
    double_transition,
    normalised_laplacian,
    scaled_laplacian,
    lambda adjacency: laplacian_eigenvectors(adjacency, 2),
    hop_distances,
    path_lengths,
]
OF_READINGS = [correlation_graph, nearest_neighbour_graph]


@pytest.mark.parametrize("function", OF_ADJACENCY)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((3, 4)), r"shape \(3, 4\), expected \[N, N\]"),
        (np.zeros(9), r"shape \(9,\), expected \[N, N\]"),
        (np.zeros((2, 3, 3)), r"shape \(2, 3, 3\), expected \[N, N\]"),
        (np.zeros((0, 0)), r"shape \(0, 0\), expected \[N, N\]"),
        (np.array([[0, 1], [np.nan, 0]]), "1 weights .* not finite"),
        (np.array([[0, np.inf], [np.inf, 0]]), "2 weights .* not finite"),
        (np.array([[0, 1], [-1, 0]]), "1 weights .* negative"),
        (np.array([["a", "b"], ["c", "d"]]), "dtype <U1"),
        (np.zeros((2, 2), complex), "dtype complex128"),
    ],
)
def test_what_is_no_adjacency_is_refused(function: Callable, wrong: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(wrong)


@pytest.mark.parametrize("function", OF_READINGS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros(5), r"shape \(5,\), expected \[T, N\]"),
        (np.zeros((5, 3, 1)), r"shape \(5, 3, 1\), expected \[T, N\]"),
        (np.zeros((0, 3)), r"shape \(0, 3\), expected \[T, N\]"),
        (np.zeros((5, 0)), r"shape \(5, 0\), expected \[T, N\]"),
        (np.array([["a"]]), "dtype <U1"),
        (np.array([[1.0, np.inf], [-np.inf, 2.0]]), "2 readings are infinite"),
    ],
)
def test_what_are_no_readings_is_refused(function: Callable, wrong: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(wrong)


@pytest.mark.parametrize("function", OF_READINGS)
@pytest.mark.parametrize("neighbours", [0, -1, 2.0, True])
def test_less_than_one_neighbour_is_refused(function: Callable, neighbours: int) -> None:
    with pytest.raises(ValueError, match=f"neighbours has to be a positive whole number, got {neighbours!r}"):
        function(np.ones((4, 3)), neighbours)


def test_a_window_below_1_is_refused() -> None:
    with pytest.raises(ValueError, match="window has to be a positive whole number, got 0"):
        correlation_graph(np.ones((4, 3)), window=0)


@pytest.mark.parametrize("function", OF_ADJACENCY)
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, bool])
def test_the_adjacency_stays_as_it_is_and_may_be_of_any_type_of_number(function: Callable, dtype: type) -> None:
    adjacency = np.array([[0, 1, 0], [1, 0, 1], [0, 0, 0]], dtype)
    adjacency.flags.writeable = False  # as a prior hands it out
    expected = function(adjacency.astype(np.float64))
    for found, wanted in zip(np.atleast_3d(function(adjacency)), np.atleast_3d(expected), strict=True):
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, wanted)


def test_the_package_imports_numpy_and_scipy_and_nothing_else_of_weight() -> None:
    for path in Path(ealinformer.graphs.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                allowed = ("collections.abc", "numpy", "scipy", "ealinformer.graphs")
                assert name.startswith(allowed) or (path.name, name) == ("dtw.py", "tslearn.metrics"), f"{path}: {name}"
