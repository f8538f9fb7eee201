"""Exponents of costs that are known, and predictions along them."""

import pytest

from ealinformer.measure.scaling import exponent, predicted

LENGTHS = [2048, 4096, 8192, 65536]


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0])
def test_the_exponent_of_a_power_is_found(power: float) -> None:
    assert exponent(LENGTHS, [3e-7 * n**power for n in LENGTHS]) == pytest.approx(power)


def test_the_exponent_is_the_least_squares_one() -> None:
    # By hand: x = 0, 1, 2 and y = 0, 2, 2 (in log 2) have slope 1.
    assert exponent([1, 2, 4], [1, 4, 4]) == pytest.approx(1.0)


def test_one_length_has_no_exponent() -> None:
    assert exponent([8], [1.0]) is None
    assert exponent([8, 8], [1.0, 2.0]) is None
    assert exponent([], []) is None


@pytest.mark.parametrize(("lengths", "costs"), [([1, 2], [1.0]), ([1, 2], [1.0, 0.0]), ([0, 2], [1.0, 1.0])])
def test_what_has_no_logarithm_is_refused(lengths: list[int], costs: list[float]) -> None:
    with pytest.raises(ValueError, match="as many costs as lengths, all above 0"):
        exponent(lengths, costs)


def test_a_prediction_follows_the_last_slope() -> None:
    assert predicted([64, 1024, 2048], [1.0, 1.0, 4.0], 4096) == pytest.approx(16.0)


def test_a_prediction_from_one_point_expects_the_worst_unless_told_otherwise() -> None:
    assert predicted([100], [2.0], 1000) == pytest.approx(200.0)
    assert predicted([100], [2.0], 1000, unknown=1.0) == pytest.approx(20.0)
    assert predicted([], [], 1000) is None


def test_a_cost_that_fell_is_not_expected_to_fall_further() -> None:
    assert predicted([64, 128], [2.0, 1.0], 1024) == pytest.approx(1.0)
