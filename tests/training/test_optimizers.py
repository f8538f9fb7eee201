"""Optimizers: Adam in one kernel has the numbers of the plain form, Adafactor keeps little and resumes exactly."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Adafactor, Adam

from ealinformer.errors import InputError
from ealinformer.training.checkpoints.checkpoint import load_checkpoint, load_optimizer
from ealinformer.training.host import host_config
from ealinformer.training.jobs import Job
from ealinformer.training.launcher import train
from ealinformer.training.runner import ForecastingRunner

NewJob = Callable[..., Job]


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((12, 50, 8), (31, 17), (17,), (1, 5))
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def stepped(weights: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: int = 20) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        optimizer.step()
    return [weight.detach() for weight in weights]


def test_adam_is_the_one_kernel_kind(new_job: NewJob, tmp_path: Path) -> None:
    job = new_job(tmp_path / "run")
    config = host_config(job.run, job.entry, data_dir=job.data_dir, folder=job.folder, gpus=None)
    assert config.optimizer is Adam
    assert config.optimizer_params == {"lr": 5e-3, "weight_decay": 1e-4, "fused": True, "eps": 1e-8}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
def test_adam_in_one_kernel_is_the_plain_one_but_for_rounding_and_the_same_bits_again(
    dtype: torch.dtype, tolerance: float
) -> None:
    def run(fused: bool) -> list[Tensor]:
        weights = parameters(dtype)
        return stepped(weights, Adam(weights, lr=1e-2, weight_decay=1e-2, fused=fused))

    for one, again, plain in zip(run(True), run(True), run(False), strict=True):
        assert torch.equal(one, again)
        torch.testing.assert_close(one, plain, rtol=tolerance, atol=tolerance)


def test_adafactor_keeps_a_row_and_a_column_of_a_matrix() -> None:
    weights = parameters()
    optimizer = Adafactor(weights, lr=1e-2)
    stepped(weights, optimizer, steps=1)
    kept = sum(tensor.numel() for state in optimizer.state.values() for tensor in state.values())
    assert kept == 12 * (50 + 8) + (31 + 17) + 17 + (1 + 5) + len(weights)
    assert kept < sum(weight.numel() for weight in weights) / 5


def test_an_adafactor_run_that_was_killed_ends_with_the_same_bits(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("optimizer=adafactor", "lr=0.02", "num_epochs=3", "model.dropout=0.1", "milestones=(1,)")
    straight = new_job(tmp_path / "straight", *settings)
    metrics = train(straight)
    job = dataclasses.replace(new_job(tmp_path / "run", *settings), checkpoint_minutes=0)
    step = ForecastingRunner._train_step

    class Killed(BaseException):
        pass

    def dying(self: ForecastingRunner, data: dict[str, Tensor]) -> None:
        if self.step == 9:
            raise Killed
        step(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(ForecastingRunner, "_train_step", dying)
        with pytest.raises(Killed):
            train(job)
    assert train(job)["horizons"] == metrics["horizons"]
    one, other = (load_checkpoint(each.folder / "last.pt")[1]["training"] for each in (job, straight))
    assert one["history"][-1]["train_loss"] == other["history"][-1]["train_loss"] < one["history"][0]["train_loss"]
    for index, state in one["optimizer"]["state"].items():
        assert state.keys() >= {"step"}
        assert all(torch.equal(state[name], other["optimizer"]["state"][index][name]) for name in state)
    assert "optimizer adafactor" in (job.folder / "train.log").read_text()


@pytest.mark.parametrize(
    ("index", "name", "value", "said"),
    [
        (0, "row_var", torch.zeros(12, 8, 1), r"of parameter 0, row_var is \[12, 8, 1\], expected \[12, 50, 1\]"),
        (1, "col_var", torch.zeros(31, 17), r"of parameter 1, col_var is \[31, 17\], expected \[1, 17\]"),
        (2, "variance", None, "of parameter 2, variance is not there"),
        (3, "step", torch.zeros(2), r"of parameter 3, step is \[2\]"),
    ],
)
def test_a_state_of_adafactor_that_does_not_fit_is_one_line(
    index: int, name: str, value: Tensor | None, said: str
) -> None:
    weights = parameters()
    optimizer = Adafactor(weights)
    stepped(weights, optimizer, steps=1)
    state = optimizer.state_dict()
    load_optimizer(Path("last.pt"), Adafactor(weights), state)
    if value is None:
        del state["state"][index][name]
    else:
        state["state"][index][name] = value
    with pytest.raises(InputError, match=rf"^last.pt does not fit the optimizer: {said}"):
        load_optimizer(Path("last.pt"), Adafactor(weights), state)


def test_the_state_of_another_optimizer_is_one_line() -> None:
    weights = parameters()
    adam = Adam(weights)
    stepped(weights, adam, steps=1)
    with pytest.raises(InputError, match=r"^last.pt does not fit the optimizer: of group 0, beta2_decay is not there$"):
        load_optimizer(Path("last.pt"), Adafactor(weights), adam.state_dict())
