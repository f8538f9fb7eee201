"""Entropy-equal attention written out: float64, N x N weights, no shortcut. What every fast form is tested against."""

import math

import torch
from torch import Tensor


def reference_weights(
    q: Tensor, k: Tensor, *, entropy: str = "taylor", eps: float = 1e-8, scale: float | None = None
) -> Tensor:
    """The weights `[..., Nq, N]` of entropy-equal attention in float64, for q `[..., Nq, C]` and k `[..., N, C]`.

    Theta is sqrt(s / (2 D)) + eps with D = log N - H as its estimator gives it, from the explicit scores:
    `"taylor"` evaluates equation (2) of the paper (with the sign of its logarithm corrected) term by term,
    `"gaussian"` is min(s / 2, log N), and `"exact"` is the entropy of softmax itself.
    """
    q, k = q.double(), k.double()
    num_keys, head_size = k.shape[-2:]
    scores = q @ (k - k.mean(dim=-2, keepdim=True)).transpose(-2, -1) * (head_size**-0.5 if scale is None else scale)
    mean_square = scores.square().mean(dim=-1, keepdim=True)
    deficit = math.log(num_keys) - _entropy(scores, entropy)
    ratio = mean_square / (2 * deficit)
    # A flat row has no scores to divide: any theta gives the same weights 1 / N.
    theta = torch.where(mean_square > 0, ratio, torch.ones_like(ratio)).sqrt() + eps
    return (1 + scores / theta) / num_keys


def reference_attention(
    q: Tensor, k: Tensor, v: Tensor, *, entropy: str = "taylor", eps: float = 1e-8, scale: float | None = None
) -> Tensor:
    """The output `[..., Nq, Cv]` in float64 for v `[..., N, Cv]`; see `reference_weights`."""
    return reference_weights(q, k, entropy=entropy, eps=eps, scale=scale) @ v.double()


def _entropy(scores: Tensor, name: str) -> Tensor:
    num_keys = scores.shape[-1]
    if name == "taylor":
        total = num_keys + scores.sum(dim=-1, keepdim=True)
        return torch.log(total) - ((1 + scores) * scores).sum(dim=-1, keepdim=True) / total
    if name == "gaussian":
        half_variance = scores.square().mean(dim=-1, keepdim=True) / 2
        return math.log(num_keys) - half_variance.clamp(max=math.log(num_keys))
    if name == "exact":
        p = torch.softmax(scores, dim=-1)
        return -torch.special.xlogy(p, p).sum(dim=-1, keepdim=True)
    raise ValueError(f"entropy is one of taylor, gaussian, exact, got {name!r}")
