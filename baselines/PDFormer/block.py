"""A block of PDFormer's encoder."""

from torch import Tensor, nn

from baselines.PDFormer.attention import HeterogeneousAttention, Neighbours
from baselines.PDFormer.config import PDFormerConfig
from baselines.PDFormer.delay import Patterns
from baselines.PDFormer.drop_path import DropPath

NORM_EPS = 1e-6


class EncoderBlock(nn.Module):
    """Attention and a GELU feed-forward, each normed before and added to its input, and left out at random."""

    def __init__(self, config: PDFormerConfig, drop_path: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.attention = HeterogeneousAttention(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.hidden_size, config.intermediate_size),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.intermediate_size, config.hidden_size),
            nn.Dropout(config.dropout),
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, patterns: Patterns, neighbours: Neighbours) -> Tensor:
        """`[B, L, N, D]` -> `[B, L, N, D]`."""
        x = x + self.drop_path(self.attention(self.attention_norm(x), patterns, neighbours))
        return x + self.drop_path(self.feed_forward(self.feed_forward_norm(x)))
