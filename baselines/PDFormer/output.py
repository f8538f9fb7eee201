"""PDFormer's output (arXiv 2301.07945, section "Output Layer"): all blocks to all horizons at once."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.PDFormer.config import PDFormerConfig


class OutputLayer(nn.Module):
    """Every block's output by a skip connection of its own, summed; then from L steps to H, and to one reading."""

    def __init__(self, config: PDFormerConfig) -> None:
        super().__init__()
        self.skips = nn.ModuleList(nn.Linear(config.hidden_size, config.skip_size) for _ in range(config.num_layers))
        self.horizon = nn.Linear(config.input_len, config.output_len)
        self.reading = nn.Linear(config.skip_size, 1)

    def forward(self, blocks: list[Tensor]) -> Tensor:
        """Outputs of the blocks, each `[B, L, N, D]` -> `[B, H, N]`."""
        # The sum of the skip connections is one product of all blocks side by side.
        skips = cast(Sequence[nn.Linear], self.skips)
        weight = torch.cat([skip.weight for skip in skips], dim=1)
        bias = torch.stack([skip.bias for skip in skips]).sum(dim=0)
        skipped = F.linear(torch.cat(blocks, dim=-1), weight, bias).relu()  # [B, L, N, skip]
        ahead = self.horizon.weight @ skipped.flatten(2) + self.horizon.bias[:, None]  # [B, H, N skip]
        return self.reading(ahead.relu().view(*ahead.shape[:2], *skipped.shape[2:])).squeeze(-1)
