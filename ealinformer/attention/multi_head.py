"""Multi-head self-attention around any attention."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ealinformer.attention.covariance import covariance_attention
from ealinformer.attention.entropy_equal_options import EntropyEqualAttention
from ealinformer.attention.precision import product_dtype, without_autocast
from ealinformer.attention.projections import Projections
from ealinformer.attention.registry import Attention
from ealinformer.attention.short import short_attention


class MultiHeadAttention(nn.Module):
    """Multi-head self-attention over dimension -2 of `[..., N, D]`, for any attention.

    The projections carry the names of `basicts.modules.transformer.MultiHeadAttention`. An attention that is a module
    becomes a part of this one, so its parameters are trained and saved; a function adds nothing to the state.

    Args:
        hidden_size: width D.
        n_heads: number of heads; divides D.
        attention: on q, k, v `[..., heads, N, D / heads]`; entropy-equal attention when None.
        collapse: where theta is one for all queries and the number of rows makes it pay, take `covariance_attention`
            or `short_attention`: the same numbers for less, with first derivatives and without vmap.

    An `observer` is told q, k, v and what the attention made of them, all `[..., heads, N, D / heads]`; with one, every
    form of attention goes through heads.

    Raises:
        ValueError: `n_heads` does not divide `hidden_size`.
    """

    def __init__(
        self, hidden_size: int, n_heads: int, attention: Attention | None = None, *, collapse: bool = True
    ) -> None:
        super().__init__()
        if n_heads <= 0 or hidden_size % n_heads:
            raise ValueError(f"n_heads has to divide hidden_size {hidden_size}, got {n_heads}")
        self.n_heads = n_heads
        self.collapse = collapse
        self.observer: Callable[[Tensor, Tensor, Tensor, Tensor], None] | None = None
        self.attention = attention if attention is not None else EntropyEqualAttention()
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def forward(
        self,
        x: Tensor,
        key_padding_mask: Tensor | None = None,
        causal: bool = False,
        affine: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            x: `[..., N, D]`.
            key_padding_mask: bool `[..., N]`, True at padding; the same for all heads, and broadcasts to x's leading
                dimensions. Padding has no influence on other positions, but its own rows come out of the projections.
            causal: position i sees those up to i only.
            affine: weight and bias `[D]`: attend to x * weight + bias, which is never computed, as the projections
                take it in.

        Returns:
            `[..., N, D]`.

        Raises:
            ValueError: the mask does not fit x, or the attention refuses it or causal.
        """
        if key_padding_mask is not None:
            key_padding_mask = _one_for_all_heads(key_padding_mask, x)
        (wq, bq), (wk, bk), (wv, bv) = (folded(p, affine) for p in (self.q_proj, self.k_proj, self.v_proj))
        form = None if key_padding_mask is not None or causal else self._form(x, x.shape[-2])
        if form is not None:
            weights = (wq, bq, wk, bk, wv, bv, self.out_proj.weight, self.out_proj.bias)
            dtype = product_dtype(x)
            with without_autocast(x):
                return form(x.to(dtype), Projections(*(w.to(dtype) for w in weights)))
        q, k, v = (self._split_heads(F.linear(x, *both)) for both in ((wq, bq), (wk, bk), (wv, bv)))
        mixed = self.attention(q, k, v, key_padding_mask=key_padding_mask, causal=causal)
        if self.observer is not None:
            self.observer(q, k, v, mixed)
        return self.out_proj(mixed.transpose(-3, -2).flatten(-2))

    def takes_in_projections(self, x: Tensor, num_rows: int) -> bool:
        """Whether groups of `num_rows` rows like those of `x` are attended to portion by portion, in any strides."""
        return self._form(x, num_rows) is not None

    def _form(self, x: Tensor, num_rows: int) -> Callable[[Tensor, Projections], Tensor] | None:
        """What computes attention together with its projections, or None where going through heads pays."""
        if self.observer is not None or not self.collapse or not isinstance(self.attention, EntropyEqualAttention):
            return None
        width = x.shape[-1]
        head_size = width // self.n_heads
        sharpness = self.attention.sharpness(head_size)
        # Sums over keys and their products would leave the range of float16.
        if sharpness is None or self.attention.branch != "auto" or product_dtype(x) == torch.float16:
            return None
        if num_rows < head_size:
            return partial(short_attention, n_heads=self.n_heads, sharpness=sharpness)
        if num_rows >= width:
            return partial(covariance_attention, n_heads=self.n_heads, sharpness=sharpness)
        return None

    def _split_heads(self, x: Tensor) -> Tensor:
        """`[..., N, D]` -> `[..., heads, N, D / heads]`."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(-3, -2)


def folded(linear: nn.Linear, affine: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear map that takes x where `linear` takes x * affine[0] + affine[1]."""
    if affine is None:
        return linear.weight, linear.bias
    weight, bias = affine
    return linear.weight * weight, torch.addmv(linear.bias, linear.weight, bias)


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
