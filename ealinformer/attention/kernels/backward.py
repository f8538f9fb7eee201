"""The backward passes: the queries with the gradients of the sums, then the keys and values."""
# mypy: allow-untyped-defs

import triton
import triton.language as tl
from torch import Tensor

from ealinformer.attention.kernels.forward import KeySums, Theta
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


def query_gradients(q: Tensor, grad: Tensor, sums: KeySums, theta: Theta) -> tuple[Tensor, KeySums]:
    """Of the output's gradient `[B, heads, Nq, Cv]` those of q and of the sums, in one pass over q and it.

    The mean of the keys has none of its own: it acts through the centred keys alone.
    """
    heads, num_queries, head_size = q.shape[1:]
    value_size = grad.shape[-1]
    launch = launch_over(q, value_size, theta.by_query)
    grad_q = empty_rows(q, head_size)
    mean_v = launch.partial_sums(q.device, 1, value_size)
    mixing = launch.partial_sums(q.device, head_size, value_size)
    spread = launch.partial_sums(q.device, head_size, head_size) if theta.by_query else None
    _query_gradients[launch.grid](
        *(q, grad, sums.mixing, sums.spread, grad_q, mean_v, mixing, spread),
        *(num_queries, launch.chunk, theta.scale, theta.eps, theta.two_log_n, heads),
        *(*q.stride()[:3], *grad.stride()[:3], *grad_q.stride()[:3]),
        **launch.options,
    )
    return grad_q, KeySums(sums.mean_k, mean_v.sum(1), mixing.sum(1), None if spread is None else spread.sum(1))


def key_gradients(k: Tensor, v: Tensor, sums: KeySums, grads: KeySums) -> tuple[Tensor, Tensor]:
    """Those of k and v from those of the sums, in one pass over both.

    With khat, vhat the centred rows: dk = (vhat dM^T + 2 khat dG) / N and dv = (khat dM + dmean) / N for the mixing M
    and the spread G. Both khat and vhat sum to 0, so the centring of k takes nothing away.
    """
    heads, num_keys, head_size = k.shape[1:]
    value_size = v.shape[-1]
    launch = launch_over(k, value_size, grads.spread is not None)
    grad_k, grad_v = empty_rows(k, head_size), empty_rows(v, value_size)
    _key_gradients[launch.grid](
        *(k, v, sums.mean_k, sums.mean_v, grads.mean_v, grads.mixing, grads.spread, grad_k, grad_v),
        *(num_keys, launch.chunk, heads, *k.stride()[:3], *v.stride()[:3], *grad_k.stride()[:3], *grad_v.stride()[:3]),
        **launch.options,
    )
    return grad_k, grad_v


@triton.jit
def _query_gradients(
    q,
    grad,
    mixing,
    spread,
    grad_q,
    grad_mean_v,
    grad_mixing,
    grad_spread,
    num_queries,
    chunk,
    scale,
    eps,
    two_log_n,
    num_heads,
    q_batch,
    q_head,
    q_row,
    grad_batch,
    grad_head,
    grad_row,
    dq_batch,
    dq_head,
    dq_row,
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
    grad = head_start(grad, num_heads, grad_batch, grad_head)
    grad_q = head_start(grad_q, num_heads, dq_batch, dq_head)
    d_mean = tl.zeros((1, BLOCK_CV), tl.float32)
    d_mixed = tl.zeros((BLOCK_C, BLOCK_CV), tl.float32)
    d_spreads = tl.zeros((BLOCK_C, BLOCK_C), tl.float32)
    first = tl.program_id(1) * chunk
    for start in range(first, tl.minimum(first + chunk, num_queries), BLOCK):
        rows = start + tl.arange(0, BLOCK)
        queries = load_tile(q, rows, q_row, num_queries, C, BLOCK_C)
        d_out = load_tile(grad, rows, grad_row, num_queries, CV, BLOCK_CV)
        mixed = load_matrix(mixing, head, C, CV, BLOCK_C, BLOCK_CV)  # in every round, as in the forward pass
        along = product(d_out, tl.trans(mixed), DTYPE, PRECISION)
        if BY_QUERY:
            spreads = load_matrix(spread, head, C, C, BLOCK_C, BLOCK_C)
            scored, root = theta_root(queries, spreads, scale, two_log_n, DTYPE, PRECISION)
            theta = root + eps
            d_theta = tl.sum(along * queries, 1, keep_dims=True) * (-scale / (theta * theta))
            # root^2 = scale^2 q G q / (2 log N) where that is above 1, and constant where it is not
            pull = tl.where(root > 1.0, d_theta * (scale * scale) / (2.0 * two_log_n * root), 0.0)
            d_spreads += product(tl.trans(queries * pull), queries, DTYPE, PRECISION)
            scaled = queries * (scale / theta)
            d_queries = along * (scale / theta) + scored * (2.0 * pull)
        else:
            scaled = queries * scale
            d_queries = along * scale
        store_tile(grad_q, d_queries, rows, dq_row, num_queries, C, BLOCK_C)
        d_mixed += product(tl.trans(scaled), d_out, DTYPE, PRECISION)
        d_mean += tl.sum(d_out, 0, keep_dims=True)
    part = head * tl.num_programs(1) + tl.program_id(1)
    store_matrix(grad_mean_v, d_mean, part, 1, CV, 1, BLOCK_CV)
    store_matrix(grad_mixing, d_mixed, part, C, CV, BLOCK_C, BLOCK_CV)
    if BY_QUERY:
        store_matrix(grad_spread, d_spreads, part, C, C, BLOCK_C, BLOCK_C)


@triton.jit
def _key_gradients(
    k,
    v,
    mean_k,
    mean_v,
    grad_mean_v,
    grad_mixing,
    grad_spread,
    grad_k,
    grad_v,
    num_keys,
    chunk,
    num_heads,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    dk_batch,
    dk_head,
    dk_row,
    dv_batch,
    dv_head,
    dv_row,
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
    k = head_start(k, num_heads, k_batch, k_head)
    v = head_start(v, num_heads, v_batch, v_head)
    grad_k = head_start(grad_k, num_heads, dk_batch, dk_head)
    grad_v = head_start(grad_v, num_heads, dv_batch, dv_head)
    centre_k = load_matrix(mean_k, head, 1, C, 1, BLOCK_C)
    centre_v = load_matrix(mean_v, head, 1, CV, 1, BLOCK_CV)
    d_mean = load_matrix(grad_mean_v, head, 1, CV, 1, BLOCK_CV)
    first = tl.program_id(1) * chunk
    for start in range(first, tl.minimum(first + chunk, num_keys), BLOCK):
        rows = start + tl.arange(0, BLOCK)
        keys = load_tile(k, rows, k_row, num_keys, C, BLOCK_C) - centre_k
        values = load_tile(v, rows, v_row, num_keys, CV, BLOCK_CV) - centre_v
        d_mixed = load_matrix(grad_mixing, head, C, CV, BLOCK_C, BLOCK_CV)
        d_keys = product(values, tl.trans(d_mixed), DTYPE, PRECISION)
        if BY_QUERY:
            d_spreads = load_matrix(grad_spread, head, C, C, BLOCK_C, BLOCK_C)
            d_keys += 2.0 * product(keys, d_spreads, DTYPE, PRECISION)
        d_values = product(keys, d_mixed, DTYPE, PRECISION) + d_mean
        store_tile(grad_k, d_keys / num_keys, rows, dk_row, num_keys, C, BLOCK_C)
        store_tile(grad_v, d_values / num_keys, rows, dv_row, num_keys, CV, BLOCK_CV)
