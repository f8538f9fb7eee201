"""What a training notices by itself: each case is said, and nothing else is."""

import math
from pathlib import Path

import pytest
import torch

from ealinformer.training.watch import FiniteWatch, describe_bad_step, warnings

CPU = torch.device("cpu")
FINITE = torch.tensor([1.0, -2.0])
METRICS = ["MAE", "RMSE"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_or_a_gradient_that_is_not_finite_is_seen(bad: float, where: str) -> None:
    watch = FiniteWatch(CPU, at_once=True)
    bad_tensor = torch.tensor([0.0, bad])
    loss, gradients = (bad_tensor[1], [FINITE]) if where == "loss" else (FINITE[0], [FINITE, bad_tensor])
    assert watch.see(1, FINITE[0], [FINITE, FINITE])
    assert not watch.see(2, loss, gradients)


def test_large_gradients_whose_squares_overflow_are_finite() -> None:
    assert FiniteWatch(CPU, at_once=True).see(1, FINITE[0], [torch.full((3,), 1e30)])


def test_a_model_without_gradients_is_fine() -> None:
    assert FiniteWatch(CPU, at_once=True).see(1, FINITE[0], [])


def test_what_is_kept_on_the_device_is_the_first_bad_step_and_costs_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, which the test stands in for by its meta data: nothing is read until it is asked."""
    watch = FiniteWatch(CPU, at_once=False)
    watch.at_once = False
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__bool__", lambda self: pytest.fail("the device was read"))
        steps = [FINITE[0], FINITE[0], torch.tensor(math.nan), FINITE[0], torch.tensor(math.inf)]
        assert all(watch.see(number, loss, [FINITE]) for number, loss in enumerate(steps, start=1))
    assert watch.first_bad() == 3


def test_without_a_bad_step_there_is_none() -> None:
    watch = FiniteWatch(CPU, at_once=False)
    watch.see(1, FINITE[0], [FINITE])
    assert watch.first_bad() is None


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (math.nan, "the loss, nan, is not finite in step 7"),
        (3.0, "a gradient is not finite in step 7"),
        (None, "the loss or a gradient is not finite in step 7"),
    ],
)
def test_a_bad_step_is_described_in_one_line(tmp_path: Path, loss: float | None, said: str) -> None:
    line = describe_bad_step(loss, "step 7", range(40), tmp_path / "last.pt", 0)
    assert line.startswith(f"{said}, windows 0, 1, 2, 3, 4, 5, 6, 7 and 32 more of the training part; there is no ")
    (tmp_path / "last.pt").touch()
    line = describe_bad_step(loss, "step 7", [4, 17, 3], tmp_path / "last.pt", 2)
    assert "windows 4, 17, 3 of the training part" in line
    assert line.endswith(f"{tmp_path / 'last.pt'} is the last good checkpoint; 2 such steps may be skipped")


def rows(*losses: float, **metrics: float) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "val_loss": loss, "val_MAE": loss, "val_RMSE": 2 * loss, **metrics}
        for epoch, loss in enumerate(losses, start=1)
    ]


@pytest.mark.parametrize("losses", [(30.0,), (30.0, 20.0, 25.0), (2.0, 19.0), (5.0, 5.0)])
def test_an_ordinary_history_has_no_warning(losses: tuple[float, ...]) -> None:
    assert warnings(rows(*losses), METRICS) == []


def test_divergence_is_said_with_the_best_epoch() -> None:
    (said,) = warnings(rows(30.0, 20.0, 25.0, 900.0), METRICS)
    assert said == "diverging: validation loss 900 is 45 times the best, 20 in epoch 2"
    assert len(warnings(rows(30.0, math.nan, 400.0), METRICS)) == 1  # an epoch without a loss is no best one


def test_undefined_metrics_are_said() -> None:
    history = rows(30.0)
    history[-1]["val_MAE"] = math.nan
    (said,) = warnings(history, METRICS)
    assert said.startswith("validation MAE undefined")


def test_metrics_that_do_not_move_are_said_once_there_are_three_of_them() -> None:
    assert warnings(rows(7.0, 7.0), METRICS) == []
    (said,) = warnings(rows(8.0, 7.0, 7.0, 7.0), METRICS)
    assert said == "dead: the validation metrics are the same to the last digit for 3 epochs"
    assert warnings(rows(7.0, 7.0, 7.000001), METRICS) == []
