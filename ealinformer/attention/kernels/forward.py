"""The forward passes: sums over the keys, then the output of every query."""
# mypy: allow-untyped-defs

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ealinformer.attention.kernels.launch import empty_rows, launch_over
from ealinformer.attention.kernels.tiles import (
    head_start,
    load_matrix,
    load_tile,
    product,
    store_matrix,
    store_tile,
    theta_root,
)


class KeySums(NamedTuple):
    """What the queries need to know of the keys and values of a head, in float32."""

    mean_k: Tensor  # [heads, 1, C]
    mean_v: Tensor  # [heads, 1, Cv]
    mixing: Tensor  # [heads, C, Cv], Khat^T V / N
    spread: Tensor | None  # [heads, C, C], Khat^T Khat / N, where theta is by query


class Theta(NamedTuple):
    """Scores of every query are multiplied by scale / theta, theta = max(1, sqrt(s / two_log_n)) + eps by query.

    Where theta is the same for all of them, `scale` is scale / theta and nothing else is used.
    """

    by_query: bool
    scale: float
    eps: float = 0.0
    two_log_n: float = 1.0


def key_sums(k: Tensor, v: Tensor, by_query: bool) -> KeySums:
    """`[B, heads, N, C]` and `[B, heads, N, Cv]` -> means and centred products, in one pass over both."""
    heads, num_keys, head_size = k.shape[1:]
    value_size = v.shape[-1]
    launch = launch_over(k, value_size, by_query)
    mean_k = launch.partial_sums(k.device, 1, head_size)
    mean_v = launch.partial_sums(k.device, 1, value_size)
    mixing = launch.partial_sums(k.device, head_size, value_size)
    spread = launch.partial_sums(k.device, head_size, head_size) if by_query else None
    _key_sums[launch.grid](
        *(k, v, mean_k, mean_v, mixing, spread),
        *(num_keys, launch.chunk, heads, *k.stride()[:3], *v.stride()[:3]),
        **launch.options,
    )
    return _joined(KeySums(mean_k, mean_v, mixing, spread), num_keys, launch.chunk)


def _joined(parts: KeySums, num_keys: int, chunk: int) -> KeySums:
    """The sums over all keys from those over `chunk` keys each, which have one dimension more."""
    mean_k, mean_v, mixing, spread = parts
    if mean_k.shape[1] == 1:
        return KeySums._make(None if x is None else x.squeeze(1) for x in parts)
    first = torch.arange(0, num_keys, chunk, device=mean_k.device)
    share = ((num_keys - first).clamp(max=chunk) / num_keys).view(-1, 1, 1)
    whole_k, whole_v = ((share * x).sum(1, keepdim=True) for x in (mean_k, mean_v))
    off_k, off_v = mean_k - whole_k, mean_v - whole_v
    weighted = (share * off_k).transpose(-2, -1)
    return KeySums(
        whole_k.squeeze(1),
        whole_v.squeeze(1),
        (mixing + weighted * off_v).sum(1),
        None if spread is None else (spread + weighted * off_k).sum(1),
    )


def attend(q: Tensor, sums: KeySums, theta: Theta) -> Tensor:
    """`[B, heads, Nq, C]` -> `[B, heads, Nq, Cv]` in one pass."""
    heads, num_queries = q.shape[1:3]
    value_size = sums.mean_v.shape[-1]
    out = empty_rows(q, value_size)
    launch = launch_over(q, value_size, theta.by_query)
    _attend[launch.grid](
        *(q, sums.mean_v, sums.mixing, sums.spread, out),
        *(num_queries, launch.chunk, theta.scale, theta.eps, theta.two_log_n, heads),
        *(*q.stride()[:3], *out.stride()[:3]),
        **launch.options,
    )
    return out


@triton.jit
def _key_sums(
    k,
    v,
    mean_k,
    mean_v,
    mixing,
    spread,
    num_keys,
    chunk,
    num_heads,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    C: tl.constexpr,
    CV: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_CV: tl.constexpr,
    BLOCK: tl.constexpr,
    BY_QUERY: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    k = head_start(k, num_heads, k_batch, k_head)
    v = head_start(v, num_heads, v_batch, v_head)
    first = tl.program_id(1) * chunk
    last = tl.minimum(first + chunk, num_keys)
    centre_k = tl.zeros((1, BLOCK_C), tl.float32)
    centre_v = tl.zeros((1, BLOCK_CV), tl.float32)
    mixed = tl.zeros((BLOCK_C, BLOCK_CV), tl.float32)
    spreads = tl.zeros((BLOCK_C, BLOCK_C), tl.float32)
    for start in range(first, last, BLOCK):
        rows = start + tl.arange(0, BLOCK)
        keys = load_tile(k, rows, k_row, num_keys, C, BLOCK_C)
        values = load_tile(v, rows, v_row, num_keys, CV, BLOCK_CV)
        before = (start - first).to(tl.float32)
        count = tl.minimum(num_keys - start, BLOCK).to(tl.float32)
        block_k = tl.sum(keys, 0, keep_dims=True) / count
        block_v = tl.sum(values, 0, keep_dims=True) / count
        inside = (rows < num_keys)[:, None]
        keys = tl.where(inside, keys - block_k, 0.0)
        values = tl.where(inside, values - block_v, 0.0)
        # Sums of two sets centred apart, joined (Chan, Golub and LeVeque, 1979): the offset of the keys, often much
        # larger than their differences, never enters a product.
        off_k, off_v = block_k - centre_k, block_v - centre_v
        share = count / (before + count)
        joint = tl.trans(off_k) * (before * share)
        mixed += product(tl.trans(keys), values, DTYPE, PRECISION) + joint * off_v
        if BY_QUERY:
            spreads += product(tl.trans(keys), keys, DTYPE, PRECISION) + joint * off_k
        centre_k += off_k * share
        centre_v += off_v * share
    part = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    store_matrix(mean_k, centre_k, part, 1, C, 1, BLOCK_C)
    store_matrix(mean_v, centre_v, part, 1, CV, 1, BLOCK_CV)
    store_matrix(mixing, mixed / num_keys, part, C, CV, BLOCK_C, BLOCK_CV)
    if BY_QUERY:
        store_matrix(spread, spreads / num_keys, part, C, C, BLOCK_C, BLOCK_C)


@triton.jit
def _attend(
    q,
    mean_v,
    mixing,
    spread,
    out,
    num_queries,
    chunk,
    scale,
    eps,
    two_log_n,
    num_heads,
    q_batch,
    q_head,
    q_row,
    out_batch,
    out_head,
    out_row,
    C: tl.constexpr,
    CV: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_CV: tl.constexpr,
    BLOCK: tl.constexpr,
    BY_QUERY: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    head = tl.program_id(0).to(tl.int64)
    q = head_start(q, num_heads, q_batch, q_head)
    out = head_start(out, num_heads, out_batch, out_head)
    mean = load_matrix(mean_v, head, 1, CV, 1, BLOCK_CV)
    first = tl.program_id(1) * chunk
    for start in range(first, tl.minimum(first + chunk, num_queries), BLOCK):
        rows = start + tl.arange(0, BLOCK)
        queries = load_tile(q, rows, q_row, num_queries, C, BLOCK_C)
        # Read in every round, from a cache: kept in registers, factors of a product push everything else out.
        mixed = load_matrix(mixing, head, C, CV, BLOCK_C, BLOCK_CV)
        factor = scale
        if BY_QUERY:
            spreads = load_matrix(spread, head, C, C, BLOCK_C, BLOCK_C)
            _, root = theta_root(queries, spreads, scale, two_log_n, DTYPE, PRECISION)
            factor = scale / (root + eps)
        tile = mean + product(queries, mixed, DTYPE, PRECISION) * factor
        if out.dtype.element_ty == tl.float16:  # saturates, and NaN stays
            tile = tl.where(tile > 65504.0, 65504.0, tl.where(tile < -65504.0, -65504.0, tile))
        store_tile(out, tile, rows, out_row, num_queries, CV, BLOCK_CV)
