"""Entropy-equal self-attention with a constant theta over few rows, its projections included.

Where a group has fewer rows N than a head has channels C, scores cost less than Khat^T V. The numbers are those of
`entropy_equal_attention`; what is kept for the backward pass is the inputs, and q, centred k and v once.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ealinformer.attention.projections import Projections
from ealinformer.attention.slabs import joined, slabs


def short_attention(x: Tensor, projections: Projections, n_heads: int, sharpness: float) -> Tensor:
    """Entropy-equal multi-head self-attention over dimension -2 of `[..., N, D]`, projections included.

    Args:
        x: inputs `[..., N, D]`; the result has its strides.
        projections: of all heads.
        n_heads: divides D.
        sharpness: scale / theta, what a centred score is multiplied by.
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *projections)):
        return _ShortAttention.apply(x, n_heads, sharpness, *projections)
    inward = _inward(projections)
    return joined((_forward(rows, projections, inward, n_heads, sharpness)[0] for rows in slabs(x)), x)


class _ShortAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, n_heads: int, sharpness: float, *projections: Tensor) -> Tensor:
        weights = Projections(*projections)
        inward = _inward(weights)
        kept = []

        def attended(rows: Tensor) -> Tensor:
            out, heads = _forward(rows, weights, inward, n_heads, sharpness)
            kept.append(heads)
            return out

        out = joined((attended(rows) for rows in slabs(x)), x)
        ctx.save_for_backward(x, *kept, *projections)
        ctx.n_heads, ctx.sharpness = n_heads, sharpness
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, *saved = ctx.saved_tensors
        count = len(Projections._fields)
        kept, weights = saved[:-count], Projections(*saved[-count:])
        to_heads, to_heads_bias = _inward(weights)
        g_to_heads, g_bias = torch.zeros_like(to_heads), torch.zeros_like(to_heads_bias)
        g_out, g_out_bias = torch.zeros_like(weights.out_weight), torch.zeros_like(weights.out_bias)
        n_heads, alpha = ctx.n_heads, ctx.sharpness / x.shape[-2]

        def gradient(rows: Tensor, heads: Tensor, given: Tensor) -> Tensor:
            q, k, v = heads
            given = given.flatten(0, 1)
            g_mixed = (given @ weights.out_weight).view(*rows.shape[:2], n_heads, -1).transpose(1, 2).flatten(0, 1)
            scores = q @ k.transpose(1, 2)
            mixed = torch.baddbmm(v.mean(dim=1, keepdim=True), scores, v, alpha=alpha)
            g_scores = (g_mixed @ v.transpose(1, 2)).mul_(alpha)
            g_k = g_scores.transpose(1, 2) @ q
            g_k -= g_k.mean(dim=1, keepdim=True)
            g_v = torch.baddbmm(g_mixed.mean(dim=1, keepdim=True), scores.transpose(1, 2), g_mixed, alpha=alpha)
            g_heads = torch.cat([_from_heads(g, n_heads) for g in (g_scores @ k, g_k, g_v)], dim=1)
            g_to_heads.addmm_(g_heads.t(), rows.flatten(0, 1))
            g_bias.add_(g_heads.sum(dim=0))
            g_out.addmm_(given.t(), _from_heads(mixed, n_heads))
            g_out_bias.add_(given.sum(dim=0))
            return (g_heads @ to_heads).view(rows.shape)

        parts = zip(slabs(x), kept, slabs(grad), strict=True)
        g_x = joined((gradient(*part) for part in parts), x)
        (g_q, g_k, g_v), (g_q_bias, g_k_bias, g_v_bias) = g_to_heads.chunk(3), g_bias.chunk(3)
        return g_x, None, None, *Projections(g_q, g_q_bias, g_k, g_k_bias, g_v, g_v_bias, g_out, g_out_bias)


def _forward(
    rows: Tensor, weights: Projections, inward: tuple[Tensor, Tensor], n_heads: int, sharpness: float
) -> tuple[Tensor, Tensor]:
    """`[g, N, D]` -> the result, and q, centred k and v `[3, g * heads, N, C]`."""
    to_heads, to_heads_bias = inward
    heads = torch.addmm(to_heads_bias, rows.flatten(0, 1), to_heads.t())
    # Contiguous for every product from here on.
    heads = heads.view(*rows.shape[:2], 3, n_heads, -1).permute(2, 0, 3, 1, 4).flatten(1, 2).contiguous()
    heads[1] -= heads[1].mean(dim=1, keepdim=True)
    q, k, v = heads
    mixed = torch.baddbmm(v.mean(dim=1, keepdim=True), q @ k.transpose(1, 2), v, alpha=sharpness / rows.shape[1])
    out = torch.addmm(weights.out_bias, _from_heads(mixed, n_heads), weights.out_weight.t())
    return out.view(rows.shape), heads


def _inward(weights: Projections) -> tuple[Tensor, Tensor]:
    """The three projections as one: `[3 D, D]`, `[3 D]`."""
    return (
        torch.cat([weights.q_weight, weights.k_weight, weights.v_weight]),
        torch.cat([weights.q_bias, weights.k_bias, weights.v_bias]),
    )


def _from_heads(x: Tensor, n_heads: int) -> Tensor:
    """`[g * heads, N, C]` -> `[g * N, D]`."""
    return x.unflatten(0, (-1, n_heads)).transpose(1, 2).flatten(2).flatten(0, 1)
