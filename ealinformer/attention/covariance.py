"""Entropy-equal self-attention with a constant theta, from the covariance of its inputs: no queries, keys or values.

With one theta for all queries the weights are linear in the scores, and so a layer with its projections is an affine
map of its inputs, one a group of N rows (sensors of one time step). With xc the centred rows, m their mean and
S = xc^T xc / N their covariance,

    M_h = Wk_h S Wv_h^T                             what Khat^T V / N is, for each head h
    A   = (scale / theta) sum_h Wq_h^T M_h Wo_h^T   [D, D]
    out = xc A + c,   c = (m Wv^T + bv + (scale / theta) (m Wq^T + bq) M) Wo^T + bo

which passes over the rows twice, for S and for xc A: 4 N D^2 operations where four projections alone are 8 N D^2, and
nothing but the inputs, S and M is kept for the backward pass. It pays from about N = D on.
The sums over rows are of centred rows, as in `entropy_equal_attention`; the key bias has no influence,
and its gradient is 0.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ealinformer.attention.projections import Projections
from ealinformer.attention.slabs import joined, slabs

# Products of D x D are taken for several groups at once.
PORTION = 4


def covariance_attention(x: Tensor, projections: Projections, n_heads: int, sharpness: float) -> Tensor:
    """Entropy-equal multi-head self-attention over dimension -2 of `[..., N, D]`, projections included.

    Args:
        x: inputs `[..., N, D]`; the result has its strides.
        projections: of all heads.
        n_heads: divides D.
        sharpness: scale / theta, what a centred score is multiplied by.

    Returns:
        `[..., N, D]`, the same numbers as through queries, keys and values, to rounding.
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *projections)):
        return _CovarianceAttention.apply(x, n_heads, sharpness, *projections)
    return _forward(x, projections, n_heads, sharpness)[0]


class _CovarianceAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, n_heads: int, sharpness: float, *projections: Tensor) -> Tensor:
        out, covariance, mixing = _forward(x, Projections(*projections), n_heads, sharpness)
        ctx.save_for_backward(x, covariance, mixing, *projections)
        ctx.sharpness = sharpness
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, covariance, mixing, *projections = ctx.saved_tensors
        weights = Projections(*projections)
        g_weights = Projections(*(torch.zeros_like(weight) for weight in weights))
        rows = slabs(x, PORTION)
        sizes = [len(part) for part in rows]
        parts = zip(rows, covariance.split(sizes), mixing.split(sizes), slabs(grad, PORTION), strict=True)
        g_x = joined((_backward(*part, weights, ctx.sharpness, g_weights) for part in parts), x, PORTION)
        return g_x, None, None, *g_weights


def _forward(x: Tensor, weights: Projections, n_heads: int, sharpness: float) -> tuple[Tensor, Tensor, Tensor]:
    """The result, S `[G, D, D]` and M `[G, heads, C, C]` of all groups."""
    covariances, mixings = [], []

    def attended(rows: Tensor) -> Tensor:
        mean, centred = _centre(rows)
        covariance = centred.transpose(1, 2) @ centred / rows.shape[1]
        mixing = _mixing(covariance @ weights.v_weight.t(), weights.k_weight, n_heads)
        covariances.append(covariance)
        mixings.append(mixing)
        mixed_out = _mixed_out(mixing, weights.out_weight)
        mean_q = mean @ weights.q_weight.t() + weights.q_bias
        mean_out = (mean @ weights.v_weight.t() + weights.v_bias) @ weights.out_weight.t() + weights.out_bias
        offset = torch.baddbmm(mean_out, mean_q, mixed_out, alpha=sharpness)
        return torch.baddbmm(offset, centred, _matrix(mixed_out, weights.q_weight), alpha=sharpness)

    out = joined((attended(rows) for rows in slabs(x, PORTION)), x, PORTION)
    return out, torch.cat(covariances), torch.cat(mixings)


def _backward(
    x: Tensor,
    covariance: Tensor,
    mixing: Tensor,
    grad: Tensor,
    weights: Projections,
    sharpness: float,
    g_weights: Projections,
) -> Tensor:
    """The gradient of the rows `[g, N, D]` of some groups; those of the weights are added to `g_weights`."""
    (groups, num_keys, _), heads = x.shape, mixing.shape[1]
    wk_heads, wo_heads = weights.k_weight.unflatten(0, (heads, -1)), weights.out_weight.t().unflatten(0, (heads, -1))
    mean, centred = _centre(x)
    mixed_out = _mixed_out(mixing, weights.out_weight)

    # out = sharpness * centred @ matrix + offset, where the columns of `centred` sum to 0
    g_offset = grad.sum(dim=1, keepdim=True)
    g_matrix = centred.transpose(1, 2) @ grad
    g_centred = torch.bmm(grad, _matrix(mixed_out, weights.q_weight).mul_(sharpness).transpose(1, 2))

    # offset = (mean_v + sharpness * mean_q @ M) Wo^T + bo, M Wo^T being mixed_out
    mean_q = mean @ weights.q_weight.t() + weights.q_bias
    mean_v = mean @ weights.v_weight.t() + weights.v_bias
    g_mean_v = g_offset @ weights.out_weight
    g_mean_q = torch.bmm(g_offset, mixed_out.transpose(1, 2)).mul_(sharpness)
    g_weights.out_weight.addmm_(_flat(g_offset).t(), _flat(mean_v))
    g_weights.out_bias.add_(_flat(g_offset).sum(dim=0))

    # matrix = Wq^T mixed_out
    g_mixed_out = torch.bmm(weights.q_weight.expand(groups, -1, -1), g_matrix)
    g_mixed_out.baddbmm_(mean_q.transpose(1, 2), g_offset).mul_(sharpness)
    g_weights.q_weight.add_(torch.bmm(mixed_out, g_matrix.transpose(1, 2)).sum(dim=0), alpha=sharpness)

    # mixed_out_h = M_h Wo_h^T and M_h = Wk_h valued_h, head by head; valued = S Wv^T
    valued = (covariance @ weights.v_weight.t()).unflatten(2, (heads, -1)).unbind(2)
    g_valued, g_k_weight, g_out_weight = [], [], []
    of_heads = (wk_heads, wo_heads, mixing.unbind(1), valued, g_mixed_out.unflatten(1, (heads, -1)).unbind(1))
    for wk, wo, mix, value, g in zip(*of_heads, strict=True):
        g_mix = g @ wo.t()
        g_out_weight.append(torch.bmm(mix.transpose(1, 2), g).sum(dim=0))
        g_valued.append(torch.bmm(wk.t().expand(groups, -1, -1), g_mix))
        g_k_weight.append(torch.bmm(g_mix, value.transpose(1, 2)).sum(dim=0))
    g_weights.out_weight.add_(torch.cat(g_out_weight).t())
    g_weights.k_weight.add_(torch.cat(g_k_weight))
    g_values = torch.cat(g_valued, dim=2)
    g_weights.v_weight.addmm_(_flat(g_values).t(), _flat(covariance))

    # S = centred^T centred / N
    g_covariance = g_values @ weights.v_weight
    g_centred.baddbmm_(centred, g_covariance + g_covariance.transpose(1, 2), alpha=1 / num_keys)

    g_weights.v_weight.addmm_(_flat(g_mean_v).t(), _flat(mean))
    g_weights.v_bias.add_(_flat(g_mean_v).sum(dim=0))
    g_weights.q_weight.addmm_(_flat(g_mean_q).t(), _flat(mean))
    g_weights.q_bias.add_(_flat(g_mean_q).sum(dim=0))
    g_mean = g_mean_v @ weights.v_weight + g_mean_q @ weights.q_weight
    return g_centred.add_((g_mean - g_centred.sum(dim=1, keepdim=True)) / num_keys)


def _centre(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.mean(dim=1, keepdim=True)
    return mean, x - mean


def _mixing(valued: Tensor, k_weight: Tensor, n_heads: int) -> Tensor:
    """M_h = Wk_h valued_h: `[g, D, D]` -> `[g, heads, C, C]`. An expanded weight is a batch without a copy."""
    of_heads = zip(k_weight.unflatten(0, (n_heads, -1)), valued.unflatten(2, (n_heads, -1)).unbind(2), strict=True)
    return torch.stack([torch.bmm(wk.expand(valued.shape[0], -1, -1), value) for wk, value in of_heads], dim=1)


def _mixed_out(mixing: Tensor, out_weight: Tensor) -> Tensor:
    """M_h Wo_h^T, heads below each other: `[g, heads, C, C]` -> `[g, D, D]`."""
    of_heads = zip(mixing.unbind(1), out_weight.t().unflatten(0, (mixing.shape[1], -1)), strict=True)
    return torch.cat([mix @ wo for mix, wo in of_heads], dim=1)


def _matrix(mixed_out: Tensor, q_weight: Tensor) -> Tensor:
    """Wq^T mixed_out, A but for its factor: `[g, D, D]`."""
    return torch.bmm(q_weight.t().expand(mixed_out.shape[0], -1, -1), mixed_out)


def _flat(x: Tensor) -> Tensor:
    """`[g, n, D]` -> `[g * n, D]`."""
    return x.flatten(0, 1)
