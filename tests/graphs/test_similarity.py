"""Graphs of a series against correlations of one pair at a time."""

import time

import numpy as np
import pytest

from ealinformer.graphs import similarity
from ealinformer.graphs.similarity import correlation_graph, nearest_neighbour_graph


def series(steps: int = 200, num_sensors: int = 12, seed: int = 0, missing: float = 0.1) -> np.ndarray:
    """Readings that share a cycle and, in groups of 3, noise; some are 0 or NaN, and the last sensor is constant."""
    generator = np.random.default_rng(seed)
    cycle = 50 + 40 * np.sin(2 * np.pi * np.arange(steps) / 288)
    groups = generator.normal(0, 4, (steps, -(-num_sensors // 3)))
    readings = cycle[:, None] + np.repeat(groups, 3, axis=1)[:, :num_sensors]
    readings += generator.normal(0, 4, readings.shape)
    gone = generator.random(readings.shape)
    readings[gone < missing] = 0
    readings[gone < missing / 2] = np.nan
    readings[:, -1] = 0.1
    return readings.astype(np.float32)


def is_missing(value: float) -> bool:
    return bool(np.isnan(value) or value == 0)


def cosine(a: list[float], b: list[float]) -> float:
    lengths = np.sqrt(sum(x * x for x in a)) * np.sqrt(sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def departures(column: np.ndarray, window: int) -> list[float]:
    if len({value for value in column if not is_missing(value)}) < 2:
        return [0.0] * len(column)
    found = []
    for t, reading in enumerate(column):
        near = [
            float(value) for value in column[max(t - window // 2, 0) : t + window // 2 + 1] if not is_missing(value)
        ]
        found.append(0.0 if is_missing(reading) else float(reading) - sum(near) / len(near))
    return found


def deviations(column: np.ndarray) -> list[float]:
    there = [float(value) for value in column if not is_missing(value)]
    if len(set(there)) < 2:
        return [0.0] * len(column)
    return [0.0 if is_missing(value) else float(value) - np.mean(there) for value in column]


@pytest.mark.parametrize("window", [1, 2, 7, 36, 1000])
def test_the_correlation_graph_keeps_the_strongest_of_either_sensor(window: int) -> None:
    readings = series()
    n, k = readings.shape[1], 3
    columns = [departures(readings[:, i], window) for i in range(n)]
    strength = np.array([[max(0.0, cosine(a, b)) for b in columns] for a in columns])
    np.fill_diagonal(strength, 0)
    expected = np.zeros((n, n))
    for i in range(n):
        for j in sorted(range(n), key=lambda j: -strength[i, j])[:k]:
            expected[i, j] = expected[j, i] = strength[i, j]
    found = correlation_graph(readings, k, window=window)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (np.count_nonzero(expected) > 3 * n / 2) == (window > 1)  # of itself a reading does not depart


def test_the_correlation_graph_finds_what_the_common_cycle_hides() -> None:
    """Sensors of a group share noise, all share the cycle: correlations of readings are high throughout."""
    readings = series(2000, num_sensors=13, missing=0)
    assert np.corrcoef(readings[:, :12].T.astype(float)).min() > 0.95
    graph = correlation_graph(readings, neighbours=2)
    group = np.arange(13) // 3
    assert (graph[:12, :12][group[:12, None] == group[:12]].sum()) > 0.9 * graph.sum()
    for i in range(12):
        assert set(np.argsort(-graph[i])[:2]) == set(np.flatnonzero(group == group[i])) - {i}


def test_the_nearest_neighbours_are_those_of_the_largest_cosine() -> None:
    readings = series(seed=4)
    n, k = readings.shape[1], 4
    columns = [deviations(readings[:, i]) for i in range(n)]
    expected = np.zeros((n, n))
    for i in range(n - 1):  # the last is constant
        others = [j for j in range(n - 1) if j != i]
        for j in sorted(others, key=lambda j: -cosine(columns[i], columns[j]))[:k]:
            expected[i, j] = 1
    found = nearest_neighbour_graph(readings, k)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert (found[:-1].sum(axis=1) == k).all()


def test_without_missing_readings_the_cosine_is_the_correlation() -> None:
    readings = np.random.default_rng(5).normal(100, 10, (300, 9))
    correlation = np.corrcoef(readings.T)
    np.fill_diagonal(correlation, -np.inf)
    expected = np.argsort(-correlation, axis=1)[:, :2]
    found = nearest_neighbour_graph(readings, 2)
    assert [set(np.flatnonzero(row)) for row in found] == [set(row) for row in expected]


@pytest.mark.parametrize("build", [correlation_graph, nearest_neighbour_graph])
@pytest.mark.parametrize(
    "readings",
    [
        np.full((50, 4), 0.1, np.float32),
        np.zeros((50, 4)),
        np.full((50, 4), np.nan),
        np.ones((1, 4)),
        np.ones((1, 1)),
        np.arange(50.0)[:, None] + 1,
        np.where(np.arange(50)[:, None] % 2 == np.arange(4) % 2, 0, 7.1),
    ],
    ids=["constant", "nulls", "NaN", "one step", "one reading", "one sensor", "constant with gaps"],
)
def test_without_what_to_compare_there_are_no_edges(build, readings: np.ndarray) -> None:
    found = build(readings)
    assert found.shape == (readings.shape[1],) * 2
    assert not found.any()


@pytest.mark.parametrize("build", [correlation_graph, nearest_neighbour_graph])
def test_a_graph_is_finite_not_negative_and_without_loops(build) -> None:
    for seed in range(5):
        found = build(series(seed=seed, num_sensors=30), 5)
        assert np.isfinite(found).all()
        assert found.min() == 0
        assert found.max() <= 1
        assert not np.diagonal(found).any()
        assert not found[-1].any()  # constant
        assert not found[:, -1].any()


def test_the_correlation_graph_is_sparse_and_undirected() -> None:
    found = correlation_graph(series(num_sensors=60), 5)
    np.testing.assert_array_equal(found, found.T)
    assert np.count_nonzero(found) <= 2 * 5 * 60


@pytest.mark.parametrize("build", [correlation_graph, nearest_neighbour_graph])
@pytest.mark.parametrize("rows", [1, 2, 7, 199, 200])
def test_blocks_of_rows_give_the_same_graph(build, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = series()
    whole = build(readings, 3)
    monkeypatch.setattr(similarity, "READINGS_PER_BLOCK", rows * readings.shape[1])
    np.testing.assert_allclose(build(readings, 3), whole, atol=1e-6)


@pytest.mark.parametrize("build", [correlation_graph, nearest_neighbour_graph])
def test_the_graph_follows_the_order_of_the_sensors(build) -> None:
    readings = series(num_sensors=20)
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_allclose(build(readings[:, order], 4), build(readings, 4)[np.ix_(order, order)], atol=1e-6)


@pytest.mark.parametrize("build", [correlation_graph, nearest_neighbour_graph])
def test_a_null_value_of_its_own_is_left_out(build) -> None:
    readings = np.where(series(missing=0) == 0, 1, series(missing=0))
    marked = readings.copy()
    marked[20:100, ::4] = -1  # one of each group
    other = np.where(marked == -1, np.float32(np.nan), marked)
    np.testing.assert_array_equal(build(marked, 3, null_value=-1.0), build(other, 3))
    assert not np.array_equal(build(marked, 3), build(other, 3))


def test_883_sensors_take_a_moment() -> None:
    readings = np.random.default_rng(0).normal(100, 10, (2000, 883)).astype(np.float32)
    for build in (correlation_graph, nearest_neighbour_graph):
        start = time.process_time()
        build(readings)
        assert time.process_time() - start < 10  # 0.6 s of a processor
