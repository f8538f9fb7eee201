"""From the extrapolated states of all blocks to the forecast."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.D2STGNN.config import D2STGNNConfig


class ForecastHead(nn.Module):
    """Sums the blocks' forecasts and maps each state to `gap` horizons (arXiv 2206.09112, section on the output)."""

    def __init__(self, config: D2STGNNConfig) -> None:
        super().__init__()
        self.output_len = config.output_len
        width = config.forecast_hidden_size
        self.branches = nn.ModuleList(nn.Linear(config.hidden_size, width) for _ in range(2 * config.num_layers))
        self.hidden = nn.Linear(width, config.output_hidden_size)
        self.out = nn.Linear(config.output_hidden_size, config.gap)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """States `[B, N, H / gap, D]`, one tensor for each branch -> forecast `[B, H, N]`."""
        # A sum of linear maps is one linear map of all states side by side.
        weight = torch.cat([branch.get_parameter("weight") for branch in self.branches], dim=1)
        bias = torch.stack([branch.get_parameter("bias") for branch in self.branches]).sum(dim=0)
        hidden = torch.relu(F.linear(torch.cat(list(states), dim=-1), weight, bias))
        forecast = self.out(torch.relu(self.hidden(hidden)))  # [B, N, H / gap, gap]
        return forecast.flatten(2)[..., : self.output_len].transpose(1, 2)
