"""Where a training is, and how that goes into a checkpoint and comes back: to the bit."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ealinformer.errors import InputError
from ealinformer.training.checkpoints.checkpoint import (
    BEST,
    keep_checkpoint,
    load_lr_scheduler,
    load_optimizer,
    load_weights,
    save_checkpoint,
)
from ealinformer.training.checkpoints.content import difference
from ealinformer.training.config import RunConfig
from ealinformer.training.schedules import place_schedule
from ealinformer.training.score import Score

if TYPE_CHECKING:
    from ealinformer.training.runner import ForecastingRunner


@dataclass
class TrainingState:
    """The place of a training, and what has been decided so far."""

    epoch: int = 1  # in progress
    steps_done: int = 0  # of that epoch
    step: int = 0  # in all
    seconds: float = 0.0  # spent in training on that epoch
    skipped: int = 0  # steps that were not finite
    finished: bool = False
    stopped_by: str = "all epochs done"
    best: dict[str, Any] | None = None  # {"epoch", "step", "scores", "model": weights on the CPU}


def save_state(runner: "ForecastingRunner", every_rank: list[tuple[dict[str, Any], dict[str, torch.Tensor]]]) -> None:
    """Write last.pt from the random states and running sums of all ranks; the one before becomes previous.pt."""
    state, stopping, schedule = runner.state, runner.stopping, runner.lr_scheduler
    sums = [of_rank for _, of_rank in every_rank]
    training = {
        "epoch": state.epoch,
        "steps_done": state.steps_done,
        "step": state.step,
        "finished": state.finished,
        "optimizer": runner.optimizer.state_dict(),
        "lr_scheduler": None if schedule is None else schedule.state_dict(),
        "stopping_counter": 0 if stopping is None else stopping.counter,
        "best": state.best,
        "rng": [random for random, _ in every_rank],
        "sums": {name: torch.stack([of_rank[name].cpu() for of_rank in sums]) for name in sums[0]},
        "seconds": state.seconds,
        "skipped": state.skipped,
        "history": [dict(row) for row in runner.history.rows],
        "stopped_by": state.stopped_by,
        "code": runner.code,
        "data": runner.data_checksum,
    }
    newest = {"epoch": len(runner.history.rows), "step": state.step, "model": runner.bare_model.state_dict()}
    keep_checkpoint(runner.folder, runner.run, {**_for_evaluation(runner, newest), "training": training})


def save_best(runner: "ForecastingRunner") -> None:
    """Write best.pt, the weights of the best epoch."""
    best = runner.state.best
    if best is not None:
        save_checkpoint(runner.folder / BEST, runner.run, _for_evaluation(runner, best))


def _for_evaluation(runner: "ForecastingRunner", weights: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: weights[key] for key in ("model", "epoch", "step")},
        "scaler": {key: float(value) for key, value in runner.scaler.stats.items()},
        "metrics": dict(runner.best_metrics),
    }


def load_state(runner: "ForecastingRunner", path: Path, content: dict[str, Any]) -> None:
    """Put a checkpoint's content into a runner that is set up; random states are left to its loop.

    Raises:
        InputError: weights, optimizer, schedule or sums do not fit the run.
    """
    training, ranks = content["training"], runner.ranks
    load_weights(path, runner.bare_model, content)
    load_optimizer(path, runner.optimizer, training["optimizer"])
    if RunConfig.model_validate_json(content["run"]).recipe != runner.run.recipe:
        _take_recipe(runner, training["epoch"] - 1)
    elif runner.lr_scheduler is not None and training["lr_scheduler"] is not None:
        load_lr_scheduler(path, runner.lr_scheduler, training["lr_scheduler"])
    if runner.stopping is not None:
        runner.stopping.counter = training["stopping_counter"]
    runner.scaler.stats.update({name: torch.tensor(value) for name, value in content["scaler"].items()})
    names = ("epoch", "steps_done", "step", "seconds", "skipped", "finished", "stopped_by", "best")
    runner.state = TrainingState(**{name: training[name] for name in names})
    if runner.state.best is not None:
        score = f"val/{runner.target_metric}"
        if score not in runner.state.best["scores"]:
            raise InputError(f"{path} holds best weights without their {score}")
        runner.best_metrics.update(runner.state.best["scores"])
    sums = training["sums"]
    zeros = {name: torch.stack([tensor.cpu()] * len(training["rng"])) for name, tensor in runner.score.state().items()}
    problem = difference(sums, zeros)
    if problem:
        raise InputError(f"{path} does not fit the metrics: {problem}")
    if len(training["rng"]) == ranks.world_size:
        own = {name: tensor[ranks.rank] for name, tensor in sums.items()}
    else:  # another number of processes: one of them takes over what all had seen
        own = {name: tensor.sum(0) * ranks.is_master for name, tensor in sums.items()}
    runner.score = Score.from_state(own, runner.device)
    if ranks.is_master:
        runner.history.restore(training["history"])
        save_best(runner)  # a kill may have left an older or a newer one
    else:
        runner.history.rows = training["history"]


def _take_recipe(runner: "ForecastingRunner", epochs_done: int) -> None:
    """Put the settings of the config in place of those of a checkpoint, where a change of the recipe was accepted."""
    recipe, schedule = runner.run.recipe, runner.lr_scheduler
    for group in runner.optimizer.param_groups:
        group.update(lr=recipe.lr, initial_lr=recipe.lr, weight_decay=recipe.weight_decay)
        if "betas" in group:  # Adam and AdamW
            group["eps"] = recipe.eps
    if schedule is not None:  # a new one, that has the config's settings
        place_schedule(schedule, epochs_done)


def place_in_batches(runner: "ForecastingRunner", path: Path, content: dict[str, Any]) -> None:
    """Find the step of this run's batches at which a checkpoint with other batches or other data stands.

    Raises:
        InputError: it stands within an epoch where no step of this run begins.
    """
    training, saved, state = content["training"], RunConfig.model_validate_json(content["run"]), runner.state
    before = saved.recipe.batch_size * int(training["code"].get("processes", "1"))
    now, num_windows = runner.batches.global_batch_size, runner.batches.num_windows
    if state.steps_done == 0 or (before == now and training["data"] == runner.data_checksum):
        return
    if training["data"] != runner.data_checksum:
        raise InputError(f"{path} stands within epoch {state.epoch}, which cannot be gone on with on other data")
    seen = min(state.steps_done * before, num_windows)
    if seen % now and seen < num_windows:
        raise InputError(
            f"{path} stands {seen} windows into epoch {state.epoch}, where no batch of {now} windows begins; batches "
            f"of {before} in all can go on from there"
        )
    state.steps_done = -(-seen // now)
