"""The runner: BasicTS's, with its train and evaluation loops mended.

What differs from `BasicTSRunner` 1.1.0, each with a test in tests/training/test_runner.py that fails on the stock one:
every batch is trained, the last of the last epoch too; the loss is taken on the original scale; metrics are sums and
counts over a whole split; nothing is read from the device within a step; the test set is not touched while training;
no prediction is written unless asked for; a run is not resumed behind the user's back; validation is the same, and
early stopping the same decision, on every rank.
"""

import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from basicts.runners import BasicTSRunner
from basicts.runners.builder import Builder
from basicts.utils import BasicTSMode, RunnerStatus
from easytorch.utils import get_rank, get_world_size, is_master
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Subset

from ealinformer.data.meta import Split
from ealinformer.training.checkpoint import save_checkpoint
from ealinformer.training.config import RunConfig
from ealinformer.training.early_stopping import is_better
from ealinformer.training.history import History
from ealinformer.training.losses import is_masked
from ealinformer.training.metrics import MetricSums
from ealinformer.training.progress import duration, track
from ealinformer.training.run_folder import HISTORY

BEST, LAST = "best.pt", "last.pt"


@dataclass
class Score:
    """Metrics and mean loss over a split, summed up batch by batch on the device."""

    sums: MetricSums
    loss_sum: Tensor
    weight: Tensor
    predictions: list[Tensor] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Mean loss so far; reading it waits for the device."""
        return float(self.loss_sum / self.weight) if float(self.weight) else math.nan

    def reduce_over_ranks(self) -> None:
        """Add up what the processes of a distributed run have seen."""
        self.sums.reduce_over_ranks()
        torch.distributed.all_reduce(self.loss_sum)
        torch.distributed.all_reduce(self.weight)


class ForecastingRunner(BasicTSRunner):
    """Trains one run and leaves its checkpoints, history and TensorBoard events in the run's folder."""

    def __init__(self, cfg: Any, run: RunConfig, log: logging.Logger | None = None) -> None:
        super().__init__(cfg)
        self.run = run
        # The host keeps its own logger, which is quiet; what a user reads goes through this one.
        self.log = log or logging.getLogger(__name__)
        self.folder = Path(cfg.ckpt_save_dir)
        self.history = History(self.folder / HISTORY)
        self.step = 0
        self.best_epoch: int | None = None
        self.stopped_by = "all epochs done"
        self.device = next(self.model.parameters()).device

    @property
    def bare_model(self) -> nn.Module:
        """The model without the wrapper of a distributed run."""
        return self.model.module if isinstance(self.model, DistributedDataParallel) else self.model

    # What the host calls while it sets up

    def _get_ckpt_save_dir(self, cfg: Any) -> str:
        return str(cfg.ckpt_save_dir)  # the run's own folder, not one named by the md5 of the config

    def _load_model_resume(self, strict: bool = True) -> None:
        """Nothing: the host takes up whatever lies in the folder without a word."""

    def _init_validation(self) -> None:
        # On every rank, each with its own share of the windows; the host validates on rank 0 and leaves the others.
        dataset = Builder._build_dataset(self.cfg, BasicTSMode.VAL)
        share = Subset(dataset, range(get_rank(), len(dataset), get_world_size()))
        self.val_data_loader = self._evaluation_loader(share)
        self.register_meter("val/time", "val", "{:.2f} (s)", plt=False)
        for name in ("loss", *self.metrics):
            self.register_meter(f"val/{name}", "val", "{:.4f}")

    def _init_test(self) -> None:
        """Nothing: the test set is for `evaluate`, once the best epoch is chosen."""

    # Early stopping reads the meters, so that every rank has to keep them; the host keeps them on rank 0.

    def register_meter(self, name: str, meter_type: str, fmt: str = "{:f}", plt: bool = True) -> None:
        self.meter_pool.register(name, meter_type, fmt, plt)

    def update_meter(self, name: str, value: float, n: int = 1) -> None:
        self.meter_pool.update(name, value, n)

    def reset_meters(self) -> None:
        self.meter_pool.reset()

    # Training

    def _train_loop(self) -> None:
        started = time.monotonic()
        for epoch in range(1, self.num_epochs + 1):
            self.epoch = epoch
            epoch_started = time.monotonic()
            if hasattr(self.train_data_loader.sampler, "set_epoch"):
                self.train_data_loader.sampler.set_epoch(epoch)
            self.callback_handler.trigger("on_epoch_start", self, epoch=epoch)
            score, steps = self._train_epoch(epoch)
            self._fill_meters("train", score, epoch_started)
            self.plt_meters("train", epoch)
            rate = self.optimizer.param_groups[0]["lr"]
            if self.lr_scheduler is not None:
                self.lr_scheduler.step()
            if epoch % self.val_interval == 0 or self.should_training_stop or epoch == self.num_epochs:
                self.validate(train_epoch=epoch)
            self.callback_handler.trigger("on_epoch_end", self, epoch=epoch, step=self.step)
            self._record_epoch(epoch, steps, rate)
            self._save_model(epoch)
            self.reset_meters()
            if self.should_training_stop:
                if self.step != self.run.max_steps:
                    self.stopped_by = f"no better validation score for {self.run.recipe.patience} epochs"
                break
            if epoch < self.num_epochs:
                left = (time.monotonic() - started) / epoch * (self.num_epochs - epoch)
                self.log.info(f"at most {duration(left)} left")

    def _train_epoch(self, epoch: int) -> tuple[Score, int]:
        """One pass over the training windows: its score (model in training mode) and the number of steps taken."""
        score = self._new_score()
        total = len(self.train_data_loader)
        title = f"epoch {epoch}/{self.num_epochs}"
        before = self.step
        for data in track(self.train_data_loader, total, title, self.log, lambda: score.loss):
            self.step += 1
            self._train_step(data, epoch, score)
            if self.step == self.run.max_steps:
                self.should_training_stop = True
                self.stopped_by = f"--max-steps {self.step}"
                break
        return score, self.step - before

    def _train_step(self, data: dict[str, Any], epoch: int, score: Score) -> None:
        self.status = RunnerStatus.TRAINING
        self.model.train()
        self.callback_handler.trigger("on_step_start", self, epoch=epoch, step=self.step)
        forward_return = self._predict(self.model, data, epoch)
        self.callback_handler.trigger(
            "on_compute_loss", self, epoch=epoch, step=self.step, data=data, forward_return=forward_return
        )
        loss = self._metric_forward(self.loss, forward_return)
        self._add(score, forward_return, loss)
        if self.should_backward:
            self.callback_handler.trigger("on_backward", self, loss=loss)
            loss.backward()
            if self.should_optimizer_step:
                self.callback_handler.trigger("on_optimizer_step", self)
                self._optimizer_step()
        self.callback_handler.trigger("on_step_end", self, step=self.step)

    def _predict(self, model: nn.Module, data: dict[str, Any], epoch: int | None = None) -> dict[str, Any]:
        """Batch of the loader -> the host's `forward_return`, with forecast and targets on the original scale."""
        forward_return = self._forward(model, self.taskflow.preprocess(self, data), self.step, epoch)
        forward_return["prediction"] = self.scaler.inverse_transform(forward_return["prediction"])
        return forward_return

    # Validation and test

    @torch.no_grad()
    def validate(self, train_step: int | None = None, train_epoch: int | None = None) -> None:
        """Score the validation part and keep the model when it is the best so far."""
        started = time.monotonic()
        self.callback_handler.trigger("on_validate_start", self)
        self.status = RunnerStatus.VALIDATING
        score = self._score(self.val_data_loader, "validation")
        if get_world_size() > 1:
            score.reduce_over_ranks()
        self._fill_meters("val", score, started)
        # Before the best score is updated: early stopping compares with the one before.
        self.callback_handler.trigger("on_validate_end", self, train_step=train_step, train_epoch=train_epoch)
        self.plt_meters("val", train_epoch)
        self._save_best_model(train_epoch or 0, f"val/{self.target_metric}")

    @torch.no_grad()
    def evaluate(self, split: Split, *, keep_predictions: bool = False) -> Score:
        """Score a whole split in this process, with the weights that the model has now.

        With `keep_predictions` the forecasts `[B, H, N]` of all windows, in order, are in `Score.predictions`.
        """
        self.status = RunnerStatus.EVALUATING
        dataset = Builder._build_dataset(self.cfg, BasicTSMode(split))
        return self._score(self._evaluation_loader(dataset), split, keep_predictions=keep_predictions)

    def _score(self, loader: DataLoader, title: str, *, keep_predictions: bool = False) -> Score:
        self.model.eval()
        score = self._new_score()
        for data in track(loader, len(loader), title, self.log):
            forward_return = self._predict(self.bare_model, data)
            self.callback_handler.trigger("on_compute_loss", self, forward_return=forward_return)
            self._add(score, forward_return, self._metric_forward(self.loss, forward_return))
            if keep_predictions:
                score.predictions.append(forward_return["prediction"].cpu())
        return score

    def _evaluation_loader(self, dataset: Dataset) -> DataLoader:
        return DataLoader(dataset, batch_size=self.run.recipe.eval_batch_size)

    def _new_score(self) -> Score:
        zero = torch.zeros((), dtype=torch.float64, device=self.device)
        return Score(MetricSums.zeros(self.run.output_len, self.device), zero, zero.clone())

    def _add(self, score: Score, forward_return: dict[str, Any], loss: Tensor) -> None:
        targets, mask = forward_return["targets"], forward_return["targets_mask"]
        prediction = forward_return["prediction"].detach()
        score.sums.update(prediction, targets, mask)
        weight = mask.sum() if is_masked(self.run.recipe.loss) else targets.numel()
        score.loss_sum += loss.detach().double() * weight
        score.weight += weight

    # Records

    def _fill_meters(self, part: str, score: Score, started: float) -> None:
        self.update_meter(f"{part}/loss", score.loss)
        # After the loss, which waits for the device: the time is that of all steps.
        self.update_meter(f"{part}/time", time.monotonic() - started)
        for name, value in score.sums.average().items():
            self.update_meter(f"{part}/{name}", math.nan if value is None else value)
        if part == "train" and self.lr_scheduler is not None:
            self.update_meter("train/lr", self.optimizer.param_groups[0]["lr"])

    def _record_epoch(self, epoch: int, steps: int, rate: float) -> None:
        meter = self.meter_pool.get_value
        row: dict[str, float] = {
            "epoch": epoch,
            "steps": steps,
            "lr": rate,
            "train_loss": meter("train/loss"),
            "train_MAE": meter("train/MAE"),
            "val_loss": meter("val/loss"),
            **{f"val_{name}": meter(f"val/{name}") for name in self.metrics},
            "train_seconds": meter("train/time"),
            "val_seconds": meter("val/time"),
        }
        if is_master():
            self.history.add(row)
        best = "  best so far" if epoch == self.best_epoch else ""
        self.log.info(
            f"epoch {epoch:>3}/{self.num_epochs}  train loss {row['train_loss']:.3f}  val loss {row['val_loss']:.3f}  "
            f"MAE {row['val_MAE']:.3f}  RMSE {row['val_RMSE']:.3f}  MAPE {row['val_MAPE']:.2f} %  lr {rate:.0e}  "
            f"{duration(row['train_seconds'])} + {duration(row['val_seconds'])}{best}"
        )

    def _save_best_model(self, unit_count: int, metric_name: str, greater_best: bool = False) -> None:
        value, best = self.meter_pool.get_value(metric_name), self.best_metrics.get(metric_name)
        if is_better(value, best):
            self.best_metrics[metric_name] = value
            self.best_epoch = unit_count
            self._write_checkpoint(BEST, unit_count)

    def _save_model(self, unit_count: int) -> None:
        self._write_checkpoint(LAST, unit_count)

    def _write_checkpoint(self, name: str, epoch: int) -> None:
        if not is_master():
            return
        state: dict[str, Any] = {
            "model": self.bare_model.state_dict(),
            "epoch": epoch,
            "step": self.step,
            "best_metrics": dict(self.best_metrics),
            "scaler": {key: float(value) for key, value in self.scaler.stats.items()},
        }
        if name == LAST:
            state["optimizer"] = self.optimizer.state_dict()
            if self.lr_scheduler is not None:
                state["lr_scheduler"] = self.lr_scheduler.state_dict()
        save_checkpoint(self.folder / name, self.run, state)
