"""Softmax attention, the quadratic baseline, written out and through torch's fused kernels."""

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(C)) v with its N x N weights in memory (arXiv 1706.03762, equation 1).

    Args:
        q: queries `[..., Nq, C]`.
        k: keys `[..., N, C]`.
        v: values `[..., N, Cv]`.

    Returns:
        `[..., Nq, Cv]`.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return torch.softmax(scores, dim=-1) @ v


def fused_softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same numbers as `softmax_attention` through `scaled_dot_product_attention`, which keeps no N x N weights."""
    return F.scaled_dot_product_attention(q, k, v)
