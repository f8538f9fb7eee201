"""No attention at all: the floor that the time of any attention is compared with."""

import torch
from torch import Tensor

from ealinformer.attention.checks import check_inputs, check_scale
from ealinformer.attention.padding import zero_padding


def identity_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    key_padding_mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """v: each query sees the key of its own position and no other, so the weights are the identity matrix.

    Queries, keys and scale have no influence, and q and k get no gradient: the backward pass through whatever made them
    is saved too. A padding position sees no key, so it gives 0, as with any attention here; causal changes nothing.

    Args:
        q: queries `[..., N, C]`.
        k: keys `[..., N, C]`.
        v: values `[..., N, Cv]`.
        key_padding_mask: bool `[..., N]`, True where a key is padding.
        causal: checked, without effect.
        scale: checked, without effect.

    Returns:
        `[..., N, Cv]`: v, broadcast to the leading dimensions of q and k, and 0 at padding.

    Raises:
        ValueError: there are not as many queries as keys, or shapes, dtypes, the mask or the scale do not fit.
    """
    check_inputs(q, k, v, key_padding_mask, causal)
    check_scale(scale, q.shape[-1])
    if q.shape[-2] != k.shape[-2]:
        raise ValueError(
            f"identity attention needs as many queries as keys, got q {tuple(q.shape)} and k {tuple(k.shape)}"
        )
    leading = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    return zero_padding(v, key_padding_mask).expand(*leading, *v.shape[-2:])
