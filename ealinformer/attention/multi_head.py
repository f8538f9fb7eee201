"""Attentions by name, and multi-head self-attention around any of them."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from ealinformer.attention.entropy import ENTROPIES
from ealinformer.attention.entropy_equal import entropy_equal_attention
from ealinformer.attention.softmax import fused_softmax_attention, softmax_attention

# q [..., Nq, C], k [..., N, C], v [..., N, Cv] -> [..., Nq, Cv]
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

ATTENTIONS = ("entropy_equal", "softmax", "sdpa")


def get_attention(name: str, *, entropy: str = "taylor", eps: float = 1e-8) -> Attention:
    """The attention of a name: `"entropy_equal"`, `"softmax"` (written out) or `"sdpa"` (fused softmax).

    Args:
        name: one of `ATTENTIONS`.
        entropy: estimator for `"entropy_equal"`; the others ignore it.
        eps: added to theta by `"entropy_equal"`; the others ignore it.

    Raises:
        ValueError: the name or the estimator is not known, or eps is not a number of at least 0.
    """
    if name not in ATTENTIONS:
        raise ValueError(f"attention is one of {', '.join(ATTENTIONS)}, got {name!r}")
    if entropy not in ENTROPIES:
        raise ValueError(f"entropy is one of {', '.join(ENTROPIES)}, got {entropy!r}")
    if not isinstance(eps, (int, float)) or not eps >= 0:
        raise ValueError(f"eps has to be a number of at least 0, got {eps!r}")
    if name == "entropy_equal":
        return partial(entropy_equal_attention, entropy=entropy, eps=eps)
    return softmax_attention if name == "softmax" else fused_softmax_attention


class MultiHeadAttention(nn.Module):
    """Multi-head self-attention over dimension -2 of `[..., N, D]`, for any attention function.

    The projections carry the names of `basicts.modules.transformer.MultiHeadAttention`.

    Args:
        hidden_size: width D.
        n_heads: number of heads; divides D.
        attention: function on q, k, v `[..., heads, N, D / heads]`; entropy-equal attention when None.

    Raises:
        ValueError: `n_heads` does not divide `hidden_size`.
    """

    def __init__(self, hidden_size: int, n_heads: int, attention: Attention | None = None) -> None:
        super().__init__()
        if n_heads <= 0 or hidden_size % n_heads:
            raise ValueError(f"n_heads has to divide hidden_size {hidden_size}, got {n_heads}")
        self.n_heads = n_heads
        self.attention = attention if attention is not None else get_attention("entropy_equal")
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., N, D]` -> `[..., N, D]`."""
        q, k, v = (self._split_heads(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        mixed = self.attention(q, k, v)
        return self.out_proj(mixed.transpose(-3, -2).flatten(-2))

    def _split_heads(self, x: Tensor) -> Tensor:
        """`[..., N, D]` -> `[..., heads, N, D / heads]`."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(-3, -2)
