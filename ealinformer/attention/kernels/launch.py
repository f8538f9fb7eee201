"""How the kernels are launched: rows shared out over programs, and what is fixed when a kernel is compiled."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ealinformer.attention.kernels.tiles import product

PROGRAMS = 512  # of a launch, about: where there are fewer heads, several programs share the rows of one
# Rows that a program takes at a time. Exact float32 products use no tensor cores and hold whole factors in registers:
# with more rows the compiler spills them.
BLOCK, BLOCK_EXACT = 32, 16


@dataclass(frozen=True)
class Launch:
    """A launch over the rows of all heads."""

    grid: tuple[int, int]  # heads, programs that share the rows of one
    chunk: int  # rows of a program
    options: dict[str, Any]  # what a kernel is compiled for

    def partial_sums(self, device: torch.device, *shape: int) -> Tensor:
        """`[heads, programs, *shape]` in float32, uninitialized."""
        return torch.empty(*self.grid, *shape, dtype=torch.float32, device=device)


def launch_over(x: Tensor, value_size: int, by_query: bool) -> Launch:
    """For a kernel over queries or keys `[B, heads, rows, C]` with values of Cv channels."""
    batch, heads, rows, head_size = x.shape
    # TF32 has the digits of float16 and the range of float32.
    exact = x.dtype == torch.float32 and not _tf32_is_allowed()
    block = BLOCK_EXACT if exact else BLOCK
    blocks = triton.cdiv(rows, block)
    chunk = triton.cdiv(blocks, min(blocks, max(1, PROGRAMS // (batch * heads)))) * block
    # The interpreter cuts bfloat16 off where a GPU rounds, which is no test of anything.
    short = x.dtype == torch.bfloat16 and not interpreted()
    return Launch(
        grid=(batch * heads, triton.cdiv(rows, chunk)),
        chunk=chunk,
        options={
            "C": head_size,
            "CV": value_size,
            "BLOCK_C": max(16, triton.next_power_of_2(head_size)),
            "BLOCK_CV": max(16, triton.next_power_of_2(value_size)),
            "BLOCK": block,
            "BY_QUERY": by_query,
            "DTYPE": tl.bfloat16 if short else tl.float32,
            "PRECISION": "ieee" if exact else "tf32",
            "num_warps": 8,
            "num_stages": 2,
        },
    )


def empty_rows(like: Tensor, width: int) -> Tensor:
    """`[B, heads, N, width]`, uninitialized, with the heads within the rows if they are so in `like`."""
    batch, heads, rows, _ = like.shape
    if like.stride(1) < like.stride(2):
        return like.new_empty(batch, rows, heads, width).transpose(1, 2)
    return like.new_empty(batch, heads, rows, width)


def interpreted() -> bool:
    """Whether Triton runs kernels on the CPU, as it does where TRITON_INTERPRET=1 was set at their import."""
    return not isinstance(product, triton.JITFunction)


def _tf32_is_allowed() -> bool:
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # torch 2.9; from there on the older name may raise
        return matmul.fp32_precision == "tf32"
    return matmul.allow_tf32
