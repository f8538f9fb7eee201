"""Perturbations of input windows, each against numpy by hand."""

import math

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from ealinformer.analysis.perturbations import (
    PERTURBATIONS,
    RECALIBRATED,
    PerturbedWindows,
    check_strength,
    is_missing,
    lowest_allowed,
    perturb,
    spread_windows,
    window_pattern,
)
from ealinformer.errors import InputError

STEPS, SENSORS = 12, 400
STD = 40.0


@pytest.fixture
def readings() -> np.ndarray:
    """Flow `[12, 400]` far from 0, with two readings missing."""
    values = np.random.default_rng(3).uniform(1000, 2000, size=(STEPS, SENSORS)).astype(np.float32)
    values[0, 0] = values[7, 9] = 0
    return values


@pytest.fixture
def apply(readings: np.ndarray):
    """`apply("noise", 0.5, window=3)`: the readings, perturbed."""

    def perturbed(name: str, strength: float, **settings) -> np.ndarray:
        defaults = {"window": 0, "seed": 0, "std": STD, "null_value": 0.0, "lowest": 0.0}
        return perturb(settings.pop("readings", readings), name, strength, **{**defaults, **settings})

    return perturbed


def moved(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """By how many training std the present readings moved."""
    return ((after.astype(np.float64) - before) / STD)[before != 0]


# Each perturbation


def test_noise_has_the_std_that_its_strength_says(apply, readings) -> None:
    for strength in (0.1, 0.5, 2.0):
        change = moved(apply("noise", strength), readings)
        assert change.std() == pytest.approx(strength, rel=0.05)  # 4,798 draws: 1 % is one standard error
        assert abs(change.mean()) < 5 * strength / math.sqrt(change.size)


def test_noise_of_readings_and_of_sensors_is_independent(apply, readings) -> None:
    change = (apply("noise", 1.0) - readings)[1:7] / STD
    assert abs(np.corrcoef(change[0], change[1])[0, 1]) < 0.25  # 400 draws: 0.05 is one standard error
    assert len(np.unique(change)) > 0.9 * change.size


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_missing_readings_are_a_share_within_binomial_bounds_and_all_else_stays(apply, readings, share: float) -> None:
    after = apply("missing", share)
    gone = (after == 0) & (readings != 0)
    count = (readings != 0).sum()
    assert abs(gone.sum() - share * count) < 5 * math.sqrt(count * share * (1 - share))
    np.testing.assert_array_equal(after[~gone], readings[~gone])


def test_an_outage_takes_whole_sensors(apply, readings) -> None:
    after = apply("outage", 0.3)
    out = (after == 0).all(axis=0)
    assert abs(out.sum() - 0.3 * SENSORS) < 5 * math.sqrt(SENSORS * 0.3 * 0.7)
    np.testing.assert_array_equal(after[:, ~out], readings[:, ~out])


@pytest.mark.parametrize("name", ["missing", "outage"])
def test_at_a_share_of_1_nothing_is_left(apply, name: str) -> None:
    assert (apply(name, 1.0) == 0).all()


@pytest.mark.parametrize("strength", [-1.0, 0.25])
def test_a_shift_moves_every_reading_by_the_same(apply, readings, strength: float) -> None:
    expected = np.where(readings == 0, 0, readings + np.float32(strength * STD))
    np.testing.assert_allclose(apply("shift", strength), expected, rtol=1e-6)


def test_a_recalibration_moves_some_sensors_by_the_same_and_the_others_not(apply, readings) -> None:
    change = (apply("recalibration", -0.5).astype(np.float64) - readings)[1:7] / STD
    hit = (change != 0).all(axis=0)
    np.testing.assert_allclose(change[:, hit], -0.5, atol=1e-4)
    assert (change[:, ~hit] == 0).all()
    assert abs(hit.sum() - RECALIBRATED * SENSORS) < 5 * math.sqrt(SENSORS * RECALIBRATED * (1 - RECALIBRATED))


def test_a_trend_is_a_ramp_from_nothing_to_its_strength(apply, readings) -> None:
    change = (apply("trend", 0.6).astype(np.float64) - readings)[:, 1] / STD
    np.testing.assert_allclose(change, [0.6 * step / 11 for step in range(12)], atol=1e-4)


def test_a_window_of_one_reading_has_no_trend() -> None:
    assert window_pattern("trend", 0, 1, 5, seed=0).tolist() == [[0.0]]


# What holds for all of them


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_strength_0_gives_the_very_array(apply, readings, name: str) -> None:
    assert apply(name, 0.0) is readings


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_what_is_missing_stays_missing_and_the_input_is_left_alone(apply, readings, name: str) -> None:
    before = readings.copy()
    after = apply(name, 0.6)
    assert (after[[0, 7], [0, 9]] == 0).all()
    assert after.dtype == np.float32
    assert (after != before).any()
    np.testing.assert_array_equal(readings, before)


@pytest.mark.parametrize("null_value", [math.nan, -1.0])
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_other_null_values_stay_too_and_mark_what_goes_missing(apply, readings, name: str, null_value: float) -> None:
    own = np.where(readings == 0, np.float32(null_value), readings)
    after = apply(name, 0.6, readings=own, null_value=null_value)
    assert is_missing(after[[0, 7], [0, 9]], null_value).all()
    assert is_missing(after, null_value).sum() > 2 if PERTURBATIONS[name].gaps else not (after == 0).any()


@pytest.mark.parametrize("name", ["noise", "missing", "outage", "recalibration"])
def test_draws_are_those_of_the_seed_and_the_window(apply, name: str) -> None:
    found = apply(name, 0.4, seed=1, window=5)
    np.testing.assert_array_equal(found, apply(name, 0.4, seed=1, window=5))
    assert (found != apply(name, 0.4, seed=2, window=5)).any()
    assert (found != apply(name, 0.4, seed=1, window=6)).any()


def test_perturbations_draw_apart_from_each_other() -> None:
    draws = [window_pattern(name, 4, 1, 500, seed=9)[0] for name in ("missing", "outage")]
    assert abs(np.corrcoef(*draws)[0, 1]) < 0.25  # 0.045 is one standard error


def test_a_stronger_one_is_the_same_and_more_of_it(apply, readings) -> None:
    weak, strong = (apply("noise", strength).astype(np.float64) - readings for strength in (0.5, 1.0))
    np.testing.assert_allclose(strong, 2 * weak, atol=1e-3)
    few, many = (apply("missing", share) == 0 for share in (0.1, 0.2))
    assert (many | ~few).all()
    assert many.sum() > few.sum()


def test_readings_are_held_at_0_where_the_series_has_none_below(apply) -> None:
    low = np.full((2, 3), 10.0, dtype=np.float32)
    assert (apply("shift", -1.0, readings=low) == 0).all()
    assert (apply("shift", -1.0, readings=low, lowest=-math.inf) == 10 - STD).all()


def test_the_lowest_allowed_is_0_unless_a_present_reading_is_below() -> None:
    assert lowest_allowed(np.array([[0.0, 5.0]]), 0.0) == 0
    assert lowest_allowed(np.array([[-1.0, 5.0]]), -1.0) == 0
    assert lowest_allowed(np.array([[math.nan, 5.0]]), math.nan) == 0
    far = np.ones((10_000, 1))
    far[-1] = -3
    assert lowest_allowed(far, 0.0) == -math.inf


@pytest.mark.parametrize(
    ("name", "strength", "said"),
    [
        ("noise", -0.1, "noise: strengths from 0 to 100 are expected, got -0.1"),
        ("missing", 1.5, "missing: strengths from 0 to 1 are expected, got 1.5"),
        ("shift", 1e9, "shift: strengths from -100 to 100 are expected, got 1e+09"),
        ("trend", math.nan, "got nan"),
        ("nois", 0.1, "unknown perturbation 'nois' (did you mean 'noise'?); known: noise, missing, outage, shift, "),
    ],
)
def test_strengths_that_cannot_be_are_refused(name: str, strength: float, said: str) -> None:
    with pytest.raises(InputError) as caught:
        check_strength(name, strength)
    assert said in str(caught.value)


# Windows of a data set


class Series(Dataset):
    """Windows of 12 in and 1 out over a flow `[60, 7]`, as the host's data set gives them: views of one array."""

    def __init__(self) -> None:
        self.rows = np.random.default_rng(5).uniform(100, 200, size=(60, 7)).astype(np.float32)
        self.rows[20] = 0

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return {"inputs": self.rows[number : number + 12], "targets": self.rows[number + 12 : number + 13]}


@pytest.fixture
def windows():
    """`windows("noise", 0.5, numbers)`."""
    settings = {"seed": 3, "std": 20.0, "null_value": 0.0, "lowest": 0.0}
    return lambda name, strength, numbers: PerturbedWindows(Series(), numbers, name, strength, settings)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_window_is_the_same_in_every_batch_size_and_subset_and_targets_are_clean(windows, name: str) -> None:
    def all_of(numbers: list[int], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        batches = list(DataLoader(windows(name, 0.5, numbers), batch_size=batch_size))
        return tuple(np.concatenate([batch[key].numpy() for batch in batches]) for key in ("inputs", "targets"))

    every, some = list(range(40)), [3, 17, 39]
    inputs, targets = all_of(every, 8)
    np.testing.assert_array_equal(inputs, all_of(every, 7)[0])
    np.testing.assert_array_equal(inputs[some], all_of(some, 2)[0])
    np.testing.assert_array_equal(targets[:, 0], Series().rows[12:52])
    assert (inputs != np.stack([Series()[number]["inputs"] for number in every])).any()


def test_what_a_perturbation_costs_is_counted(windows) -> None:
    gone = windows("outage", 0.5, list(range(40)))
    inputs = np.stack([gone[place]["inputs"] for place in range(40)])
    present = np.stack([Series()[number]["inputs"] for number in range(40)]) != 0
    assert gone.lost_share == (present & (inputs == 0)).sum() / present.sum() > 0.3
    held = windows("shift", -6.0, [0])
    np.testing.assert_array_equal(held[0]["inputs"], np.maximum(Series()[0]["inputs"] - np.float32(120), 0))
    assert held.lost_share == (Series()[0]["inputs"] <= 120).mean() > 0
    assert windows("noise", 0.1, [0]).lost_share == 0


def test_windows_are_spread_from_the_first_to_the_last() -> None:
    assert spread_windows(5, None) == [0, 1, 2, 3, 4]
    assert spread_windows(101, 5) == [0, 25, 50, 75, 100]
    assert spread_windows(87, 87) == list(range(87))
    assert len(set(spread_windows(1591, 1500))) == 1500
    for wrong in (0, 6, -1):
        with pytest.raises(InputError, match=f"--windows {wrong}: from 1 to 5 are expected"):
            spread_windows(5, wrong)
