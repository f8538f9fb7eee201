"""Mends the scale of the loss: BasicTS 1.1.0 takes it on z-scored values, the published recipes on vehicles or mph."""

from typing import Any

from basicts.runners.basicts_runner import BasicTSRunner
from basicts.runners.taskflow import BasicTSForecastingTaskFlow

from ealinformer.training.metrics import present_mask


class OriginalScaleTaskFlow(BasicTSForecastingTaskFlow):
    """z-scores the inputs and leaves the targets as they are; the runner brings the forecast back before the loss.

    Missing inputs are z-scored like any reading, as in the authors' code and BasicTS 0.5.8, except NaN, which become
    the mean. (BasicTS 1.1.0 makes every missing input the mean.)
    """

    def preprocess(self, runner: BasicTSRunner, data: dict[str, Any]) -> dict[str, Any]:
        """Adds `targets_mask` `[B, H, N]` (True where a reading is present) and z-scores `inputs` `[B, L, N]`."""
        data["targets_mask"] = present_mask(data["targets"], runner.cfg.null_val)
        data["inputs"] = runner.scaler.transform(data["inputs"]).nan_to_num_()
        return data

    def postprocess(self, runner: BasicTSRunner, forward_return: dict[str, Any]) -> dict[str, Any]:
        """Nothing to do: forecast and targets are on the original scale already."""
        return forward_return
