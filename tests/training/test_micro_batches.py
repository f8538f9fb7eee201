"""A batch in parts: gradients, losses and metrics of the whole batch, whatever each part has of missing readings."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from basicts.runners.callback import BasicTSCallback

from ealinformer.training.checkpoints.checkpoint import load_checkpoint
from ealinformer.training.host import host_config
from ealinformer.training.jobs import Job
from ealinformer.training.launcher import train
from ealinformer.training.runner import ForecastingRunner
from ealinformer.training.runs.history import read_history

NewJob = Callable[..., Job]
PLAIN = ("dtype=float64", "model.dropout=0.0", "num_epochs=1", "max_steps=3")


class Gradients(BasicTSCallback):
    """Keeps the gradients of each step, and the number of windows in each pass."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []
        self.passes: list[int] = []
        self.missing: list[float] = []

    def on_compute_loss(self, runner: ForecastingRunner, **kwargs: object) -> None:
        if "data" in kwargs:
            self.passes.append(len(kwargs["data"]["inputs"]))
            self.missing.append(1 - kwargs["data"]["targets_mask"].double().mean().item())

    def on_optimizer_step(self, runner: ForecastingRunner) -> None:
        self.steps.append(
            torch.cat([p.grad.flatten() for p in runner.model.parameters() if p.grad is not None]).clone()
        )


def trained(new_job: NewJob, folder: Path, *settings: str) -> tuple[Gradients, dict[str, float]]:
    job = new_job(folder, *PLAIN, *settings)
    folder.mkdir()
    config = host_config(job.run, job.entry, data_dir=job.data_dir, folder=folder, gpus=None)
    gradients = Gradients()
    config.callbacks = [*config.callbacks, gradients]
    runner = ForecastingRunner(config, job.run)
    runner.train()
    (row,) = runner.history.rows
    return gradients, {name: value for name, value in row.items() if "seconds" not in name}


@pytest.mark.parametrize("loss", ["masked_mae", "masked_huber", "huber"])
@pytest.mark.parametrize("size", [1, 16, 39])
def test_gradients_losses_and_metrics_are_those_of_the_whole_batch(
    new_job: NewJob, tmp_path: Path, loss: str, size: int
) -> None:
    whole, expected = trained(new_job, tmp_path / "whole", f"loss={loss}")
    parts, row = trained(new_job, tmp_path / "parts", f"loss={loss}", f"micro_batch_size={size}")
    assert whole.passes == [40] * 3
    assert parts.passes == ([size] * (40 // size) + ([40 % size] if 40 % size else [])) * 3
    assert max(parts.missing) > 1.5 * min(parts.missing)  # a mean of means would be another gradient
    for one, other in zip(parts.steps, whole.steps, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12 * other.abs().max().item())
    assert row == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [40, 1000])
def test_parts_as_large_as_the_batch_change_no_bit(new_job: NewJob, tmp_path: Path, size: int) -> None:
    whole, expected = trained(new_job, tmp_path / "whole")
    parts, row = trained(new_job, tmp_path / "parts", f"micro_batch_size={size}")
    assert all(map(torch.equal, parts.steps, whole.steps))
    assert row == expected


def test_a_step_is_finite_or_not_as_a_whole(new_job: NewJob, tmp_path: Path) -> None:
    """A part that is not finite keeps the others out of metrics and weights, too."""
    settings = ("num_epochs=1", "max_steps=2", "skip_nonfinite=1", "micro_batch_size=10")
    job = new_job(tmp_path / "run", *settings)
    (tmp_path / "run").mkdir()
    runner = ForecastingRunner(
        host_config(job.run, job.entry, data_dir=job.data_dir, folder=job.folder, gpus=None), job.run
    )
    passes: list[int] = []

    def spoil(grad: torch.Tensor) -> torch.Tensor:
        passes.append(runner.step)
        return grad * torch.inf if len(passes) == 3 else grad

    next(runner.model.parameters()).register_hook(spoil)
    counts: list[float] = []
    between = runner._between_steps
    runner._between_steps = lambda: (counts.append(float(runner.score.weight)), between())  # type: ignore[method-assign]
    runner.train()
    assert passes == [1] * 4 + [2] * 4
    assert runner.state.skipped == 1
    assert counts[0] == 0 < counts[1] <= 40 * 3 * 5


def test_a_checkpoint_does_not_know_of_parts(new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two passes of a step, a run goes on with that step, and ends as one that ran through."""
    settings = ("num_epochs=1", "model.dropout=0.2", "micro_batch_size=16")
    straight = new_job(tmp_path / "straight", *settings)
    train(straight)

    class Killed(BaseException):
        pass

    passes, original = 0, ForecastingRunner._pass

    def dying(self: ForecastingRunner, *arguments: object) -> object:
        nonlocal passes
        passes += 1
        if passes == 8:  # the second one of the third step
            raise Killed
        return original(self, *arguments)

    job = dataclasses.replace(new_job(tmp_path / "run", *settings), checkpoint_minutes=0)
    with monkeypatch.context() as patch:
        patch.setattr(ForecastingRunner, "_pass", dying)
        with pytest.raises(Killed):
            train(job)
    training = load_checkpoint(job.folder / "last.pt")[1]["training"]
    assert training["steps_done"] == 2
    train(job)
    one, other = (load_checkpoint(each.folder / "last.pt")[1]["model"] for each in (job, straight))
    assert all(torch.equal(one[name], other[name]) for name in one)
    rows = [read_history(each.folder / "history.csv")[0] for each in (job, straight)]
    assert rows[0]["train_loss"] == rows[1]["train_loss"]
