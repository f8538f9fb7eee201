"""Attention along the steps of a sensor (arXiv 2301.07945, section "Temporal Self-Attention")."""

import torch.nn.functional as F
from torch import Tensor


def temporal_attention(qkv: Tensor, n_heads: int) -> Tensor:
    """Softmax attention over the steps, for each sensor by itself.

    Args:
        qkv: queries, keys and values of all heads side by side, `[B, L, N, 3 n_heads C]`.
        n_heads: heads, side by side in each of the three.

    Returns:
        `[B, L, N, n_heads C]`.
    """
    batch, _, sensors, _ = qkv.shape
    rows = qkv.transpose(1, 2).flatten(0, 1)  # [B N, L, .]
    q, k, v = rows.unflatten(-1, (3, n_heads, -1)).permute(2, 0, 3, 1, 4)  # each [B N, heads, L, C]
    mixed = F.scaled_dot_product_attention(q, k, v)
    return mixed.transpose(1, 2).flatten(2).unflatten(0, (batch, sensors)).transpose(1, 2)
