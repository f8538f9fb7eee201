"""Softmax attention along time, whose keys and values are kept for the steps that are extrapolated later."""

import math

import torch
from torch import Tensor, nn


class TemporalAttention(nn.Module):
    """Multi-head attention with dropout on its weights and on its result; projected and attended apart.

    Args:
        hidden_size: width D.
        n_heads: divides D.
        dropout: rate of both.
    """

    def __init__(self, hidden_size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Steps `[S, L, D]` -> queries, keys and values, `[S, heads, L, C]` each."""
        heads = self.query_key_value(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind()
        return query / math.sqrt(query.shape[-1]), key, value

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Projected queries `[S, heads, Lq, C]`, keys and values `[S, heads, L, C]` -> `[S, Lq, D]`."""
        weights = self.dropout(torch.softmax(query @ key.transpose(-2, -1), dim=-1))
        return self.dropout(self.out((weights @ value).transpose(1, 2).flatten(2)))


def sinusoids(length: int, hidden_size: int) -> Tensor:
    """Positional encoding `[length, hidden_size]` (arXiv 1706.03762, section 3.5), in the default dtype."""
    dtype = torch.get_default_dtype()
    channel = torch.arange(hidden_size)
    rate = torch.exp((channel - channel % 2).to(dtype) * (-math.log(10000.0) / hidden_size))
    angle = torch.arange(length).to(dtype)[:, None] * rate
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())
