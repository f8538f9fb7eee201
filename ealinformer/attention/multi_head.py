"""Multi-head self-attention around any attention."""

import torch
from torch import Tensor, nn

from ealinformer.attention.entropy_equal import entropy_equal_attention
from ealinformer.attention.registry import Attention


class MultiHeadAttention(nn.Module):
    """Multi-head self-attention over dimension -2 of `[..., N, D]`, for any attention.

    The projections carry the names of `basicts.modules.transformer.MultiHeadAttention`. An attention that is a module
    becomes a part of this one, so its parameters are trained and saved; a function adds nothing to the state.

    Args:
        hidden_size: width D.
        n_heads: number of heads; divides D.
        attention: on q, k, v `[..., heads, N, D / heads]`; entropy-equal attention when None.

    Raises:
        ValueError: `n_heads` does not divide `hidden_size`.
    """

    def __init__(self, hidden_size: int, n_heads: int, attention: Attention | None = None) -> None:
        super().__init__()
        if n_heads <= 0 or hidden_size % n_heads:
            raise ValueError(f"n_heads has to divide hidden_size {hidden_size}, got {n_heads}")
        self.n_heads = n_heads
        self.attention = attention if attention is not None else entropy_equal_attention
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, key_padding_mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Attend.

        Args:
            x: `[..., N, D]`.
            key_padding_mask: bool `[..., N]`, True at padding; the same for all heads, and broadcasts to x's leading
                dimensions. Padding has no influence on other positions, but its own rows come out of the projections.
            causal: position i sees those up to i only.

        Returns:
            `[..., N, D]`.

        Raises:
            ValueError: the mask does not fit x, or the attention refuses it or causal.
        """
        if key_padding_mask is not None:
            key_padding_mask = _one_for_all_heads(key_padding_mask, x)
        q, k, v = (self._split_heads(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        mixed = self.attention(q, k, v, key_padding_mask=key_padding_mask, causal=causal)
        return self.out_proj(mixed.transpose(-3, -2).flatten(-2))

    def _split_heads(self, x: Tensor) -> Tensor:
        """`[..., N, D]` -> `[..., heads, N, D / heads]`."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(-3, -2)


def _one_for_all_heads(mask: Tensor, x: Tensor) -> Tensor:
    """`[..., N]` -> `[..., 1, N]`, once it is known to fit x: the heads would make the error hard to read."""
    try:
        fits = mask.ndim > 0 and torch.broadcast_shapes(mask.shape, x.shape[:-1]) == x.shape[:-1]
    except RuntimeError:
        fits = False
    if not fits or mask.shape[-1] != x.shape[-2]:
        raise ValueError(
            f"key_padding_mask that broadcasts to {tuple(x.shape[:-1])} is expected, got {tuple(mask.shape)}"
        )
    return mask.unsqueeze(-2)
