"""Entropy-equal attention written out: float64, N x N weights, no shortcut. What every fast form is tested against."""

import math

import torch
from torch import Tensor

from ealinformer.attention.entropy import ENTROPIES
from ealinformer.attention.names import unknown_name


def reference_weights(
    q: Tensor,
    k: Tensor,
    *,
    entropy: str = "taylor",
    eps: float = 1e-8,
    key_padding_mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """The weights `[..., Nq, N]` of entropy-equal attention in float64, for q `[..., Nq, C]` and k `[..., N, C]`.

    Theta is sqrt(s / (2 D)) + eps with D = log N - H, where H is the entropy as its estimator has it, from the explicit
    scores of the keys that a query sees. `"taylor"` and `"taylor_uncentred"` evaluate equation (2) of the paper (with
    the sign of its logarithm corrected) term by term, on centred and on uncentred scores; where the logarithm leaves
    its domain the result is NaN.

    Raises:
        ValueError: the estimator is not known.
    """
    q, k = q.double(), k.double()
    raw = q @ k.transpose(-2, -1) * (k.shape[-1] ** -0.5 if scale is None else scale)
    visible = torch.ones_like(raw, dtype=torch.bool)
    if key_padding_mask is not None:
        visible = visible & ~key_padding_mask.unsqueeze(-2)
    if causal:
        visible = visible.tril()
    count = visible.sum(dim=-1, keepdim=True).double()
    raw = torch.where(visible, raw, 0)
    scores = torch.where(visible, raw - raw.sum(dim=-1, keepdim=True) / count, 0)
    mean_square = scores.square().sum(dim=-1, keepdim=True) / count
    deficit = count.log() - _entropy(raw, scores, visible, entropy)
    ratio = mean_square / (2 * deficit)
    # A flat row has no scores to divide: any theta gives the same weights 1 / N.
    theta = torch.where(mean_square > 0, ratio, torch.ones_like(ratio)).sqrt() + eps
    return torch.where(visible, (1 + scores / theta) / count, 0)


def reference_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    entropy: str = "taylor",
    eps: float = 1e-8,
    key_padding_mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """The output `[..., Nq, Cv]` in float64 for v `[..., N, Cv]`; see `reference_weights`."""
    weights = reference_weights(
        q, k, entropy=entropy, eps=eps, key_padding_mask=key_padding_mask, causal=causal, scale=scale
    )
    return weights @ v.double()


def _entropy(raw: Tensor, scores: Tensor, visible: Tensor, name: str) -> Tensor:
    """H `[..., Nq, 1]` as the estimator has it; both kinds of scores are 0 where a key is not visible."""
    count = visible.sum(dim=-1, keepdim=True).double()
    mean_square = scores.square().sum(dim=-1, keepdim=True) / count
    log_n = count.log()
    if name in ("taylor", "taylor_uncentred"):
        x = scores if name == "taylor" else raw
        total = count + x.sum(dim=-1, keepdim=True)
        return torch.log(total) - ((1 + x) * x).sum(dim=-1, keepdim=True) / total
    if name == "second_order":
        return log_n - mean_square / 2
    if name == "gaussian":
        return log_n - torch.minimum(mean_square / 2, log_n)
    if name == "finite_size":
        return log_n - _soft_minimum(mean_square / 2, log_n)
    if name == "skewed":
        # Scores of the mean query are the mean of the scores.
        y = scores.mean(dim=-2, keepdim=True)
        norm = y.square().sum(dim=-1, keepdim=True) / count
        along = (scores * y).sum(dim=-1, keepdim=True) / count
        third = (along / norm).square() * (scores * y.square()).sum(dim=-1, keepdim=True) / count
        tilt = (2 / 3 * third / mean_square).clamp(-1.5, 1.5)
        return log_n - _soft_minimum(mean_square / 2 * tilt.exp(), log_n)
    if name == "exact":
        p = torch.softmax(torch.where(visible, scores, -math.inf), dim=-1)
        p = torch.where(visible, p, 1)  # p log p is 0 at both ends, but only here with a gradient
        return -torch.special.xlogy(p, p).sum(dim=-1, keepdim=True)
    raise unknown_name("entropy", name, ENTROPIES)


def _soft_minimum(a: Tensor, b: Tensor) -> Tensor:
    """(a^-p + b^-p)^(-1/p), with the p of `finite_size` for b = log N."""
    p = (0.65 + b / 10).clamp(min=1)
    return (a**-p + b**-p) ** (-1 / p)
