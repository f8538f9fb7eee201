"""Attention to similar sensors (arXiv 2301.07945, section "Spatial Self-Attention"): few, so looked up."""

import torch
from torch import Tensor


def semantic_attention(q: Tensor, kv: Tensor, similar: Tensor, n_heads: int) -> Tensor:
    """Softmax attention over the K similar sensors of each, for each step by itself; time linear in N.

    The numbers are those of attention over all sensors under a mask that shows these.

    Args:
        q: queries of all heads, `[B, L, N, n_heads C]`.
        kv: keys and values of all heads side by side, `[B, L, N, 2 n_heads C]`.
        similar: numbers of the sensors that the row's sensor sees, `[N, K]`.
        n_heads: heads, side by side in the last axis.

    Returns:
        `[B, L, N, n_heads C]`.
    """
    seen = kv.index_select(2, similar.flatten()).unflatten(2, similar.shape)
    k, v = seen.unflatten(-1, (2, n_heads, -1)).unbind(4)  # each [B, L, N, K, heads, C]
    queries = q.unflatten(-1, (n_heads, -1)) * k.shape[-1] ** -0.5
    weights = torch.softmax((queries.unsqueeze(3) * k).sum(dim=-1), dim=3)  # [B, L, N, K, heads]
    return (weights.unsqueeze(-1) * v).sum(dim=3).flatten(-2)
