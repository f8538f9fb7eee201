"""Mends BasicTS's ZScoreScaler, which raises TypeError on numpy data with one mean for all sensors.

It also copies mean and deviation to the device in every step, which waits for it; here they stay numbers.
"""

import numpy as np
import torch
from basicts.scaler import ZScoreScaler
from torch import Tensor

from ealinformer.data.statistics import moments


class GlobalZScoreScaler(ZScoreScaler):
    """z-scores with one mean and one standard deviation for all sensors, as the published PEMS tables have it.

    Zeros count, also where they stand for missing readings; NaN do not.
    """

    def fit(self, data: np.ndarray) -> None:
        """Take mean and standard deviation of the training part `[T, N]`, unless they are already there.

        In float64, block by block: a memory-mapped `data` may be larger than memory.
        """
        if self.stats:
            return
        mean, std = moments(data)
        self.stats["mean"] = torch.tensor(mean)
        self.stats["std"] = torch.tensor(std if std > 0 else 1.0)

    def transform(self, input_data: Tensor, mask: Tensor | None = None) -> Tensor:
        """z-scores of readings; those that `mask` leaves out stay as they are."""
        # 0-dimensional tensors of the CPU are arguments of a kernel, not copies to the device.
        z_scores = (input_data - self.stats["mean"]).div_(self.stats["std"])
        return z_scores if mask is None else torch.where(mask, z_scores, input_data)

    def inverse_transform(self, input_data: Tensor, mask: Tensor | None = None) -> Tensor:
        """The readings of z-scores; those that `mask` leaves out stay as they are."""
        readings = input_data * self.stats["std"] + self.stats["mean"]
        return readings if mask is None else torch.where(mask, readings, input_data)
