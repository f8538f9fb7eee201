"""Softmax attention (arXiv 1706.03762, equation 1), the quadratic baseline, written out and through fused kernels."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ealinformer.attention.checks import check_inputs, check_scale
from ealinformer.attention.padding import zero_padding


def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    key_padding_mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale q k^T) v with its Nq x N weights in memory.

    Args:
        q: queries `[..., Nq, C]`.
        k: keys `[..., N, C]`.
        v: values `[..., N, Cv]`.
        key_padding_mask: bool `[..., N]`, True where a key is padding. A query that sees no key gives 0.
        causal: query i sees the keys up to i only.
        scale: of the scores; 1 / sqrt(C) when None.

    Returns:
        `[..., Nq, Cv]`, in the dtype of the inputs.

    Raises:
        ValueError: shapes, dtypes, the mask or the scale do not fit.
    """
    check_inputs(q, k, v, key_padding_mask, causal)
    scale = check_scale(scale, q.shape[-1])
    k, v = zero_padding(k, key_padding_mask), zero_padding(v, key_padding_mask)
    scores = (q * scale) @ k.transpose(-2, -1)
    hidden = _hidden(key_padding_mask, causal, k)
    if hidden is None:
        return torch.softmax(scores, dim=-1) @ v
    # A row of -inf alone would be NaN, and so would its gradient: such a row keeps its scores and loses its weights.
    blind = hidden.all(dim=-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(hidden & ~blind, -math.inf), dim=-1)
    return weights.masked_fill(blind, 0) @ v


def fused_softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    key_padding_mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """The same numbers as `softmax_attention`, to rounding, through `scaled_dot_product_attention`.

    Its fused kernels keep no Nq x N weights. They take four dimensions and head sizes that fit the memory alignment of
    the device, and torch falls back to explicit weights without a word otherwise: so leading dimensions are made two,
    and channels are filled up with zeros to a multiple of 8. Padding and causal together need Nq x N booleans.

    Args:
        q: queries `[..., Nq, C]`.
        k: keys `[..., N, C]`.
        v: values `[..., N, Cv]`.
        key_padding_mask: bool `[..., N]`, True where a key is padding. A query that sees no key gives 0.
        causal: query i sees the keys up to i only.
        scale: of the scores; 1 / sqrt(C) when None.

    Returns:
        `[..., Nq, Cv]`, in the dtype of the inputs.

    Raises:
        ValueError: shapes, dtypes, the mask or the scale do not fit.
    """
    check_inputs(q, k, v, key_padding_mask, causal)
    scale = check_scale(scale, q.shape[-1])
    if scale <= 0:
        q, scale = q * scale, 1.0  # torch's causal kernel for the CPU gives NaN else
    k, v = zero_padding(k, key_padding_mask), zero_padding(v, key_padding_mask)
    leading = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    queries, keys, values = (_four_dimensions(_fill_channels(x), leading) for x in (q, k, v))
    if key_padding_mask is None:
        out = F.scaled_dot_product_attention(queries, keys, values, is_causal=causal, scale=scale)
    else:
        hidden = _hidden(key_padding_mask, causal, k)
        assert hidden is not None
        # Heads mostly share a mask, and a dimension of 1 broadcasts in the kernel without a copy.
        heads = hidden.shape[-3:-2] or (1,)
        hidden = _four_dimensions(hidden, (*leading[:-1], *heads) if leading else leading)
        # What the kernels make of a row without keys differs: let it see all of them, and drop its result.
        blind = hidden.all(dim=-1, keepdim=True)
        seen = ~hidden | blind
        out = F.scaled_dot_product_attention(queries, keys, values, seen, scale=scale).masked_fill(blind, 0)
    return out[..., : v.shape[-1]].reshape(*leading, q.shape[-2], v.shape[-1])


def _hidden(key_padding_mask: Tensor | None, causal: bool, k: Tensor) -> Tensor | None:
    """True where a query does not see a key, `[..., 1 or Nq, N]`; None where each sees all."""
    hidden = None if key_padding_mask is None else key_padding_mask.unsqueeze(-2)
    if causal:
        future = torch.ones(k.shape[-2], k.shape[-2], dtype=torch.bool, device=k.device).triu(1)
        hidden = future if hidden is None else hidden | future
    return hidden


def _fill_channels(x: Tensor) -> Tensor:
    return F.pad(x, (0, -x.shape[-1] % 8))


def _four_dimensions(x: Tensor, leading: tuple[int, ...]) -> Tensor:
    """`[..., S, C]` -> `[B, heads, S, C]`, a view unless x has to be broadcast to the leading dimensions."""
    x = x.expand(*leading, *x.shape[-2:])
    return x[(None,) * (4 - x.ndim)].flatten(0, -4)
