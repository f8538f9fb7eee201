"""A runner that scores: BasicTS's, with its evaluation mended.

Metrics are sums and counts over a whole split, on the original scale, each rank of several with its share of the
windows; no prediction is written unless asked for.
"""

import logging
import math
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from basicts.runners import BasicTSRunner
from basicts.runners.builder import Builder
from basicts.utils import BasicTSMode, RunnerStatus
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, Dataset

from ealinformer.data.meta import Split
from ealinformer.errors import Interrupted
from ealinformer.training.batches import Batches, Source, open_windows
from ealinformer.training.compilation import compile_in_place, uncompiled
from ealinformer.training.config import RunConfig
from ealinformer.training.distributed.groups import agree_max, gather_objects
from ealinformer.training.distributed.ranks import Ranks
from ealinformer.training.distributed.sampling import share_of_rank
from ealinformer.training.interrupts import Interrupts
from ealinformer.training.losses import is_masked
from ealinformer.training.precision import autocast, matmul_precision, stored_dtype
from ealinformer.training.progress import track
from ealinformer.training.score import Score


class ShareLoader(Batches):
    """A rank's share of the windows of a split; `rounds` is the number of batches of the largest share."""

    def __init__(self, source: Source, num_windows: int, batch_size: int, ranks: Ranks) -> None:
        share = share_of_rank(num_windows, ranks.rank, ranks.world_size)
        self.batch_size = batch_size
        self.rounds = math.ceil(len(share_of_rank(num_windows, 0, ranks.world_size)) / batch_size)
        super().__init__(source, BatchSampler(share, batch_size, drop_last=False))


class ScoringRunner(BasicTSRunner):
    """Builds the model of a run and scores it; without a training it writes nothing."""

    model: nn.Module
    train_data_loader: Batches

    def __init__(
        self, cfg: Any, run: RunConfig, log: logging.Logger | None = None, interrupts: Interrupts | None = None
    ) -> None:
        # The host looks whether it is there and then makes it, which fails where several ranks do so at once.
        Path(cfg.ckpt_save_dir).mkdir(parents=True, exist_ok=True)
        self.dtype = stored_dtype(run.dtype)
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            super().__init__(cfg)
        finally:
            torch.set_default_dtype(before)
        self.run = run
        # The host keeps its own logger, which is quiet; what a user reads goes through this one.
        self.log = log or logging.getLogger(__name__)
        self.interrupts = interrupts or Interrupts()
        self.folder = Path(cfg.ckpt_save_dir)
        self.device = next(self.model.parameters()).device
        self.ranks = Ranks.alone()
        compile_in_place(self.model, run.compile)

    @property
    def bare_model(self) -> nn.Module:
        """The model without the wrapper of a distributed run."""
        return self.model.module if isinstance(self.model, DistributedDataParallel) else self.model

    @property
    def step(self) -> int:
        """Steps taken in all; some of the host's models ask for it."""
        return 0

    def _get_ckpt_save_dir(self, cfg: Any) -> str:
        return str(cfg.ckpt_save_dir)  # the run's own folder, not one named by the md5 of the config

    @torch.no_grad()
    def evaluate(self, split: Split, *, keep_predictions: bool = False) -> Score:
        """Score a whole split with the weights that the model has now, on all ranks together.

        With `keep_predictions` the forecasts `[B, H, N]` of all windows, in order, are in `Score.predictions`, on
        the first rank alone.
        """
        self.status = RunnerStatus.EVALUATING
        loader = self._evaluation_loader(Builder._build_dataset(self.cfg, BasicTSMode(split)))
        with matmul_precision(self.run.dtype):
            score = self._score(loader, split, keep_predictions=keep_predictions)
        total = score.over_ranks()
        if keep_predictions:
            of_ranks = gather_objects(score.predictions) or []
            total.predictions = [batch for predictions in of_ranks for batch in predictions]
        return total

    def _score(self, loader: ShareLoader, title: str, *, keep_predictions: bool = False) -> Score:
        self.model.eval()
        score = self._new_score()
        with closing(iter(loader)) as batches:
            for data in track(batches, len(loader), title, self.log):
                forward_return = self._predict(self.bare_model, self._prepare(data))
                self.callback_handler.trigger("on_compute_loss", self, forward_return=forward_return)
                loss = self._metric_forward(self.loss, forward_return)
                self._add(score, forward_return, loss, self._weight_of(forward_return))
                if keep_predictions:
                    score.predictions.append(forward_return["prediction"].cpu())
                self._leave_if_asked()
        for _ in range(len(loader), loader.rounds):
            self._leave_if_asked()  # a rank with a batch less takes part in what all agree on
        return score

    def _evaluation_loader(self, dataset: Dataset) -> ShareLoader:
        source, _ = open_windows(dataset, self.device, self.run.windows)
        return ShareLoader(source, len(dataset), self.run.recipe.eval_batch_size, self.ranks)  # type: ignore[arg-type]

    def _new_score(self) -> Score:
        return Score.zeros(self.run.output_len, self.device)

    def _weight_of(self, data: dict[str, Any]) -> Tensor:
        """Number of readings `[]` (float64) that the loss of a batch is the mean of."""
        mask = data["targets_mask"]
        if is_masked(self.run.recipe.loss):
            return mask.sum().double()
        return torch.full((), mask.numel(), dtype=torch.float64, device=mask.device)

    def _add(self, score: Score, forward_return: dict[str, Any], loss: Tensor, weight: Tensor) -> None:
        score.add(forward_return["prediction"], forward_return["targets"], forward_return["targets_mask"], loss, weight)

    def _prepare(self, data: dict[str, Any]) -> dict[str, Any]:
        """Batch of a loader -> the same with z-scored inputs and a mask, in the dtype of the model."""
        data = self.taskflow.preprocess(self, data)
        if self.dtype != torch.float32:
            data = {k: v.to(self.dtype) if v.is_floating_point() else v for k, v in data.items()}
        return data

    def _predict(self, model: nn.Module, data: dict[str, Any], epoch: int | None = None) -> dict[str, Any]:
        """Prepared batch -> the host's `forward_return`, with forecast and targets on the original scale."""
        # Compiling again for the last, smaller batch of an epoch would cost more than it could bring.
        whole = len(data["inputs"]) == self._whole_batch()
        with autocast(self.run.dtype, self.device), uncompiled(self.run.compile != "off" and not whole):
            forward_return = self._forward(model, data, self._step_for_model(), epoch)
        for name in ("prediction", "auxiliary_prediction", "auxiliary_targets"):
            if name in forward_return:
                forward_return[name] = self.scaler.inverse_transform(forward_return[name].to(self.dtype))
        return forward_return

    def _step_for_model(self) -> int | Tensor:
        """The number of steps taken, as a tensor `[]` where the model is compiled: of each int there would be a graph.

        On the device, as CUDA graphs take nothing else.
        """
        compiled = self.run.compile != "off" and "step" in self.forward_params
        return torch.full((), self.step, device=self.device) if compiled else self.step

    def _forward(
        self, model: nn.Module, data: dict[str, Any], step: int | Tensor, epoch: int | None = None
    ) -> dict[str, Any]:
        """The host's; a model that is taught by the targets sees them as it sees the inputs, and in training alone."""
        if "targets" not in self.forward_params:
            return super()._forward(model, data, step, epoch)
        taught = {**data, "targets": self.scaler.transform(data["targets"]).nan_to_num_()}
        return {**super()._forward(model, taught, step, epoch), "targets": data["targets"]}

    def _whole_batch(self) -> int:
        recipe = self.run.recipe
        if self.status != RunnerStatus.TRAINING:
            return recipe.eval_batch_size
        return min(recipe.batch_size, recipe.micro_batch_size or recipe.batch_size)

    def _leave_if_asked(self) -> None:
        """Raise Interrupted when a signal came to any rank."""
        (signal,) = agree_max(self.interrupts.signal)
        if signal:
            raise Interrupted(int(signal))
