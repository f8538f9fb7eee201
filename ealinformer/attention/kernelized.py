"""Attention whose weights are a product of positive features, in time linear in the number of keys."""

import torch
from torch import Tensor

from ealinformer.attention.checks import check_inputs, check_scale
from ealinformer.attention.padding import zero_padding
from ealinformer.attention.precision import wide, without_autocast
from ealinformer.attention.prefix import prefix_product


def elu_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    key_padding_mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """sum_j w_ij v_j / sum_j w_ij with w_ij = phi(q_i) . phi(k_j) and phi(x) = elu(x) + 1 (arXiv 2006.16236, eq. 4-7).

    Sums are taken in float32 for half precision, under autocast too.

    Args:
        q: queries `[..., Nq, C]`.
        k: keys `[..., N, C]`.
        v: values `[..., N, Cv]`.
        key_padding_mask: bool `[..., N]`, True where a key is padding. A query that sees no key gives 0.
        causal: query i sees the keys up to i only, still in linear time.
        scale: of the queries, before the features are taken; 1 when None, as in the paper. A factor of the weights
            themselves would cancel.

    Returns:
        `[..., Nq, Cv]`, in the dtype of the inputs. A query whose weights all underflow gives 0.

    Raises:
        ValueError: shapes, dtypes, the mask or the scale do not fit.
    """
    check_inputs(q, k, v, key_padding_mask, causal)
    scale = 1.0 if scale is None else check_scale(scale, q.shape[-1])
    with without_autocast(q):
        keys = wide(zero_padding(k, key_padding_mask))
        # Once more after the map, since phi(0) = 1.
        k_features = zero_padding(_elu_features(keys), key_padding_mask)
        values = wide(zero_padding(v, key_padding_mask))
        return feature_attention(_elu_features(wide(q) * scale), k_features, values, causal=causal).to(q.dtype)


def feature_attention(q_features: Tensor, k_features: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """The mean of v under the weights q_features_i . k_features_j, none of which is negative.

    Args:
        q_features: `[..., Nq, F]`.
        k_features: `[..., N, F]`, 0 at padding.
        v: `[..., N, Cv]`, 0 at padding.
        causal: query i sees the keys up to i only.

    Returns:
        `[..., Nq, Cv]`; 0 where the weights sum to 0.
    """
    if causal:
        return weighted_mean(prefix_product(q_features, k_features, with_ones(v)))
    total = q_features @ k_features.sum(dim=-2).unsqueeze(-1)
    return divide(q_features @ (k_features.transpose(-2, -1) @ v), total)


def with_ones(v: Tensor) -> Tensor:
    """`[..., N, Cv]` and a last channel of ones, whose weighted sum is the sum of the weights."""
    return torch.cat([v, v.new_ones(*v.shape[:-1], 1)], dim=-1)


def weighted_mean(sums: Tensor) -> Tensor:
    """`[..., Nq, Cv + 1]`, weighted sums of what `with_ones` gives, -> `[..., Nq, Cv]`."""
    return divide(sums[..., :-1], sums[..., -1:])


def divide(sums: Tensor, total: Tensor) -> Tensor:
    """sums / total; where the total is so small that gradients of the quotient may overflow, the sums, as good as 0."""
    return sums / torch.where(total > torch.finfo(total.dtype).tiny ** 0.75, total, 1)


def _elu_features(x: Tensor) -> Tensor:
    # elu(x) + 1 as such rounds to 0 below -17 in float32; this is exact down to the smallest number.
    return x.clamp(max=0).exp() + x.relu()
