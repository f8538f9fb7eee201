"""Metrics over a split, summed up batch by batch, against plain numpy over the whole."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ealinformer.training.metrics import MetricSums, present_mask

WINDOWS, HORIZON, SENSORS = 37, 4, 6


def readings(null_value: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Forecast and readings `[W, H, N]` in float32; some readings are the null value, some zero."""
    rng = np.random.default_rng(seed)
    shape = (WINDOWS, HORIZON, SENSORS)
    targets = rng.gamma(2, 100, shape).astype(np.float32)
    targets[rng.random(shape) < 0.1] = 0
    targets[rng.random(shape) < 0.2] = null_value
    return targets.clip(0) + rng.normal(0, 20, shape).astype(np.float32), targets


def present(targets: np.ndarray, null_value: float) -> np.ndarray:
    return ~np.isnan(targets) if np.isnan(null_value) else targets != np.float32(null_value)


def by_numpy(prediction: np.ndarray, targets: np.ndarray, null_value: float) -> dict[str, float]:
    mask = present(targets, null_value)
    errors = (prediction.astype(np.float64) - targets.astype(np.float64))[mask]
    readings = targets.astype(np.float64)[mask]
    return {
        "MAE": np.abs(errors).mean(),
        "RMSE": np.sqrt(np.square(errors).mean()),
        "MAPE": 100 * np.abs(errors / np.where(readings == 0, np.inf, readings)).sum() / (readings != 0).sum(),
    }


def summed(prediction: np.ndarray, targets: np.ndarray, null_value: float, batches: list[np.ndarray]) -> MetricSums:
    sums = MetricSums.zeros(HORIZON)
    for rows in batches:
        batch = torch.from_numpy(targets[rows])
        sums.update(torch.from_numpy(prediction[rows]), batch, present_mask(batch, null_value))
    return sums


def unequal_batches(*sizes: int) -> list[np.ndarray]:
    return np.split(np.arange(WINDOWS), np.cumsum(sizes))


@pytest.mark.parametrize("null_value", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("batches", [unequal_batches(16, 16), unequal_batches(1, 3, 30), unequal_batches()])
def test_sums_over_unequal_batches_are_numpy_over_the_whole(null_value: float, batches: list[np.ndarray]) -> None:
    prediction, targets = readings(null_value)
    sums = summed(prediction, targets, null_value, batches)
    assert sums.average() == pytest.approx(by_numpy(prediction, targets, null_value), rel=1e-12)
    assert list(sums.horizons()) == ["1", "2", "3", "4"]
    for step in range(HORIZON):
        expected = by_numpy(prediction[:, step], targets[:, step], null_value)
        assert sums.horizons()[str(step + 1)] == pytest.approx(expected, rel=1e-12)


def test_the_average_pools_readings_and_is_no_mean_over_horizons() -> None:
    prediction, targets = readings(0.0)
    targets[5:, 0] = 0  # the first horizon has few readings
    sums = summed(prediction, targets, 0.0, unequal_batches(20))
    assert sums.average() == pytest.approx(by_numpy(prediction, targets, 0.0), rel=1e-12)
    for name, value in sums.average().items():
        assert value != pytest.approx(np.mean([row[name] for row in sums.horizons().values()]), rel=1e-6)


def test_mape_counts_present_readings_that_are_not_zero() -> None:
    targets = torch.tensor([[[2.0, 0.0, -1.0, 4.0]]])
    sums = MetricSums.zeros(1)
    sums.update(torch.tensor([[[3.0, 5.0, 7.0, 4.0]]]), targets, present_mask(targets, -1.0))
    assert sums.average() == {"MAE": 2.0, "RMSE": pytest.approx((26 / 3) ** 0.5), "MAPE": 25.0}


def test_a_mean_of_batch_means_would_be_another_number() -> None:
    """What BasicTS does for MAPE; the exact one differs from it on this very data."""
    prediction, targets = readings(-1.0)
    batches = unequal_batches(16, 16)
    exact = summed(prediction, targets, -1.0, batches).average()["MAPE"]
    means = [by_numpy(prediction[rows], targets[rows], -1.0)["MAPE"] for rows in batches]
    weights = [present(targets[rows], -1.0).sum() for rows in batches]
    assert exact != pytest.approx(np.average(means, weights=weights), rel=1e-6)


def test_nothing_present_gives_none() -> None:
    targets = torch.full((2, HORIZON, SENSORS), float("nan"))
    sums = MetricSums.zeros(HORIZON)
    nothing = {"MAE": None, "RMSE": None, "MAPE": None}
    assert sums.average() == nothing
    sums.update(torch.zeros_like(targets), targets, present_mask(targets, float("nan")))
    assert sums.average() == nothing
    assert sums.horizons() == {str(step): nothing for step in range(1, HORIZON + 1)}


def test_only_zeros_present_gives_errors_and_no_mape() -> None:
    targets = torch.zeros(2, HORIZON, SENSORS)
    sums = MetricSums.zeros(HORIZON)
    sums.update(targets + 3, targets, present_mask(targets, -1.0))
    assert sums.average() == {"MAE": 3.0, "RMSE": 3.0, "MAPE": None}


def test_a_forecast_of_nan_is_not_hidden() -> None:
    prediction, targets = readings(0.0)
    prediction[np.unravel_index(np.argmax(targets), targets.shape)] = np.nan
    assert np.isnan(summed(prediction, targets, 0.0, unequal_batches()).average()["MAE"])


@settings(deadline=None)
@given(order=st.permutations(range(WINDOWS)), cuts=st.sets(st.integers(1, WINDOWS - 1)))
def test_neither_order_nor_size_of_batches_matters(order: list[int], cuts: set[int]) -> None:
    prediction, targets = readings(0.0)
    whole = summed(prediction, targets, 0.0, unequal_batches())
    parts = summed(prediction, targets, 0.0, np.split(np.array(order), sorted(cuts)))
    assert parts.average() == pytest.approx(whole.average(), rel=1e-12)
    for step, row in whole.horizons().items():
        assert parts.horizons()[step] == pytest.approx(row, rel=1e-12)


def test_large_readings_keep_their_digits() -> None:
    """A sum of a million float32 squares in float32 would be off in the fifth digit."""
    rng = np.random.default_rng(1)
    targets = rng.uniform(500, 600, (200, HORIZON, 1000)).astype(np.float32)
    prediction = targets + rng.normal(0, 0.1, targets.shape).astype(np.float32)
    sums = MetricSums.zeros(HORIZON)
    for first in range(0, 200, 64):
        batch = torch.from_numpy(targets[first : first + 64])
        sums.update(torch.from_numpy(prediction[first : first + 64]), batch, present_mask(batch, 0.0))
    assert sums.average() == pytest.approx(by_numpy(prediction, targets, 0.0), rel=1e-12)


def test_a_curriculum_scores_the_horizons_it_has() -> None:
    prediction, targets = readings(0.0)
    sums = MetricSums.zeros(HORIZON)
    batch = torch.from_numpy(targets[:, :1])
    sums.update(torch.from_numpy(prediction[:, :1]), batch, present_mask(batch, 0.0))
    assert sums.horizons()["1"] == pytest.approx(by_numpy(prediction[:, :1], targets[:, :1], 0.0), rel=1e-12)
    assert sums.horizons()["2"]["MAE"] is None


@pytest.mark.parametrize(
    ("null_value", "missing"),
    [
        (0.0, [0.0, -0.0, 4e-5, -4e-5, float("nan")]),
        (-1.0, [-1.0, -1.00004, float("nan")]),
        (float("nan"), [float("nan")]),
    ],
)
def test_readings_at_or_very_near_the_null_value_are_missing(null_value: float, missing: list[float]) -> None:
    assert not present_mask(torch.tensor(missing), null_value).any()


@pytest.mark.parametrize(
    ("null_value", "here"), [(0.0, [1.0, 6e-5, -1.0]), (-1.0, [0.0, 1.0, -1.0001]), (float("nan"), [0.0, -1.0])]
)
def test_other_readings_are_present(null_value: float, here: list[float]) -> None:
    assert present_mask(torch.tensor(here), null_value).all()
