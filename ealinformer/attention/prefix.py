"""Sums over all keys up to each query in linear time: what causal linear attentions are made of."""

import torch.nn.functional as F
from torch import Tensor

# Keys handled together. Within a chunk the scores are written out (T x T), between chunks a C x Cv state is carried;
# 64 balances the two for head sizes of 16 to 128.
CHUNK = 64


def prefix_product(q: Tensor, k: Tensor, v: Tensor, chunk: int = CHUNK) -> Tensor:
    """out_i = sum over j <= i of (q_i . k_j) v_j, without an N x N matrix and without a loop over N.

    The chunked form of causal linear attention: exclusive running sums of K^T V over chunks, plus the masked scores
    within each chunk. Costs O(N C (T + Cv)) time and O(N (T + C Cv / T)) memory for chunks of T keys.

    Args:
        q: `[..., N, C]`.
        k: `[..., N, C]`.
        v: `[..., N, Cv]`.
        chunk: keys in a chunk, T.

    Returns:
        `[..., N, Cv]`.
    """
    length = q.shape[-2]
    if length <= chunk:
        return (q @ k.transpose(-2, -1)).tril() @ v
    chunks = (length + chunk - 1) // chunk
    padding = chunks * chunk - length
    q, k, v = (F.pad(x, (0, 0, 0, padding)).unflatten(-2, (chunks, chunk)) for x in (q, k, v))
    sums = k.transpose(-2, -1) @ v  # [..., chunks, C, Cv]
    before = F.pad(sums.cumsum(dim=-3)[..., :-1, :, :], (0, 0, 0, 0, 1, 0))
    out = q @ before + (q @ k.transpose(-2, -1)).tril() @ v
    return out.flatten(-3, -2)[..., :length, :]
