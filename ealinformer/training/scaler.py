"""Mends BasicTS's ZScoreScaler, which raises TypeError on numpy data with one mean for all sensors."""

import numpy as np
import torch
from basicts.scaler import ZScoreScaler


class GlobalZScoreScaler(ZScoreScaler):
    """z-scores with one mean and one standard deviation for all sensors, as the published PEMS tables have it.

    Zeros count, also where they stand for missing readings; NaN do not.
    """

    def fit(self, data: np.ndarray) -> None:
        """Take mean and standard deviation of the training part `[T, N]`, unless they are already there."""
        if self.stats:
            return
        # float64, whatever order numpy sums in: pairwise it would not need it, along the first axis it does.
        mean, std = float(np.nanmean(data, dtype=np.float64)), float(np.nanstd(data, dtype=np.float64))
        self.stats["mean"] = torch.tensor(mean)
        self.stats["std"] = torch.tensor(std if std > 0 else 1.0)
