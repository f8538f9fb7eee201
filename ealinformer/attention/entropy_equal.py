"""Entropy-equal linear attention (EALA), arXiv 2511.03190, Algorithm 1."""

from typing import Literal

import torch
from torch import Tensor

from ealinformer.attention.causal import causal_entropy_equal
from ealinformer.attention.checks import check_inputs, check_number, check_scale
from ealinformer.attention.entropy import ENTROPIES, ESTIMATORS, EntropyEstimator, ScoreMoments, softmax_theta
from ealinformer.attention.kernels import entropy_equal_kernel, kernel_reason
from ealinformer.attention.names import unknown_name
from ealinformer.attention.padding import zero_padding
from ealinformer.attention.precision import wide, wide_dtype, without_autocast

Branch = Literal["auto", "linear", "quadratic", "kernel"]
BRANCHES = ("auto", "linear", "quadratic", "kernel")


def entropy_equal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    entropy: str = "taylor",
    eps: float = 1e-8,
    key_padding_mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    branch: Branch = "auto",
) -> Tensor:
    """Attention whose weights are linear in the scores and have the entropy that softmax would have had.

    With scores x_j = scale * q . (k_j - mean(k)), the weights are (1 + x_j / theta) / N: they sum to 1 and may be
    negative. The output is mean(v) + scale * q (Khat^T V) / (N theta). Means and N are over the keys that a query sees:
    those that are not padding, with `causal` those up to its own place. A query that sees no key gives 0.

    Args:
        q: queries `[..., Nq, C]`.
        k: keys `[..., N, C]`.
        v: values `[..., N, Cv]`.
        entropy: estimator of softmax's entropy, one of `ENTROPIES`. `"taylor"` is the paper's closed form with its
            signs corrected: theta is then 1 / sqrt(2) for every query. `"gaussian"`, `"finite_size"` and `"skewed"`
            follow the entropy of each query, ever closer; `"exact"` computes it, at quadratic cost.
        eps: added to theta, as in the paper; a large one flattens the weights.
        key_padding_mask: bool `[..., N]`, True where a key is padding, without the dimension of the queries; it
            broadcasts against the leading dimensions of k. What padding holds does not matter, NaN included.
        causal: query i sees keys 0 ... i. Not for `"skewed"`, whose theta needs the mean of all queries.
        scale: of the scores; 1 / sqrt(C) when None.
        branch: `"linear"` costs O(N C^2), `"quadratic"` O(N^2 C), for the same numbers. `"auto"` takes the quadratic
            one where C > N, as Algorithm 1 does. `"kernel"` is the linear one through Triton kernels, on GPUs alone.

    Returns:
        `[..., Nq, Cv]`, in the dtype of the inputs. Finite for entries of q and k up to 1e9 and of v up to 1e15; half
        precision (float16) is computed in float32 and saturates where its range ends.

    Raises:
        ValueError: shapes, dtypes or the mask do not fit, there is no key, an argument is not what it has to be, the
            estimator has no causal or no linear form, or the kernels cannot take the call.
    """
    check_inputs(q, k, v, key_padding_mask, causal)
    if entropy not in ENTROPIES:
        raise unknown_name("entropy", entropy, ENTROPIES)
    if branch not in BRANCHES:
        raise unknown_name("branch", branch, BRANCHES)
    check_number("eps", eps)
    if branch == "kernel":
        reason = kernel_reason(q, k, v, entropy=entropy, key_padding_mask=key_padding_mask, causal=causal)
        if reason is not None:
            raise ValueError(f"branch 'kernel': {reason}")
        return entropy_equal_kernel(q, k, v, entropy=entropy, eps=eps, scale=scale)
    scale = check_scale(scale, q.shape[-1])
    estimator = ESTIMATORS[entropy]
    if causal and "third" in estimator.needs:
        raise ValueError(f"entropy {entropy!r} needs the mean of all queries and has no causal form")
    if estimator.quadratic and branch == "linear":
        raise ValueError(f"entropy {entropy!r} has no linear form, it needs all scores")
    quadratic = branch == "quadratic" or estimator.quadratic or (branch == "auto" and k.shape[-1] > k.shape[-2])

    leading = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    dtype = q.dtype
    with without_autocast(q):
        # One batch dimension: what the fused multiply-adds take, and contiguous rows for every pass that follows.
        k, v = zero_padding(k, key_padding_mask), zero_padding(v, key_padding_mask)
        q, k, v = (_merge_leading(x, leading) for x in (q, k, v))
        padding = None if key_padding_mask is None else _merge_leading(key_padding_mask.unsqueeze(-1), leading)
        if dtype == torch.float16 or (causal and dtype == torch.bfloat16):
            # float16 ends at 65,504, which sums over keys pass; running sums want more digits than bfloat16 has.
            q, k, v = wide(q), wide(k), wide(v)
        if quadratic:
            out = _quadratic(q, k, v, padding, estimator, eps, scale, causal)
        elif causal:
            out = causal_entropy_equal(q, k, v, padding, estimator, eps, scale)
        else:
            out = _linear(q, k, v, padding, estimator, eps, scale)
        if dtype == torch.float16:
            largest = torch.finfo(dtype).max
            out = out.clamp(-largest, largest)
        return out.to(dtype).reshape(*leading, *out.shape[-2:])


def _linear(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding: Tensor | None,
    estimator: EntropyEstimator,
    eps: float,
    scale: float,
) -> Tensor:
    """`[b, Nq, C]`, `[b, N, C]`, `[b, N, Cv]` -> `[b, Nq, Cv]` in O(N C^2)."""
    count = _count(k, padding)
    mean_k, mean_v = _mean(k, count), _mean(v, count)
    # Centring before the products, not after: the mean is often much larger than the differences.
    centred = _centre(k, mean_k, padding)
    if estimator.constant is not None:
        mixing = centred.transpose(-2, -1) @ v / count
        # The factor of the scores rides on the product; nothing passes over the queries but this one.
        return torch.baddbmm(mean_v.to(q.dtype), q, mixing.to(q.dtype), alpha=scale / (estimator.constant + eps))
    head_size, value_size = k.shape[-1], v.shape[-1]
    sides = [centred, v]
    if "third" in estimator.needs:
        probe = _unit_scores(centred @ q.mean(dim=-2, keepdim=True).transpose(-2, -1), count)
        sides += [probe.to(k.dtype), probe.square().to(k.dtype)]
    # One product over the keys for all that is asked of them.
    sums = (centred.transpose(-2, -1) @ torch.cat(sides, dim=-1) / count).to(q.dtype)
    spread, mixing, *probing = sums.split([head_size, value_size, *(1 for _ in sides[2:])], dim=-1)
    scored, *probed = (q @ torch.cat([spread, *probing], dim=-1)).split([head_size, *(1 for _ in probing)], dim=-1)
    wider = wide_dtype(q.dtype)
    variance = (scored.to(wider) * q.to(wider)).sum(dim=-1, keepdim=True).clamp(min=0) * scale**2
    moments = ScoreMoments(
        variance=variance,
        num_keys=count,
        mean=(q.to(wider) @ mean_k.to(wider).transpose(-2, -1)) * scale if "mean" in estimator.needs else None,
        third=_third(variance, *(x.to(wider) * scale for x in probed)) if probed else None,
    )
    theta = estimator.theta(moments) + eps
    return torch.baddbmm(mean_v.to(q.dtype), q * (scale / theta).to(q.dtype), mixing)


def _quadratic(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding: Tensor | None,
    estimator: EntropyEstimator,
    eps: float,
    scale: float,
    causal: bool,
) -> Tensor:
    """The same numbers through the N x N scores, in O(N^2 C)."""
    wider = wide_dtype(q.dtype)
    visible = None if padding is None else ~padding.transpose(-2, -1)  # [b, 1, N]
    mean_k = _mean(k, _count(k, padding))
    centred = _centre(k, mean_k, padding)
    scores = torch.baddbmm(q.new_zeros(()), q, centred.transpose(-2, -1), beta=0, alpha=scale).to(wider)
    count: Tensor | int = k.shape[-2]
    if causal:
        up_to_here = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        visible = up_to_here if visible is None else visible & up_to_here
    if visible is not None:
        count = visible.sum(dim=-1, keepdim=True).clamp(min=1).to(wider)
    row_mean: Tensor | float = 0.0
    if causal:
        # Every query has keys, and so a mean, of its own.
        assert visible is not None
        scores = torch.where(visible, scores, 0)
        row_mean = scores.sum(dim=-1, keepdim=True) / count
        scores = torch.where(visible, scores - row_mean, 0)

    theta: Tensor | float
    if estimator.constant is not None:
        theta = estimator.constant + eps
    else:
        variance = scores.square().sum(dim=-1, keepdim=True) / count
        if estimator.quadratic:
            theta = softmax_theta(scores, variance, visible).to(wider) + eps
        else:
            third = None
            if "third" in estimator.needs:
                probe = _unit_scores(scores.mean(dim=-2).unsqueeze(-1), count)
                along, squared = ((scores @ side) / count for side in (probe, probe.square()))
                third = _third(variance, along, squared)
            mean = None
            if "mean" in estimator.needs:
                mean = (q.to(wider) @ mean_k.to(wider).transpose(-2, -1)) * scale + row_mean
            theta = estimator.theta(ScoreMoments(variance, count, mean, third)) + eps
    weights = (1 + scores / theta) / count
    if visible is not None:
        weights = torch.where(visible, weights, 0)
    return weights.to(v.dtype) @ v


def _unit_scores(scores: Tensor, count: Tensor | int) -> Tensor:
    """`[b, N, 1]` scores of the mean query, scaled to mean square 1; 0 where they are all 0."""
    scores = wide(scores)
    # By the largest first, so that the squares stay in range.
    largest = scores.detach().abs().amax(dim=-2, keepdim=True)
    scores = scores / torch.where(largest > 0, largest, 1)
    mean_square = scores.square().sum(dim=-2, keepdim=True) / count
    return scores * torch.where(mean_square > 0, mean_square, 1).rsqrt()


def _third(variance: Tensor, along: Tensor, squared: Tensor) -> Tensor:
    """The estimate of kappa_3 / s: E[x y]^2 / s * E[x y^2], for unit probe scores y; 0 for a flat row."""
    flat = variance < torch.finfo(variance.dtype).tiny
    return torch.where(flat, 0, along.square() / torch.where(flat, 1, variance)) * squared


def _count(k: Tensor, padding: Tensor | None) -> Tensor | int:
    """N, or `[b, 1, 1]` keys that are not padding, at least 1."""
    if padding is None:
        return k.shape[-2]
    return (~padding).sum(dim=-2, keepdim=True).clamp(min=1).to(wide_dtype(k.dtype))


def _mean(x: Tensor, count: Tensor | int) -> Tensor:
    """Over the keys, summed in float32 or wider: `[b, N, C]` -> `[b, 1, C]`."""
    return x.sum(dim=-2, keepdim=True, dtype=wide_dtype(x.dtype)) / count


def _centre(k: Tensor, mean: Tensor, padding: Tensor | None) -> Tensor:
    # Added, not subtracted: the gradient of k is then that of the result, without a pass to turn a sign.
    centred = (k + -mean).to(k.dtype)
    return centred if padding is None else centred.masked_fill(padding, 0)


def _merge_leading(x: Tensor, leading: torch.Size) -> Tensor:
    """`[..., N, C]` -> `[b, N, C]`."""
    return x.expand(*leading, *x.shape[-2:]).reshape(-1, *x.shape[-2:])
