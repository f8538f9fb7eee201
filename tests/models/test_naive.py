"""The simple forecasts: cases worked by hand, and their published floor on PEMS08."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ealinformer.models import naive
from ealinformer.models.naive import WeeklyProfile, historical_inertia, last_value


def calendar(steps: int, steps_per_day: int, first_day: int = 0) -> NDArray[np.float32]:
    """Timestamps `[T, 2]` from midnight of `first_day`, in the precision that prepared data sets have."""
    step = np.arange(steps)
    day = (first_day + step // steps_per_day) % 7
    return np.stack([(step % steps_per_day) / steps_per_day, day / 7], axis=1).astype(np.float32)


def test_last_value_repeats_the_newest_reading() -> None:
    inputs = np.array([[[1.0, 10.0], [2.0, 20.0]], [[3.0, 30.0], [0.0, 40.0]]])
    expected = [[[2.0, 20.0]] * 3, [[0.0, 40.0]] * 3]
    np.testing.assert_array_equal(last_value(inputs, 3), expected)


def test_historical_inertia_copies_the_end_of_the_window() -> None:
    inputs = np.arange(10.0).reshape(1, 5, 2)
    np.testing.assert_array_equal(historical_inertia(inputs, 2), [[[6.0, 7.0], [8.0, 9.0]]])
    np.testing.assert_array_equal(historical_inertia(inputs, 5), inputs)


@pytest.mark.parametrize("forecast", [last_value, historical_inertia])
def test_forecasts_do_not_share_memory_with_their_input(forecast) -> None:  # type: ignore[no-untyped-def]
    inputs = np.ones((2, 3, 4), dtype=np.float32)
    forecast(inputs, 3)[:] = 7.0
    assert (inputs == 1.0).all()
    assert forecast(inputs, 3).dtype == np.float32


def test_windows_that_cannot_be_forecast_are_refused() -> None:
    inputs = np.ones((2, 3, 4))
    with pytest.raises(ValueError, match="output_len 4 exceeds input length 3"):
        historical_inertia(inputs, 4)
    for forecast in (last_value, historical_inertia):
        with pytest.raises(ValueError, match=r"\[B, L, N\]"):
            forecast(inputs[0], 1)
        with pytest.raises(ValueError, match="output_len is 0"):
            forecast(inputs, 0)


def test_profile_is_the_mean_of_a_slot_over_weeks() -> None:
    # Two steps a day for three weeks; sensor 1 counts the other way.
    rising = np.arange(42.0)
    data = np.stack([rising, 100 - rising], axis=1)
    stamps = calendar(42, 2)
    profile = WeeklyProfile().fit(data, stamps, 2)
    np.testing.assert_allclose(profile.predict(stamps[:14])[:, 0], np.arange(14) + 14)
    np.testing.assert_allclose(profile.predict(stamps[5])[1], 100 - 19)
    assert profile.predict(stamps[:12].reshape(3, 4, 2)).shape == (3, 4, 2)


def test_missing_readings_are_left_out_of_the_mean() -> None:
    data = np.zeros((28, 3))
    data[4], data[18] = [10.0, np.nan, 7.0], [30.0, 8.0, 0.0]
    stamps = calendar(28, 2)
    at_slot_4 = stamps[4]
    np.testing.assert_allclose(WeeklyProfile().fit(data, stamps, 2, 0.0).predict(at_slot_4), [20.0, 8.0, 7.0])
    # Without a null value a zero is a reading; NaN never is.
    np.testing.assert_allclose(WeeklyProfile().fit(data, stamps, 2).predict(at_slot_4), [20.0, 8.0, 3.5])
    np.testing.assert_allclose(WeeklyProfile().fit(data, stamps, 2, np.nan).predict(at_slot_4), [20.0, 8.0, 3.5])


def test_slots_never_seen_fall_back_in_order() -> None:
    # Monday and Tuesday with three steps a day; the last step of both days is missing, sensor 1 has no reading at all.
    data = np.array([[1.0, 0], [2, 0], [0, 0], [3, 0], [6, 0], [0, 0]])
    profile = WeeklyProfile().fit(data, calendar(6, 3), 3, null_value=0.0)
    tuesday, wednesday = calendar(9, 3)[3:6], calendar(9, 3)[6:9]
    np.testing.assert_allclose(profile.predict(tuesday)[:, 0], [3.0, 6.0, 3.0])  # sensor mean at the last step
    np.testing.assert_allclose(profile.predict(wednesday)[:, 0], [2.0, 4.0, 3.0])  # means of the slots of the day
    np.testing.assert_array_equal(profile.predict(wednesday)[:, 1], [0.0, 0.0, 0.0])


def test_training_without_one_row_forecasts_zero() -> None:
    profile = WeeklyProfile().fit(np.empty((0, 2)), np.empty((0, 2)), 24)
    np.testing.assert_array_equal(profile.predict(np.array([0.5, 0.0])), [0.0, 0.0])


@pytest.mark.parametrize("steps_per_day", [1, 24, 96, 288, 1440, 86400])
def test_every_interval_keeps_its_slots_apart_in_float32(steps_per_day: int) -> None:
    steps = 7 * steps_per_day
    data = np.arange(steps, dtype=np.float64)[:, None]
    stamps = calendar(steps, steps_per_day)
    np.testing.assert_array_equal(WeeklyProfile().fit(data, stamps, steps_per_day).predict(stamps), data)


@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(1, 60), sensors=st.integers(1, 5), steps_per_day=st.integers(1, 5), seed=st.integers(0, 2**32 - 1)
)
def test_profile_agrees_with_a_loop_over_readings(steps: int, sensors: int, steps_per_day: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    data = random.integers(0, 4, (steps, sensors)).astype(np.float64)
    stamps = np.stack([random.integers(0, steps_per_day, steps) / steps_per_day, random.integers(0, 7, steps) / 7], 1)
    everywhere = calendar(7 * steps_per_day, steps_per_day)

    def same(a: float, b: float) -> bool:
        return abs(a - b) < 1e-3

    expected = np.zeros((len(everywhere), sensors))
    for row, (time_of_day, day) in enumerate(everywhere):
        for sensor in range(sensors):
            readings = [(stamp, value) for stamp, value in zip(stamps, data[:, sensor], strict=True) if value != 0]
            in_day = [(stamp, value) for stamp, value in readings if same(stamp[0], time_of_day)]
            in_week = [(stamp, value) for stamp, value in in_day if same(stamp[1], day)]
            chosen = in_week or in_day or readings
            expected[row, sensor] = np.mean([value for _, value in chosen]) if chosen else 0.0
    profile = WeeklyProfile().fit(data, stamps, steps_per_day, null_value=0.0)
    np.testing.assert_allclose(profile.predict(everywhere), expected)


def test_profile_does_not_depend_on_the_block_of_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 9, (50, 7)).astype(np.float32)
    stamps = calendar(50, 4)
    whole = WeeklyProfile().fit(data, stamps, 4, 0.0).predict(stamps)
    monkeypatch.setattr(naive, "READINGS_PER_BLOCK", 100)  # two sensors at a time, the last alone
    np.testing.assert_array_equal(WeeklyProfile().fit(data, stamps, 4, 0.0).predict(stamps), whole)
    assert whole.dtype == np.float32


def test_profile_refuses_what_does_not_fit() -> None:
    data, stamps = np.ones((4, 2)), calendar(4, 2)
    with pytest.raises(RuntimeError, match="before fit"):
        WeeklyProfile().predict(stamps)
    with pytest.raises(ValueError, match=r"data has shape \(4,\)"):
        WeeklyProfile().fit(data[:, 0], stamps, 2)
    with pytest.raises(ValueError, match=r"timestamps has shape \(3, 2\), expected \(4, 2\)"):
        WeeklyProfile().fit(data, stamps[:3], 2)
    with pytest.raises(ValueError, match="steps_per_day is 0"):
        WeeklyProfile().fit(data, stamps, 0)
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\)"):
        WeeklyProfile().fit(data, stamps * 7, 2)  # day of week as 0 ... 6 reaches 1
    with pytest.raises(ValueError, match=r"expected \[\.\.\., 2\]"):
        WeeklyProfile().fit(data, stamps, 2).predict(stamps[:, :1])


@pytest.fixture(scope="module")
def pems08() -> NDArray[np.float32]:
    folder = os.environ.get("EALINFORMER_RAW_DIR")
    if not folder:
        pytest.skip("skipped: no raw data")
    with np.load(Path(folder) / "PEMS08" / "PEMS08.npz") as archive:
        return archive["data"][..., 0]


def masked_metrics(prediction: NDArray, truth: NDArray) -> tuple[float, float, float]:
    """MAE, RMSE and MAPE in percent over the non-zero readings of all horizons together."""
    present = truth != 0
    error = np.abs(prediction[present].astype(np.float64) - truth[present])
    return error.mean(), np.sqrt((error**2).mean()), 100 * (error / truth[present]).mean()


@pytest.mark.real_data
def test_floor_on_pems08(pems08: NDArray[np.float32]) -> None:
    stamps = calendar(len(pems08), 288, first_day=4)  # 2016-07-01 was a Friday, BasicTS counts from Monday
    train, test = slice(0, 10713), slice(len(pems08) - 3572, None)

    def windows(series: NDArray) -> NDArray:
        return np.lib.stride_tricks.sliding_window_view(series[test], 24, axis=0).transpose(0, 2, 1)

    inputs, truth = windows(pems08)[:, :12], windows(pems08)[:, 12:]
    target_stamps = windows(stamps)[:, 12:]
    assert inputs.shape == (3549, 12, 170)

    def rounded(prediction: NDArray) -> list[float]:
        return [round(value, 2) for value in masked_metrics(prediction, truth)]

    assert rounded(last_value(inputs, 12)) == [25.30, 38.66, 15.66]
    assert rounded(historical_inertia(inputs, 12))[0] == pytest.approx(34.72, abs=0.005)
    # The published floor counts the zeros of the training part as readings; leaving them out forecasts better.
    with_zeros = WeeklyProfile().fit(pems08[train], stamps[train], 288)
    assert rounded(with_zeros.predict(target_stamps)) == [23.27, 40.52, 14.50]
    without_zeros = WeeklyProfile().fit(pems08[train], stamps[train], 288, null_value=0.0)
    assert rounded(without_zeros.predict(target_stamps)) == [23.20, 40.44, 14.53]
