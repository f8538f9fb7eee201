"""Daily profiles against a mean slot by slot, dynamic time warping against its recursion."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ealinformer.graphs import dtw
from ealinformer.graphs.dtw import daily_profiles, dtw_distances


def calendar(steps: int, steps_per_day: int, start: int = 0) -> np.ndarray:
    """Timestamps `[steps, 2]` as prepared folders hold them."""
    step = np.arange(start, start + steps)
    clock = step % steps_per_day / steps_per_day
    return np.stack([clock, step // steps_per_day % 7 / 7], axis=1).astype(np.float32)


def mean_by_slot(readings: np.ndarray, slots: np.ndarray, steps_per_day: int, null_value: float) -> np.ndarray:
    """The mean of the readings of a slot that are there, one slot of one sensor at a time."""
    profiles = np.zeros((readings.shape[1], steps_per_day))
    for sensor, series in enumerate(readings.T):
        there = [value for value in series if not np.isnan(value) and value != null_value]
        for slot in range(steps_per_day):
            found = [v for v, s in zip(series, slots, strict=True) if s == slot and not np.isnan(v) and v != null_value]
            if found:
                profiles[sensor, slot] = np.mean(found)
            elif there:
                profiles[sensor, slot] = np.mean(there)
    return profiles


@pytest.mark.parametrize("null_value", [0.0, -1.0, np.nan])
@pytest.mark.parametrize(("steps", "steps_per_day", "start"), [(100, 24, 5), (61, 7, 0), (10, 24, 20), (1, 4, 3)])
def test_a_profile_is_the_mean_of_the_readings_of_a_slot(
    null_value: float, steps: int, steps_per_day: int, start: int
) -> None:
    generator = np.random.default_rng(0)
    readings = generator.integers(-1, 4, (steps, 6)).astype(np.float32)  # many are the null value
    readings[generator.random(readings.shape) < 0.2] = np.nan
    readings[:, 4] = null_value
    slots = np.arange(start, start + steps) % steps_per_day
    expected = mean_by_slot(readings, slots, steps_per_day, null_value)
    found = daily_profiles(readings, calendar(steps, steps_per_day, start), steps_per_day, null_value)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert not found[4].any()


def test_blocks_of_sensors_give_the_same_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = np.random.default_rng(1).normal(50, 10, (96, 11)).astype(np.float32)
    whole = daily_profiles(readings, calendar(96, 24), 24)
    monkeypatch.setattr(dtw, "READINGS_PER_BLOCK", 300)  # three sensors at a time
    np.testing.assert_array_equal(daily_profiles(readings, calendar(96, 24), 24), whole)


@pytest.mark.parametrize("steps_per_day", [24, 96, 288, 1440])
def test_every_step_falls_into_its_own_slot(steps_per_day: int) -> None:
    """Times of day in float32 come out a hair below their slot."""
    readings = np.arange(1, steps_per_day + 1, dtype=np.float32)[:, None]
    found = daily_profiles(readings, calendar(steps_per_day, steps_per_day), steps_per_day)
    np.testing.assert_array_equal(found, readings.T)


@pytest.mark.parametrize(
    ("readings", "timestamps", "steps_per_day", "message"),
    [
        (np.ones((4, 2)), np.zeros((5, 2)), 24, r"shape \(5, 2\), expected \(4, 2\)"),
        (np.ones((4, 2)), np.zeros((4, 3)), 24, r"shape \(4, 3\), expected \(4, 2\)"),
        (np.ones((4, 2)), np.full((4, 2), 1.0), 24, "range from 1.0 to 1.0, expected values in"),
        (np.ones((4, 2)), np.full((4, 2), np.nan), 24, "range from nan to nan, expected values in"),
        (np.ones((4, 2)), np.zeros((4, 2)), 0, "steps_per_day has to be a positive whole number, got 0"),
        (np.ones(4), np.zeros((4, 2)), 24, r"shape \(4,\), expected \[T, N\]"),
        (np.full((4, 2), np.inf), np.zeros((4, 2)), 24, "8 readings are infinite"),
    ],
)
def test_what_does_not_fit_is_refused(
    readings: np.ndarray, timestamps: np.ndarray, steps_per_day: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        daily_profiles(readings, timestamps, steps_per_day)


def warped(a: np.ndarray, b: np.ndarray) -> float:
    """The recursion of dynamic time warping."""
    cost = np.full((len(a) + 1, len(b) + 1), np.inf)
    cost[0, 0] = 0
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            nearest = min(cost[i - 1, j], cost[i, j - 1], cost[i - 1, j - 1])
            cost[i, j] = (a[i - 1] - b[j - 1]) ** 2 + nearest
    return float(np.sqrt(cost[-1, -1]))


@pytest.mark.parametrize(("num_sensors", "steps"), [(1, 5), (2, 1), (5, 24), (3, 50)])
def test_a_distance_is_that_of_the_recursion(num_sensors: int, steps: int) -> None:
    pytest.importorskip("tslearn")
    profiles = np.random.default_rng(2).normal(0, 3, (num_sensors, steps))
    expected = [[warped(a, b) for b in profiles] for a in profiles]
    np.testing.assert_allclose(dtw_distances(profiles), expected, rtol=1e-9, atol=1e-9)


def test_a_shifted_day_is_near_and_another_volume_is_far() -> None:
    """No z-scores: the same day in twice the volume is no neighbour."""
    pytest.importorskip("tslearn")
    day = np.exp(-(((np.arange(48) - 20) / 4) ** 2)) * 100
    distances = dtw_distances(np.stack([day, np.roll(day, 4), 2 * day]))
    assert distances[0, 1] < 1e-3 * np.linalg.norm(day - np.roll(day, 4))
    assert distances[0, 2] > 50


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        (np.ones(4), r"shape \(4,\), expected \[N, S\]"),
        (np.ones((0, 4)), r"shape \(0, 4\), expected \[N, S\]"),
        (np.array([[1.0, np.nan], [np.inf, 2.0]]), "2 values of the profiles are not finite"),
    ],
)
def test_profiles_that_have_no_distance_are_refused(profiles: np.ndarray, message: str) -> None:
    pytest.importorskip("tslearn")
    with pytest.raises(ValueError, match=message):
        dtw_distances(profiles)


def test_compiled_as_users_run_it_the_distances_are_the_same() -> None:
    profiles = np.random.default_rng(0).normal(size=(4, 6))
    code = "import json, sys; from ealinformer.graphs.dtw import dtw_distances; import numba; "
    code += "print(json.dumps([numba.config.DISABLE_JIT, dtw_distances(json.load(sys.stdin)).tolist()]))"
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(profiles.tolist()), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    left_as_python, found = json.loads(done.stdout)
    assert not left_as_python
    np.testing.assert_allclose(found, dtw_distances(profiles), rtol=1e-12)
