"""Delay-aware keys (arXiv 2301.07945, section "Delay-aware Feature Transformation").

Traffic reaches a neighbour with a delay. So the key of a sensor is told what the sensor's last steps looked like: it
takes up the traffic patterns that these resemble.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Patterns(NamedTuple):
    """What the blocks need of the patterns; windows of readings and patterns pass the same linear map."""

    recent: Tensor  # the last S readings of each sensor at each step, [B, L, N, S]
    known: Tensor  # traffic patterns, embedded, [P, D]
    weight: Tensor  # of the embedding, [D, S]
    bias: Tensor  # [D]


def recent_readings(inputs: Tensor, length: int) -> Tensor:
    """`[B, L, N]` -> `[B, L, N, length]`: the readings up to each step, oldest first, zeros before the window."""
    return F.pad(inputs, (0, 0, length - 1, 0)).unfold(1, length, 1).contiguous()


class DelayAwareKeys(nn.Module):
    """r = sum_i softmax_i(u^T m_i) c_i: attention of a sensor's last steps, u, over the traffic patterns.

    Without its own embedding of every window: u is linear in the S readings, and so are its scores.
    """

    def __init__(self, hidden_size: int, width: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.q_proj = nn.Linear(hidden_size, width)
        self.k_proj = nn.Linear(hidden_size, width)
        self.v_proj = nn.Linear(hidden_size, width)

    def forward(self, patterns: Patterns) -> Tensor:
        """What is added to the keys, `[B, L, N, width]`."""
        keys = self.k_proj(patterns.known) * self.scale  # [P, width]
        weight = keys @ (self.q_proj.weight @ patterns.weight)  # [P, S]
        bias = keys @ self.q_proj(patterns.bias)  # [P]
        resemblance = torch.softmax(F.linear(patterns.recent, weight, bias), dim=-1)  # [B, L, N, P]
        return resemblance @ self.v_proj(patterns.known)
