"""The runner: BasicTS's, with its train and evaluation loops mended.

What differs from `BasicTSRunner` 1.1.0, each with a test in tests/training/ that fails on the stock one: every batch is
trained, the last of the last epoch too; the loss is taken on the original scale; metrics are sums and counts over a
whole split; nothing is read from a GPU within a step; the test set is not touched while training; no prediction is
written unless asked for; a run is taken up again only when the launcher says so, and then exactly; numbers that are not
finite end it; on several processes all see the same windows, losses, scores and decisions as one would.
"""

import logging
import math
import time
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from basicts.runners.builder import Builder
from basicts.utils import BasicTSMode, RunnerStatus
from easytorch.utils.env import setup_determinacy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ealinformer.errors import Interrupted
from ealinformer.training.batches import Batches, open_windows, split
from ealinformer.training.checkpoints.checkpoint import LAST
from ealinformer.training.compilation import uncompiled
from ealinformer.training.config import RunConfig
from ealinformer.training.distributed.groups import agree_max, gather_objects, wrap
from ealinformer.training.distributed.ranks import Ranks
from ealinformer.training.distributed.sampling import EpochBatches
from ealinformer.training.early_stopping import PatientStopping, is_better
from ealinformer.training.interrupts import Interrupts
from ealinformer.training.objective import first_horizons, whole_loss
from ealinformer.training.precision import matmul_precision
from ealinformer.training.progress import duration, track
from ealinformer.training.random_state import random_state, restore_random_state
from ealinformer.training.runs.folder import HISTORY
from ealinformer.training.runs.history import History
from ealinformer.training.schedules import step_schedule
from ealinformer.training.score import Score, mean_over_ranks, shares_of_readings
from ealinformer.training.scoring import ScoringRunner
from ealinformer.training.state import TrainingState, load_state, place_in_batches, save_best, save_state
from ealinformer.training.watch import FiniteWatch, NotFiniteError, describe_bad_step, warnings
from ealinformer.training.windows import WindowDataset

STEPS_BETWEEN_READS = 50  # of what the watch has noticed on a GPU


class ForecastingRunner(ScoringRunner):
    """Trains one run and leaves its checkpoints, history and TensorBoard events in the run's folder."""

    def __init__(
        self, cfg: Any, run: RunConfig, log: logging.Logger | None = None, interrupts: Interrupts | None = None
    ) -> None:
        super().__init__(cfg, run, log, interrupts)
        self.history = History(self.folder / HISTORY)
        self.state = TrainingState()
        self.score = Score.zeros(run.output_len, self.device)  # of the epoch in progress
        self.watch = FiniteWatch(self.device, at_once=run.recipe.skip_nonfinite > 0)
        self.code: dict[str, str] = {}
        self.data_checksum = ""
        self.minutes_between_checkpoints = math.inf
        self._resumed_from: tuple[Path, dict[str, Any]] | None = None
        self._saved_at = time.monotonic()

    @property
    def step(self) -> int:
        """Steps taken in all."""
        return self.state.step

    @property
    def best_epoch(self) -> int | None:
        """The epoch with the best validation score so far."""
        return self.state.best["epoch"] if self.state.best else None

    @property
    def stopping(self) -> PatientStopping | None:
        """The early stopping of this run, if it has one."""
        return next((c for c in self.callback_handler.callbacks if isinstance(c, PatientStopping)), None)

    def distribute(self, ranks: Ranks) -> None:
        """Make this one of several processes, whose group has to be there already. Each draws its own dropout."""
        self.ranks = ranks
        if ranks.world_size > 1:
            some_unused = not self._trains_all_parameters()
            cuda = self.device.type == "cuda"
            self.model = wrap(self.model, cuda, ranks.local_rank, find_unused_parameters=some_unused)
            seed = (self.run.seed + ranks.rank) % 2**32  # numpy takes no larger one
            setup_determinacy(seed, deterministic=self.run.deterministic)

    def _trains_all_parameters(self) -> bool:
        """Whether a forecast depends on every parameter; where not, torch has to look for the others in every step."""
        steps, sensors = (self.run.input_len, self.run.output_len), self.run.series.num_sensors
        data: dict[str, Any] = {}
        for name, length in zip(("inputs", "targets"), steps, strict=True):
            data[name] = torch.zeros(1, length, sensors, dtype=self.dtype)
            data[f"{name}_timestamps"] = torch.zeros(1, length, 2, dtype=self.dtype)
        self.status = RunnerStatus.TRAINING
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        with uncompiled(self.run.compile != "off"):
            self._forward(self.model, data, 1, 1)["prediction"].sum().backward()
        for name, buffer in self.model.named_buffers():  # running statistics have seen what is no data
            buffer.copy_(buffers[name])
        used = all(p.grad is not None for p in self.model.parameters() if p.requires_grad)
        self.model.zero_grad()
        return used

    def resume_from(self, path: Path, content: dict[str, Any]) -> None:
        """Go on from a checkpoint's content once `train` is called; `path` is for messages."""
        self._resumed_from = path, content

    def train(self) -> None:
        """Train until all epochs are done or it is stopped; the host's, with the precision that the run asks for."""
        with matmul_precision(self.run.dtype):
            super().train()

    # What the host calls while it sets up

    def _init_train(self) -> None:
        super()._init_train()
        dataset: WindowDataset = self.train_data_loader.dataset  # type: ignore[attr-defined]  # the host's loader
        ranks, recipe = self.ranks, self.run.recipe
        self.batches = EpochBatches(
            len(dataset), recipe.batch_size, seed=self.run.seed, rank=ranks.rank, world_size=ranks.world_size
        )
        source, said = open_windows(dataset, self.device, self.run.windows)
        if said is not None:
            self.log.info(said)
        self.train_data_loader = Batches(source, self.batches)
        self.steps_per_epoch = len(self.batches)
        if self._resumed_from is not None:
            place_in_batches(self, *self._resumed_from)

    def _load_model_resume(self, strict: bool = True) -> None:
        # The host takes up whatever lies in the folder without a word, and loses half of it.
        if self._resumed_from is not None:
            load_state(self, *self._resumed_from)
            self.start_epoch = len(self.history.rows)  # from which TensorBoard's events are written anew

    def _init_validation(self) -> None:
        # On every rank, each with its own share of the windows; the host validates on rank 0 and leaves the others.
        self.val_data_loader = self._evaluation_loader(Builder._build_dataset(self.cfg, BasicTSMode.VAL))
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
        if self._resumed_from is not None:
            # Last of all, as everything that is built draws numbers; a process that was not there keeps its own.
            states = self._resumed_from[1]["training"]["rng"]
            if self.ranks.rank < len(states):
                restore_random_state(states[self.ranks.rank], self.device)
        state = self.state
        started, first = time.monotonic(), state.epoch
        while not state.finished:
            self.epoch = state.epoch
            self._train_epoch()
            self._end_epoch()
            if not state.finished:
                left = (time.monotonic() - started) / (state.epoch - first) * (self.num_epochs + 1 - state.epoch)
                self.log.info(f"at most {duration(left)} left")

    def _train_epoch(self) -> None:
        """What is left of the training windows of this epoch."""
        state, epoch = self.state, self.state.epoch
        self._epoch_started = time.monotonic() - state.seconds
        self.batches.set_epoch(epoch)
        self.batches.start_at(state.steps_done)
        self.callback_handler.trigger("on_epoch_start", self, epoch=epoch)
        title = f"epoch {epoch}/{self.num_epochs}"
        if not self._at_max_steps():
            total, done = self.steps_per_epoch, state.steps_done
            with closing(iter(self.train_data_loader)) as batches:
                for data in track(batches, total, title, self.log, lambda: self.score.loss, done=done):
                    state.step += 1
                    state.steps_done += 1
                    self._train_step(data)
                    self._between_steps()
                    if self._at_max_steps():
                        break
        self._read_watch()
        state.seconds = time.monotonic() - self._epoch_started
        self.should_training_stop |= self._at_max_steps()

    def _at_max_steps(self) -> bool:
        return self.run.max_steps is not None and self.state.step >= self.run.max_steps

    def _end_epoch(self) -> None:
        state, epoch = self.state, self.state.epoch
        self._fill_meters("train", self.score.over_ranks(), state.seconds)
        self.plt_meters("train", epoch)
        if epoch % self.val_interval == 0 or self.should_training_stop or epoch == self.num_epochs:
            self.validate(train_epoch=epoch)
        self.callback_handler.trigger("on_epoch_end", self, epoch=epoch, step=state.step)
        self._record_epoch(epoch)
        if self.lr_scheduler is not None:
            with catch_warnings():
                # A run that is taken up in a validation takes this step before one of the optimizer, and rightly so.
                simplefilter("ignore", UserWarning)
                step_schedule(self.lr_scheduler, self.meter_pool.get_value("val/loss"))
        if self._at_max_steps():
            state.stopped_by = f"--max-steps {state.step}"
        elif self.should_training_stop:
            state.stopped_by = f"no better validation score for {self.run.recipe.patience} epochs"
        state.finished = self.should_training_stop or epoch == self.num_epochs
        state.epoch, state.steps_done, state.seconds = epoch + 1, 0, 0.0
        self.score = self._new_score()
        self._save_model(epoch)
        self.reset_meters()

    def _train_step(self, data: dict[str, Any]) -> None:
        state = self.state
        self.status = RunnerStatus.TRAINING
        self.model.train()
        self.callback_handler.trigger("on_step_start", self, epoch=state.epoch, step=state.step)
        parts = split(self._prepare(data), self.run.recipe.micro_batch_size)
        counts = not self.batches.weightless(state.steps_done - 1)
        horizons = self._horizons()
        weights = [self._weight_of(first_horizons(part, horizons)) * counts for part in parts]
        shares, readings = shares_of_readings(weights, self.ranks.world_size)
        returns, losses = [], []
        for part, share in zip(parts, shares, strict=True):
            with self._unsynchronised() if part is not parts[-1] else nullcontext():
                forward_return, loss = self._pass(part, share, horizons)
            returns.append(forward_return)
            losses.append(loss)
        if self.should_backward:
            if not self._is_finite(mean_over_ranks(losses, weights, readings)):
                return
            if self.should_optimizer_step:
                self.callback_handler.trigger("on_optimizer_step", self)
                self._optimizer_step()
        for forward_return, loss, weight in zip(returns, losses, weights, strict=True):
            if not counts:
                forward_return["targets_mask"] = torch.zeros_like(forward_return["targets_mask"])
            self._add(self.score, forward_return, loss, weight)
        self.callback_handler.trigger("on_step_end", self, step=state.step)

    def _horizons(self) -> int | None:
        """How many horizons the loss sees in this step; None: all of them."""
        curriculum = self.run.recipe.curriculum
        if curriculum is None:
            return None
        return curriculum.horizons(self.state.epoch, self.state.step, self.run.output_len)

    def _pass(
        self, part: dict[str, Tensor], share: Tensor, horizons: int | None = None
    ) -> tuple[dict[str, Any], Tensor]:
        """Forward and backward pass of a part, whose mean loss is `share` of the step's; what came of it, detached.

        Of a curriculum the first `horizons` alone.
        """
        state = self.state
        forward_return = first_horizons(self._predict(self.model, part, state.epoch), horizons)
        self.callback_handler.trigger(
            "on_compute_loss", self, epoch=state.epoch, step=state.step, data=part, forward_return=forward_return
        )
        loss = whole_loss(partial(self._metric_forward, self.loss), forward_return)
        if self.should_backward:
            scaled = loss * share
            self.callback_handler.trigger("on_backward", self, loss=scaled)
            scaled.backward()
        forward_return["prediction"] = forward_return["prediction"].detach()
        return forward_return, loss.detach()

    def _unsynchronised(self) -> AbstractContextManager[None]:
        """Within the block gradients are added up on this rank alone."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) else nullcontext()

    def _is_finite(self, loss: Tensor) -> bool:
        """Whether the optimizer may go on; one step too many that may not ends the run."""
        gradients = (p.grad for p in self.model.parameters() if p.grad is not None)
        if self.watch.see(self.state.step, loss, gradients):
            return True
        complaint = self._complaint(self.state.step, float(loss.detach()))
        if self.state.skipped >= self.run.recipe.skip_nonfinite:
            raise NotFiniteError(complaint)
        self.state.skipped += 1
        self.log.info(f"warning: step skipped, {complaint}")
        self.optimizer.zero_grad()
        return False

    def _read_watch(self) -> None:
        bad = self.watch.first_bad()
        if bad is not None:
            raise NotFiniteError(self._complaint(bad))

    def _complaint(self, step: int, loss: float | None = None) -> str:
        state = self.state
        in_epoch = step - (state.step - state.steps_done)
        return describe_bad_step(
            loss,
            f"step {step} (epoch {state.epoch}, step {in_epoch} of {self.steps_per_epoch})",
            self.batches.indices_of(state.epoch, in_epoch - 1),
            self.folder / LAST,
            self.run.recipe.skip_nonfinite,
        )

    # Between steps

    def _between_steps(self) -> None:
        """Leave when a signal came, keep a checkpoint when one is due; all ranks alike."""
        if not self.should_optimizer_step:
            return  # gradients of several steps are being added up, which no checkpoint holds
        if not self.watch.at_once and self.state.step % STEPS_BETWEEN_READS == 0:
            self._read_watch()
        signal, due = self._asked()
        if signal or due:
            self.state.seconds = time.monotonic() - self._epoch_started
            self._save()
        self._leave(signal)

    def _leave_if_asked(self) -> None:
        """The same where no step is under way: in validation, where the training part of the epoch is kept."""
        signal, due = self._asked()
        if (signal or due) and self.status == RunnerStatus.VALIDATING:
            self._save()
        self._leave(signal)

    def _asked(self) -> tuple[float, float]:
        """The signal that came to any rank, 0 without one, and whether a checkpoint is due."""
        minutes = (time.monotonic() - self._saved_at) / 60
        due = self.ranks.is_master and minutes >= self.minutes_between_checkpoints
        signal, due_now = agree_max(self.interrupts.signal, due)
        return signal, due_now

    def _leave(self, signal: float) -> None:
        if signal:
            state = self.state
            place = f"epoch {state.epoch}, step {state.steps_done} of {self.steps_per_epoch}"
            place = "the end of training" if state.finished else place
            again = f"the same command with --output-dir {self.folder} goes on from there"
            raise Interrupted(int(signal), f"{self.folder / LAST} holds {place}; {again}")

    def _save(self) -> None:
        self._read_watch()
        every_rank = gather_objects((random_state(self.device), self.score.state()))
        if every_rank is not None:
            save_state(self, every_rank)
        self._saved_at = time.monotonic()

    def _save_model(self, unit_count: int) -> None:
        self._save()
        if self.ranks.is_master and self.best_epoch == unit_count:
            save_best(self)

    # Validation and test

    @torch.no_grad()
    def validate(self, train_step: int | None = None, train_epoch: int | None = None) -> None:
        """Score the validation part and keep the model when it is the best so far."""
        started = time.monotonic()
        self.callback_handler.trigger("on_validate_start", self)
        self.status = RunnerStatus.VALIDATING
        score = self._score(self.val_data_loader, "validation").over_ranks()
        self._fill_meters("val", score, time.monotonic() - started)
        # Before the best score is updated: early stopping compares with the one before.
        self.callback_handler.trigger("on_validate_end", self, train_step=train_step, train_epoch=train_epoch)
        self.plt_meters("val", train_epoch)
        self._save_best_model(train_epoch or 0, f"val/{self.target_metric}")

    # Records

    def _fill_meters(self, part: str, score: Score, seconds: float) -> None:
        self.update_meter(f"{part}/loss", score.loss)
        self.update_meter(f"{part}/time", seconds)
        for name, value in score.sums.average().items():
            self.update_meter(f"{part}/{name}", math.nan if value is None else value)
        if part == "train" and self.lr_scheduler is not None:
            self.update_meter("train/lr", self.optimizer.param_groups[0]["lr"])

    def _record_epoch(self, epoch: int) -> None:
        meter = self.meter_pool.get_value
        row: dict[str, float] = {
            "epoch": epoch,
            "steps": self.state.steps_done,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": meter("train/loss"),
            "train_MAE": meter("train/MAE"),
            "val_loss": meter("val/loss"),
            **{f"val_{name}": meter(f"val/{name}") for name in self.metrics},
            "train_seconds": meter("train/time"),
            "val_seconds": meter("val/time"),
        }
        if self.ranks.is_master:
            self.history.add(row)
        else:
            self.history.rows.append(row)
        best = "  best so far" if epoch == self.best_epoch else ""
        self.log.info(
            f"epoch {epoch:>3}/{self.num_epochs}  train loss {row['train_loss']:.3f}  val loss {row['val_loss']:.3f}  "
            f"MAE {row['val_MAE']:.3f}  RMSE {row['val_RMSE']:.3f}  MAPE {row['val_MAPE']:.2f} %  lr {row['lr']:.0e}  "
            f"{duration(row['train_seconds'])} + {duration(row['val_seconds'])}{best}"
        )
        for said in warnings(self.history.rows, list(self.metrics)):
            self.log.info(f"warning: {said}")

    def _save_best_model(self, unit_count: int, metric_name: str, greater_best: bool = False) -> None:
        value, best = self.meter_pool.get_value(metric_name), self.best_metrics.get(metric_name)
        if is_better(value, best):
            self.best_metrics[metric_name] = value
            weights = {name: tensor.detach().cpu().clone() for name, tensor in self.bare_model.state_dict().items()}
            scores = dict(self.best_metrics)
            self.state.best = {"epoch": unit_count, "step": self.state.step, "scores": scores, "model": weights}
