"""Attention to near sensors (arXiv 2301.07945, section "Spatial Self-Attention"): many are near, so through a mask."""

import torch.nn.functional as F
from torch import Tensor


def geographic_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, n_heads: int) -> Tensor:
    """Softmax attention over the sensors that the mask shows, for each step by itself.

    Args:
        q: queries of all heads, `[B, L, N, n_heads C]`; the others alike.
        k: keys.
        v: values.
        visible: bool `[N, N]`, True where the row's sensor sees the column's; no row is empty.
        n_heads: heads, side by side in the last axis.
    """

    def heads(x: Tensor) -> Tensor:
        return x.flatten(0, 1).unflatten(-1, (n_heads, -1)).transpose(1, 2)  # [B L, heads, N, C]

    mixed = F.scaled_dot_product_attention(heads(q), heads(k), heads(v), attn_mask=visible)
    return mixed.transpose(1, 2).flatten(2).unflatten(0, q.shape[:2])
