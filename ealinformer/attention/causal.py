"""Causal entropy-equal attention: in parallel over a whole sequence, or one position at a time.

Query i sees keys 0 ... i, whose means move with i. Welford's update keeps the centring exact without a second pass:

    sum_{j <= i} (k_j - mean_i k) (v_j - mean_i v)^T = sum_{j <= i} (k_j - mean_{j-1} k) (v_j - mean_j v)^T

so the running products are those of plain causal linear attention (`prefix_product`) over moved keys and values.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ealinformer.attention.checks import check_inputs, check_number, check_scale
from ealinformer.attention.entropy import ENTROPIES, ESTIMATORS, EntropyEstimator, ScoreMoments
from ealinformer.attention.names import unknown_name
from ealinformer.attention.precision import wide
from ealinformer.attention.prefix import prefix_product


def causal_entropy_equal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding: Tensor | None,
    estimator: EntropyEstimator,
    eps: float,
    scale: float,
) -> Tensor:
    """`[..., N, C]`, `[..., N, C]`, `[..., N, Cv]` in float32 or wider -> `[..., N, Cv]` in O(N C^2).

    `padding` `[..., N, 1]` is True for keys that are not there; k and v hold 0 at them.
    """
    shift = k[..., :1, :]
    moved = k - shift  # a common shift changes nothing but the rounding of the running means
    seen = torch.ones_like(k[..., :1]) if padding is None else (~padding).to(k.dtype)
    if padding is not None:
        moved = moved * seen
    count = seen.cumsum(dim=-2)  # [..., N, 1]
    at_least_one = count.clamp(min=1)
    mean_k, mean_v = moved.cumsum(dim=-2) / at_least_one, v.cumsum(dim=-2) / at_least_one
    mean_before = F.pad(mean_k[..., :-1, :], (0, 0, 1, 0))
    keys, values = (moved - mean_before) * seen, (v - mean_v) * seen
    factor = scale / at_least_one
    if estimator.constant is not None:
        return mean_v + prefix_product(q, keys, values) * (factor / (estimator.constant + eps))
    sides = torch.cat([(moved - mean_k) * seen, values], dim=-1)
    scored, mixed = prefix_product(q, keys, sides).split([k.shape[-1], v.shape[-1]], dim=-1)
    variance = (scored * q).sum(dim=-1, keepdim=True).clamp(min=0) * (scale * factor)
    mean = (q * (mean_k + shift)).sum(dim=-1, keepdim=True) * scale if "mean" in estimator.needs else None
    theta = estimator.theta(ScoreMoments(variance, at_least_one, mean)) + eps
    return mean_v + mixed * (factor / theta)


class CausalState(NamedTuple):
    """What a stream of keys and values leaves behind: O(C^2) numbers a head, however long it was."""

    num_keys: int
    mean_key: Tensor  # [..., C]
    mean_value: Tensor  # [..., Cv]
    key_value: Tensor  # [..., C, Cv], sum of the products of centred keys and centred values
    key_key: Tensor | None  # [..., C, C], of centred keys with themselves; None where theta is constant


def causal_state(k: Tensor, v: Tensor, *, entropy: str = "taylor") -> CausalState:
    """The state after a whole history at once, to go on from with `entropy_equal_step`.

    Args:
        k: keys `[..., N, C]`.
        v: values `[..., N, Cv]`.
        entropy: the estimator that the steps will use.

    Raises:
        ValueError: shapes do not fit, there is no key, or the estimator has no causal step.
    """
    check_inputs(k, k, v)
    needs_keys = _step_estimator(entropy).constant is None
    k, v = wide(k), wide(v)
    mean_key, mean_value = k.mean(dim=-2), v.mean(dim=-2)
    centred = k - mean_key.unsqueeze(-2)
    transposed = centred.transpose(-2, -1)
    key_value = transposed @ (v - mean_value.unsqueeze(-2))
    return CausalState(k.shape[-2], mean_key, mean_value, key_value, transposed @ centred if needs_keys else None)


def entropy_equal_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: CausalState | None = None,
    *,
    entropy: str = "taylor",
    eps: float = 1e-8,
    scale: float | None = None,
) -> tuple[Tensor, CausalState]:
    """One position of causal attention, given the state that the earlier ones left: O(C^2), for streams.

    The outputs of the steps equal those of `entropy_equal_attention(..., causal=True)` over the whole sequence.

    Args:
        q: query `[..., C]` of the new position.
        k: its key `[..., C]`.
        v: its value `[..., Cv]`.
        state: after the positions before; None at the first.
        entropy: as in `entropy_equal_attention`; not `"skewed"` and not `"exact"`.
        eps: added to theta.
        scale: of the scores; 1 / sqrt(C) when None.

    Returns:
        The output `[..., Cv]` in the dtype of the inputs, and the new state, in float32 or wider; the old one is kept.

    Raises:
        ValueError: shapes do not fit, or the estimator has no causal step.
    """
    check_inputs(q.unsqueeze(-2), k.unsqueeze(-2), v.unsqueeze(-2))
    estimator = _step_estimator(entropy)
    check_number("eps", eps)
    scale = check_scale(scale, q.shape[-1])
    dtype = q.dtype
    q, k, v = wide(q), wide(k), wide(v)
    if state is None:
        state = _empty_state(k, v, estimator)
    elif (state.key_key is None) != (estimator.constant is not None):
        raise ValueError(f"the state was made for another entropy than {entropy!r}")
    count = state.num_keys + 1
    off = k - state.mean_key
    mean_key, mean_value = state.mean_key + off / count, state.mean_value + (v - state.mean_value) / count
    key_value = state.key_value + off.unsqueeze(-1) * (v - mean_value).unsqueeze(-2)
    mixed = (q.unsqueeze(-2) @ key_value).squeeze(-2)
    key_key = None
    theta: Tensor | float
    if estimator.constant is None:
        assert state.key_key is not None
        key_key = state.key_key + off.unsqueeze(-1) * (k - mean_key).unsqueeze(-2)
        scored = (q.unsqueeze(-2) @ key_key).squeeze(-2)
        variance = (scored * q).sum(dim=-1, keepdim=True).clamp(min=0) * (scale**2 / count)
        mean = (q * mean_key).sum(dim=-1, keepdim=True) * scale if "mean" in estimator.needs else None
        theta = estimator.theta(ScoreMoments(variance, count, mean)) + eps
    else:
        theta = estimator.constant + eps
    out = mean_value + mixed * (scale / (count * theta))
    return out.to(dtype), CausalState(count, mean_key, mean_value, key_value, key_key)


def _empty_state(k: Tensor, v: Tensor, estimator: EntropyEstimator) -> CausalState:
    key_key = None if estimator.constant is not None else k.new_zeros(*k.shape, k.shape[-1])
    return CausalState(0, torch.zeros_like(k), torch.zeros_like(v), k.new_zeros(*k.shape, v.shape[-1]), key_key)


def _step_estimator(entropy: str) -> EntropyEstimator:
    if entropy not in ENTROPIES:
        raise unknown_name("entropy", entropy, ENTROPIES)
    estimator = ESTIMATORS[entropy]
    if estimator.quadratic or "third" in estimator.needs:
        raise ValueError(f"entropy {entropy!r} has no causal step: it needs all scores or the mean of all queries")
    return estimator
