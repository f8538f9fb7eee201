"""Stochastic depth (arXiv 1603.09382): in training a branch is left out of some windows."""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Zeros the branch of a whole window at `rate`, and scales that of the others, so that the mean stays."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """`[B, ...]` -> `[B, ...]`."""
        if not self.training or self.rate == 0:
            return branch
        kept = torch.rand(branch.shape[0], device=branch.device) >= self.rate
        return branch * (kept.to(branch.dtype) / (1 - self.rate)).view(-1, *[1] * (branch.dim() - 1))


def linear_rates(last: float, count: int) -> list[float]:
    """Rates of `count` blocks, from 0 at the first to `last` at the last; a single block has 0."""
    return [last * i / max(count - 1, 1) for i in range(count)]
