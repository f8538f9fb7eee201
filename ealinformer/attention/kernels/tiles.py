"""What the kernels share: tiles of rows of a head, small matrices of a head, products."""
# mypy: allow-untyped-defs

import triton
import triton.language as tl


@triton.jit
def head_start(pointer, num_heads, batch_stride, head_stride):
    """The first entry of this program's head, in 64 bits: a tensor may have more than 2^31 entries."""
    head = tl.program_id(0).to(tl.int64)
    return pointer + head // num_heads * batch_stride + head % num_heads * head_stride


@triton.jit
def _places(pointer, rows, stride, num_rows, WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    columns = tl.arange(0, BLOCK_WIDTH)
    inside = (rows < num_rows)[:, None] & (columns < WIDTH)[None, :]
    return pointer + rows.to(tl.int64)[:, None] * stride + columns[None, :], inside


@triton.jit
def load_tile(pointer, rows, stride, num_rows, WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    """`[rows, BLOCK_WIDTH]` in float32, 0 beyond the tensor."""
    places, inside = _places(pointer, rows, stride, num_rows, WIDTH, BLOCK_WIDTH)
    return tl.load(places, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_tile(pointer, tile, rows, stride, num_rows, WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    """Write what lies within the tensor."""
    places, inside = _places(pointer, rows, stride, num_rows, WIDTH, BLOCK_WIDTH)
    tl.store(places, tile.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def load_matrix(
    pointer, index, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr
):
    """One of contiguous matrices `[*, HEIGHT, WIDTH]`, padded with 0."""
    return load_tile(pointer + index * HEIGHT * WIDTH, tl.arange(0, BLOCK_H), WIDTH, HEIGHT, WIDTH, BLOCK_W)


@triton.jit
def store_matrix(
    pointer, matrix, index, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr
):
    """Its counterpart."""
    store_tile(pointer + index * HEIGHT * WIDTH, matrix, tl.arange(0, BLOCK_H), WIDTH, HEIGHT, WIDTH, BLOCK_W)


@triton.jit
def product(a, b, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """`a @ b` of factors rounded to DTYPE, summed in float32."""
    return tl.dot(a.to(DTYPE), b.to(DTYPE), input_precision=PRECISION)


@triton.jit
def theta_root(q, spread, scale, two_log_n, DTYPE: tl.constexpr, PRECISION: tl.constexpr):
    """`gaussian` without its eps: q Khat^T Khat / N `[rows, C]`, and max(1, sqrt(s / (2 log N))) `[rows, 1]`."""
    scored = product(q, spread, DTYPE, PRECISION)
    variance = tl.maximum(tl.sum(scored * q, 1, keep_dims=True), 0.0) * (scale * scale)
    return scored, tl.sqrt(tl.maximum(variance / two_log_n, 1.0))
