"""Mends BasicTS's ZScoreScaler, which raises TypeError on numpy data with one mean for all sensors."""

import numpy as np
import torch
from basicts.scaler import ZScoreScaler

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
