"""Entropy-equal self-attention with a constant theta over few rows, its projections included.

Where a group has fewer rows N than a head has channels C, scores cost less than Khat^T V. The numbers are those of
`entropy_equal_attention`; what is kept for the backward pass is the inputs, and q, centred k and v once.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ealinformer.attention.projections import Projections
from ealinformer.attention.slabs import slabs


def short_attention(x: Tensor, projections: Projections, n_heads: int, sharpness: float) -> Tensor:
    """Entropy-equal multi-head self-attention over dimension -2 of `[..., N, D]`, projections included.

    Args:
        x: inputs `[..., N, D]`; the result has its strides.
        projections: of all heads.
        n_heads: divides D.
        sharpness: scale / theta, what a centred score is multiplied by.
    """
    return _ShortAttention.apply(x, n_heads, sharpness, *projections)


class _ShortAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, n_heads: int, sharpness: float, *projections: Tensor) -> Tensor:
        weights = Projections(*projections)
        to_heads, to_heads_bias = _inward(weights)
        out, kept = torch.empty_like(x), []
        for rows, target in zip(slabs(x), slabs(out), strict=True):
            heads = torch.addmm(to_heads_bias, rows.flatten(0, 1), to_heads.t())
            # [3, g * heads, N, C]: contiguous rows for every product from here on.
            heads = heads.view(*rows.shape[:2], 3, n_heads, -1).permute(2, 0, 3, 1, 4).flatten(1, 2)
            q, k, v = heads = heads.contiguous()
            k -= k.mean(dim=1, keepdim=True)
            mixed = _from_heads(_mix(q, k, v, sharpness), n_heads)
            target.copy_(torch.addmm(weights.out_bias, mixed, weights.out_weight.t()).view(rows.shape))
            kept.append(heads)
        ctx.save_for_backward(x, *kept, *projections)
        ctx.n_heads, ctx.sharpness = n_heads, sharpness
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, *kept = ctx.saved_tensors
        weights = Projections(*kept[-len(Projections._fields) :])
        to_heads, to_heads_bias = _inward(weights)
        g_to_heads, g_bias = torch.zeros_like(to_heads), torch.zeros_like(to_heads_bias)
        g_out, g_out_bias = torch.zeros_like(weights.out_weight), torch.zeros_like(weights.out_bias)
        g_x = torch.empty_like(x)
        n_heads, alpha = ctx.n_heads, ctx.sharpness / x.shape[-2]
        for rows, (q, k, v), given, target in zip(slabs(x), kept, slabs(grad), slabs(g_x), strict=False):
            given = given.flatten(0, 1)
            g_mixed = (given @ weights.out_weight).view(len(rows), -1, n_heads, q.shape[-1])
            g_mixed = g_mixed.transpose(1, 2).flatten(0, 1)
            scores = q @ k.transpose(1, 2)
            mixed = torch.baddbmm(v.mean(dim=1, keepdim=True), scores, v, alpha=alpha)
            g_scores = (g_mixed @ v.transpose(1, 2)).mul_(alpha)
            g_k = g_scores.transpose(1, 2) @ q
            g_k -= g_k.mean(dim=1, keepdim=True)
            g_v = torch.baddbmm(g_mixed.mean(dim=1, keepdim=True), scores.transpose(1, 2), g_mixed, alpha=alpha)
            g_heads = torch.stack([_from_heads(g, n_heads) for g in (g_scores @ k, g_k, g_v)], dim=1).flatten(1)
            g_to_heads.addmm_(g_heads.t(), rows.flatten(0, 1))
            g_bias += g_heads.sum(dim=0)
            g_out.addmm_(given.t(), _from_heads(mixed, n_heads))
            g_out_bias += given.sum(dim=0)
            target.copy_((g_heads @ to_heads).view(rows.shape))
        (g_q, g_k, g_v), (g_q_bias, g_k_bias, g_v_bias) = g_to_heads.chunk(3), g_bias.chunk(3)
        return g_x, None, None, *Projections(g_q, g_q_bias, g_k, g_k_bias, g_v, g_v_bias, g_out, g_out_bias)


def _mix(q: Tensor, k: Tensor, v: Tensor, sharpness: float) -> Tensor:
    """`[b, N, C]`, k centred -> mean(v) + sharpness * q k^T v / N."""
    return torch.baddbmm(v.mean(dim=1, keepdim=True), q @ k.transpose(1, 2), v, alpha=sharpness / q.shape[1])


def _inward(weights: Projections) -> tuple[Tensor, Tensor]:
    """The three projections as one: `[3 D, D]`, `[3 D]`."""
    return (
        torch.cat([weights.q_weight, weights.k_weight, weights.v_weight]),
        torch.cat([weights.q_bias, weights.k_bias, weights.v_bias]),
    )


def _from_heads(x: Tensor, n_heads: int) -> Tensor:
    """`[g * heads, N, C]` -> `[g * N, D]`."""
    return x.unflatten(0, (-1, n_heads)).transpose(1, 2).flatten(2).flatten(0, 1)
