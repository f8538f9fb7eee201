"""Entropy-equal weights against softmax's, query by query: entropy, theta, distances, negative weights, output error.

Everything is in float64 and through explicit N x N scores: this measures what the linear forms approximate.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ealinformer.attention.entropy import ESTIMATORS, ScoreMoments, softmax_deficit, softmax_theta

# What entropy_equal_attention adds to theta unless told otherwise.
EPS = 1e-8
# Kullback-Leibler distances have no place for negative weights: one below this share of 1 / N counts as that much.
CLIP = 1e-6


@dataclass(frozen=True)
class Queries:
    """Some queries of one attention call: their scores, what estimators may know of them, and softmax's answer."""

    scores: Tensor  # [..., Nq, N], scaled and centred over the keys
    moments: ScoreMoments  # [..., Nq, 1]
    log_softmax: Tensor  # [..., Nq, N]
    softmax: Tensor  # [..., Nq, N]
    deficit: Tensor  # [..., Nq, 1], D = log N - H in nats
    theta: Tensor  # [..., Nq, 1], from D


def look_at(q: Tensor, k: Tensor, *, mean_query: Tensor | None = None) -> Queries:
    """Scores of queries `[..., Nq, C]` with keys `[..., N, C]`, scaled by 1 / sqrt(C).

    `mean_query` `[..., 1, C]` is the mean over all queries of the call, which `skewed` needs; give it where q holds
    only some of them.
    """
    scale = k.shape[-1] ** -0.5
    q, k = q.double() * scale, k.double()
    mean_query = q.mean(dim=-2, keepdim=True) if mean_query is None else mean_query.double() * scale
    mean_key = k.mean(dim=-2, keepdim=True)
    keys = (k - mean_key).transpose(-2, -1)
    scores = q @ keys
    variance = scores.square().mean(dim=-1, keepdim=True)
    moments = ScoreMoments(
        variance=variance,
        num_keys=k.shape[-2],
        mean=q @ mean_key.transpose(-2, -1),
        third=_third(scores, variance, mean_query @ keys),
    )
    log_softmax = torch.log_softmax(scores, dim=-1)
    deficit, theta = softmax_deficit(scores), softmax_theta(scores, variance)
    return Queries(scores, moments, log_softmax, log_softmax.exp(), deficit, theta)


def theta_of(entropy: str, queries: Queries) -> Tensor:
    """Theta `[..., Nq, 1]` that entropy-equal attention would use."""
    estimator = ESTIMATORS[entropy]
    return (queries.theta if estimator.quadratic else estimator.theta(queries.moments)) + EPS


def deficit_of(entropy: str, queries: Queries) -> Tensor:
    """The entropy deficit D `[..., Nq, 1]` in nats that an estimator says softmax has."""
    estimator = ESTIMATORS[entropy]
    return queries.deficit if estimator.quadratic else estimator.deficit(queries.moments)


def score_facts(queries: Queries) -> dict[str, Tensor]:
    """What the scores are like, each `[..., Nq]`.

    `deficit` and `entropy` of softmax in nats; `score_std` and `score_skewness` over the keys; `score_mean` before
    centring; `outside_domain`: 1 where that mean is -1 or less, where the logarithm of `taylor_uncentred` ends.
    """
    std = queries.moments.variance.sqrt()
    assert queries.moments.mean is not None
    third = (queries.scores.square() * queries.scores).mean(dim=-1, keepdim=True)
    facts = {
        "deficit": queries.deficit,
        "entropy": -(queries.softmax * queries.log_softmax).sum(dim=-1, keepdim=True),
        "score_std": std,
        "score_skewness": torch.where(std > 0, third / torch.where(std > 0, std, 1) ** 3, 0),
        "score_mean": queries.moments.mean,
        "outside_domain": (queries.moments.mean <= -1).double(),
    }
    return {name: value.squeeze(-1) for name, value in facts.items()}


def weight_facts(queries: Queries, theta: Tensor) -> dict[str, Tensor]:
    """The weights phi_j = (1 + x_j / theta) / N beside softmax's p_j, each `[..., Nq]`.

    `l1_to_softmax`: sum |phi - p|. `l1_to_exact_theta`: the same to the phi of softmax's own entropy. `negative_share`:
    of the keys, those with phi < 0; `negative_mass`: minus the sum of these phi. `kl_softmax_to_clipped`: KL(p || c) in
    nats, where c is phi raised to at least CLIP / N and normalised; it grows with log CLIP where softmax has mass on
    negative phi. `kl_clipped_to_softmax`: KL(c || p), which does not depend on CLIP to speak of.
    """
    num_keys = queries.scores.shape[-1]
    flat = queries.scores / theta + 1  # N phi
    negative = flat < 0
    clipped = flat.clamp(min=CLIP)
    clipped = clipped / clipped.sum(dim=-1, keepdim=True)
    log_ratio = queries.log_softmax - clipped.log()
    mean_size = queries.scores.abs().mean(dim=-1)
    return {
        "l1_to_softmax": (flat / num_keys - queries.softmax).abs().sum(dim=-1),
        "l1_to_exact_theta": (1 / theta - 1 / (queries.theta + EPS)).abs().squeeze(-1) * mean_size,
        "negative_share": negative.double().mean(dim=-1),
        "negative_mass": torch.where(negative, -flat, 0).mean(dim=-1),
        "kl_softmax_to_clipped": (queries.softmax * log_ratio).sum(dim=-1),
        "kl_clipped_to_softmax": -(clipped * log_ratio).sum(dim=-1),
    }


@dataclass(frozen=True)
class Outputs:
    """What values become: softmax's output and mean(v) `[..., Nq, C]`, and what linear weights mix in at theta = 1."""

    softmax: Tensor
    variation: Tensor  # softmax's output less mean(v), which all of these attentions have in common
    mixed: Tensor  # the output of linear weights is mean(v) + mixed / theta


def outputs_of(queries: Queries, v: Tensor) -> Outputs:
    """For values `[..., N, C]`."""
    v = v.double()
    softmax = queries.softmax @ v
    return Outputs(softmax, softmax - v.mean(dim=-2, keepdim=True), queries.scores @ v / v.shape[-2])


def output_facts(outputs: Outputs) -> dict[str, Tensor]:
    """Squared norms over the channels of a head, each `[..., Nq]`.

    `squared_output` of softmax's output and `squared_variation` of it around mean(v). `squared_residual`: what is left
    of the difference when every query has the theta that is best for its output, whatever its entropy.
    """
    length = outputs.mixed.norm(dim=-1, keepdim=True)
    direction = torch.where(length > 0, outputs.mixed / torch.where(length > 0, length, 1), 0)
    along = (outputs.variation * direction).sum(dim=-1, keepdim=True)
    return {
        "squared_output": _squared_norm(outputs.softmax),
        "squared_variation": _squared_norm(outputs.variation),
        "squared_residual": _squared_norm(outputs.variation - along.clamp(min=0) * direction),
    }


def squared_error(outputs: Outputs, theta: Tensor) -> Tensor:
    """Of the output of linear weights against softmax's, `[..., Nq]`."""
    return _squared_norm(outputs.mixed / theta - outputs.variation)


def _third(scores: Tensor, variance: Tensor, probe: Tensor) -> Tensor:
    """kappa_3 / s as `skewed` has it: E[x y]^2 / s * E[x y^2], y the scores of the mean query at mean square 1."""
    size = probe.square().mean(dim=-1, keepdim=True).sqrt()
    unit = torch.where(size > 0, probe / torch.where(size > 0, size, 1), 0)
    along, squared = ((scores * side).mean(dim=-1, keepdim=True) for side in (unit, unit.square()))
    return torch.where(variance > 0, along.square() / torch.where(variance > 0, variance, 1), 0) * squared


def _squared_norm(x: Tensor) -> Tensor:
    return x.square().sum(dim=-1)
