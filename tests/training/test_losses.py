"""Losses against plain numpy, on readings of which some are missing."""

import inspect
from types import FunctionType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ealinformer.training.losses import LOSSES, huber, is_masked, masked_huber, masked_mae
from ealinformer.training.metrics import present_mask

SHAPE = (7, 3, 5)


def batch(null_value: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Forecast, readings with a third missing, and their mask, all `[B, H, N]` in float64."""
    rng = np.random.default_rng(seed)
    targets = rng.uniform(1, 300, SHAPE)
    targets[rng.random(SHAPE) < 1 / 3] = null_value
    # Errors on both sides of Huber's delta.
    prediction = np.nan_to_num(targets) + rng.normal(0, 2, SHAPE)
    tensors = torch.from_numpy(prediction), torch.from_numpy(targets)
    return *tensors, present_mask(tensors[1], null_value)


def huber_of(errors: np.ndarray) -> np.ndarray:
    size = np.abs(errors)
    return np.where(size <= 1, 0.5 * size**2, size - 0.5)


@pytest.mark.parametrize("null_value", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("seed", range(3))
def test_masked_losses_are_means_over_the_readings_present(null_value: float, seed: int) -> None:
    prediction, targets, mask = batch(null_value, seed)
    errors = (prediction - targets).numpy()[mask.numpy()]
    assert 0 < len(errors) < prediction.numel()
    assert masked_mae(prediction, targets, mask).item() == pytest.approx(np.abs(errors).mean(), rel=1e-12)
    assert masked_huber(prediction, targets, mask).item() == pytest.approx(huber_of(errors).mean(), rel=1e-12)


def test_plain_huber_counts_the_missing_readings() -> None:
    prediction, targets, mask = batch(0.0)
    errors = (prediction - targets).numpy()
    assert huber(prediction, targets).item() == pytest.approx(huber_of(errors).mean(), rel=1e-12)
    assert huber(prediction, targets).item() != pytest.approx(masked_huber(prediction, targets, mask).item())


@pytest.mark.parametrize("loss", [masked_mae, masked_huber])
def test_missing_readings_get_no_gradient_even_when_they_are_nan(loss) -> None:
    prediction, targets, mask = batch(float("nan"))
    prediction.requires_grad_()
    loss(prediction, targets, mask).backward()
    assert (prediction.grad[~mask] == 0).all()
    expected = (prediction - targets).detach().clamp(-1, 1) / mask.sum()
    if loss is masked_mae:
        expected = (prediction - targets).detach().sign() / mask.sum()
    torch.testing.assert_close(prediction.grad[mask], expected[mask])


@pytest.mark.parametrize("loss", [masked_mae, masked_huber])
def test_a_batch_without_a_reading_costs_nothing(loss) -> None:
    prediction = torch.ones(SHAPE, requires_grad=True)
    value = loss(prediction, torch.full(SHAPE, float("nan")), torch.zeros(SHAPE, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert (prediction.grad == 0).all()


@given(factor=st.floats(0.01, 1000), seed=st.integers(0, 100))
def test_masked_mae_scales_with_the_unit(factor: float, seed: int) -> None:
    prediction, targets, mask = batch(0.0, seed)
    assert masked_mae(factor * prediction, factor * targets, mask).item() == pytest.approx(
        factor * masked_mae(prediction, targets, mask).item(), rel=1e-9
    )


@pytest.mark.parametrize("name", LOSSES)
def test_losses_survive_the_host_which_keeps_only_their_code(name: str) -> None:
    """BasicTS's runner rebuilds a loss from its code object, and picks its arguments by name."""
    loss = LOSSES[name]
    arguments = dict(zip(("prediction", "targets", "targets_mask"), batch(0.0), strict=True))
    named = {key: value for key, value in arguments.items() if key in inspect.signature(loss).parameters}
    rebuilt = FunctionType(loss.__code__, loss.__globals__, name="loss")
    assert rebuilt(**named).item() == loss(**named).item()


def test_losses_that_take_a_mask_are_called_masked() -> None:
    for name, loss in LOSSES.items():
        assert is_masked(name) == ("targets_mask" in inspect.signature(loss).parameters)
