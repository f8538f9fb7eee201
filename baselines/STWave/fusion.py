"""From the states of both branches to the forecast (arXiv 2112.02740, section IV-C)."""

import torch.nn.functional as F
from torch import Tensor, nn

from baselines.STWave.config import STWaveConfig
from baselines.STWave.temporal import CausalAttention


class HorizonMap(nn.Module):
    """A linear map of the L input steps to the H steps ahead, the same for every sensor and channel."""

    def __init__(self, config: STWaveConfig) -> None:
        super().__init__()
        self.steps = nn.Linear(config.input_len, config.output_len)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, N, D]` -> `[B, H, N, D]`."""
        ahead = self.steps.weight @ x.flatten(2) + self.steps.bias.unsqueeze(-1)
        return ahead.unflatten(2, x.shape[2:])


class Readout(nn.Module):
    """Two linear maps with a ReLU between, to a reading."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D]` -> `[...]`."""
        return self.out(F.relu(self.hidden(x))).squeeze(-1)


class AdaptiveFusion(nn.Module):
    """The slow branch, H steps ahead, asks the fast one what it adds; each step those up to it alone."""

    def __init__(self, config: STWaveConfig) -> None:
        super().__init__()
        self.ahead_low, self.ahead_high = HorizonMap(config), HorizonMap(config)
        self.attention = CausalAttention(config)
        self.readout, self.readout_low = Readout(config.hidden_size), Readout(config.hidden_size)

    def forward(self, low: Tensor, high: Tensor, future: Tensor, *, with_low: bool) -> tuple[Tensor, Tensor | None]:
        """Both branches `[B, L, N, D]` and the future calendar `[B, H, 1, D]` -> forecasts `[B, H, N]`.

        The first is of the readings; the second of their slow part, from the slow branch alone, and None unless asked.
        """
        low, high = self.ahead_low(low), self.ahead_high(high)
        prediction = self.readout(self.attention(low + future, high + future))
        return prediction, self.readout_low(low) if with_low else None
