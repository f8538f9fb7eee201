"""Heads of three kinds side by side (arXiv 2301.07945, section "Heterogeneous Attention Fusion")."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from baselines.PDFormer.config import PDFormerConfig
from baselines.PDFormer.delay import DelayAwareKeys, Patterns
from baselines.PDFormer.geographic_attention import geographic_attention
from baselines.PDFormer.semantic_attention import semantic_attention
from baselines.PDFormer.temporal_attention import temporal_attention


class Neighbours(NamedTuple):
    """Which sensors a sensor sees."""

    near: Tensor  # bool [N, N], True where the row's sensor sees the column's
    similar: Tensor  # numbers of K sensors for each, [N, K]


class HeterogeneousAttention(nn.Module):
    """Geographic, semantic and temporal heads, joined and projected.

    The queries, keys and values of all of them are one linear map: its rows have the initial distribution that a map of
    each kind would have. The keys of the geographic heads are delay-aware.
    """

    def __init__(self, config: PDFormerConfig) -> None:
        super().__init__()
        self.geographic_heads = config.geographic_heads
        self.semantic_heads = config.semantic_heads
        self.temporal_heads = config.temporal_heads
        head_size = config.hidden_size // (config.geographic_heads + config.semantic_heads + config.temporal_heads)
        geographic = config.geographic_heads * head_size
        semantic = config.semantic_heads * head_size
        self.split = (*[geographic] * 3, semantic, 2 * semantic, 3 * config.temporal_heads * head_size)
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.delay = DelayAwareKeys(config.hidden_size, geographic, scale=head_size**-0.5)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, patterns: Patterns, neighbours: Neighbours) -> Tensor:
        """`[B, L, N, D]` -> `[B, L, N, D]`."""
        q, k, v, semantic_q, semantic_kv, temporal = self.qkv_proj(x).split(self.split, dim=-1)
        k = k + self.delay(patterns)
        near = geographic_attention(q, k, v, neighbours.near, self.geographic_heads)
        similar = semantic_attention(semantic_q, semantic_kv, neighbours.similar, self.semantic_heads)
        own = temporal_attention(temporal, self.temporal_heads)
        return self.dropout(self.out_proj(torch.cat([near, similar, own], dim=-1)))
