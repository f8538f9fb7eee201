"""Along time: causal attention for the slow branch, a causal convolution for the fast one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.STWave.config import STWaveConfig
from ealinformer.attention import fused_softmax_attention


class FeedForward(nn.Module):
    """Linear, ReLU, linear, added to its input and normed; the norm has no parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D]` -> `[..., D]`."""
        return self.norm(x + self.out(F.relu(self.hidden(x))))


class CausalAttention(nn.Module):
    """Softmax attention along steps, each sensor by itself, and a feed-forward; a step sees none after it.

    arXiv 2112.02740, section IV-B, within the slow branch, and section IV-C, between the branches.
    """

    def __init__(self, config: STWaveConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.n_heads = config.n_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.feed_forward = FeedForward(width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Queries of `x`, keys and values of `context`, both `[B, T, N, D]` -> `[B, T, N, D]`."""
        q, k, v = (self._heads(p) for p in (self.q_proj(x), self.k_proj(context), self.v_proj(context)))
        attended = fused_softmax_attention(q, k, v, causal=True)
        return self.feed_forward(self.norm(x + self.out_proj(attended.transpose(1, 2).reshape(x.shape))))

    def _heads(self, x: Tensor) -> Tensor:
        """`[B, T, N, D]` -> `[B, N * heads, T, C]`, without a copy."""
        return x.unflatten(-1, (self.n_heads, -1)).flatten(2, 3).transpose(1, 2)


class CausalConvolution(nn.Module):
    """ReLU of a linear map of a step and of the `kernel_size - 1` steps before it, `dilation` apart; then dropout.

    arXiv 2112.02740, section IV-B. Before the first step there are zeros.
    """

    def __init__(self, config: STWaveConfig, dilation: int) -> None:
        super().__init__()
        self.kernel_size, self.dilation = config.kernel_size, dilation
        self.taps = nn.Linear(config.kernel_size * config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, N, D]` -> `[B, T, N, D]`."""
        steps = x.shape[1]
        before = (self.kernel_size - 1) * self.dilation
        padded = F.pad(x, (0, 0, 0, 0, before, 0))
        seen = [padded[:, k * self.dilation : k * self.dilation + steps] for k in range(self.kernel_size)]
        return self.dropout(F.relu(self.taps(torch.cat(seen, dim=-1))))
