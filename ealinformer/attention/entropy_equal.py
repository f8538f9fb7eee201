"""Entropy-equal linear attention (EALA), arXiv 2511.03190, Algorithm 1."""

from typing import Literal

import torch
from torch import Tensor

from ealinformer.attention.entropy import CONSTANT_THETA, ENTROPIES, THETA_ESTIMATORS

Branch = Literal["auto", "linear", "quadratic"]


def entropy_equal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    entropy: str = "taylor",
    eps: float = 1e-8,
    scale: float | None = None,
    branch: Branch = "auto",
) -> Tensor:
    """Attention whose weights are linear in the scores and have the entropy that softmax would have had.

    With scores xhat_j = scale * q . (k_j - mean(k)), the weights are (1 + xhat_j / theta) / N: they sum to 1 and may
    be negative. The output is mean(v) + scale * q (Khat^T V) / (N theta).

    Args:
        q: queries `[..., Nq, C]`.
        k: keys `[..., N, C]`.
        v: values `[..., N, Cv]`.
        entropy: estimator of softmax's entropy. `"taylor"` is the paper's closed form with its signs corrected: theta
            is then 1 / sqrt(2) for every query. `"gaussian"` follows the entropy of each query.
        eps: added to theta, as in the paper; a large one flattens the weights.
        scale: of the scores; 1 / sqrt(C) when None.
        branch: `"linear"` costs O(N C^2), `"quadratic"` O(N^2 C), for the same numbers. `"auto"` takes the quadratic
            one where C > N, as Algorithm 1 does.

    Returns:
        `[..., Nq, Cv]`, in the dtype of the inputs.

    Raises:
        ValueError: shapes do not fit, there is no key, or a name is not known.
    """
    _check(q, k, v, entropy, branch)
    num_keys, head_size = k.shape[-2:]
    if scale is None:
        scale = head_size**-0.5
    # Centring before the products, not after: the mean is often much larger than the differences.
    k = k - k.mean(dim=-2, keepdim=True)
    if branch == "quadratic" or (branch == "auto" and head_size > num_keys):
        return _quadratic(q * scale, k, v, entropy, eps)
    return _linear(q * scale, k, v, entropy, eps)


def _quadratic(q: Tensor, k: Tensor, v: Tensor, entropy: str, eps: float) -> Tensor:
    num_keys = k.shape[-2]
    scores = q @ k.transpose(-2, -1)
    theta: Tensor | float
    if entropy in CONSTANT_THETA:
        theta = CONSTANT_THETA[entropy] + eps
    else:
        variance = scores.to(_accumulation_dtype(scores)).square().mean(dim=-1, keepdim=True)
        theta = (THETA_ESTIMATORS[entropy](variance, num_keys) + eps).to(scores.dtype)
    return ((1 + scores / theta) / num_keys) @ v


def _linear(q: Tensor, k: Tensor, v: Tensor, entropy: str, eps: float) -> Tensor:
    num_keys = k.shape[-2]
    keys = k.transpose(-2, -1) / num_keys  # 1 / N here keeps the sums over N in the range of half precision
    theta: Tensor | float
    if entropy in CONSTANT_THETA:
        theta = CONSTANT_THETA[entropy] + eps
    else:
        wide = _accumulation_dtype(q)
        variance = ((q @ (keys @ k)).to(wide) * q.to(wide)).sum(dim=-1, keepdim=True)
        theta = (THETA_ESTIMATORS[entropy](variance, num_keys) + eps).to(q.dtype)
    return v.mean(dim=-2, keepdim=True) + (q / theta) @ (keys @ v)


def _accumulation_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def _check(q: Tensor, k: Tensor, v: Tensor, entropy: str, branch: str) -> None:
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(
            "q [..., Nq, C], k [..., N, C] and v [..., N, Cv] are expected, "
            f"got q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        )
    if k.shape[-2] == 0:
        raise ValueError(f"attention needs at least one key, got k {tuple(k.shape)}")
    if entropy not in ENTROPIES:
        raise ValueError(f"entropy is one of {', '.join(ENTROPIES)}, got {entropy!r}")
    if branch not in ("auto", "linear", "quadratic"):
        raise ValueError(f"branch is one of auto, linear, quadratic, got {branch!r}")
