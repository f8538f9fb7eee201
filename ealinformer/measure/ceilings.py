"""What the machine can do at best, measured: a large matrix product and a large copy."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ealinformer.measure.timing import stopwatch

# A size is doubled until a pass takes so long: then it is large enough for the device, whatever that is.
GEMM_SECONDS, GEMM_SIDES = 0.05, (512, 16384)
COPY_SECONDS, COPY_BYTES = 0.02, (2**26, 2**31)
BEST_OF = 7

DTYPES = ("float32", "tf32", "bf16")


@dataclass(frozen=True)
class Ceilings:
    """Operations a second of a `gemm_side`^3 product in a dtype, and bytes a second (read and written) of a copy."""

    dtype: str
    flops_per_second: float
    bytes_per_second: float
    gemm_side: int
    copy_bytes: int


def measure_ceilings(device: str, dtype: str, threads: int) -> Ceilings:
    """Both ceilings of this process's device, the best of several passes each; sets torch's threads and TF32.

    Args:
        device: cpu or cuda.
        dtype: one of `DTYPES`, that of the product; the copy is of float32, whose elements are the most common.
        threads: of the CPU.
    """
    torch.set_num_threads(threads)
    allow_tf32(dtype)
    flops, side = _best(device, lambda size: _gemm(size, device, dtype), *GEMM_SIDES, GEMM_SECONDS)
    rate, size = _best(device, lambda size: _copy(size, device), *COPY_BYTES, COPY_SECONDS)
    return Ceilings(dtype, flops, rate, side, size)


def allow_tf32(dtype: str) -> None:
    """Let float32 products on CUDA use TF32 in this process, or not."""
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"


def _best(
    device: str, make: Callable[[int], tuple[Callable[[], object], float]], smallest: int, largest: int, seconds: float
) -> tuple[float, int]:
    """The most units of work a second, at the first size that takes `seconds`, and that size."""
    clock, size = stopwatch(device), smallest
    while True:
        work, units = make(size)
        clock(work, 1)
        if size >= largest or clock(work, 1) >= seconds:
            return units / min(clock(work, 1) for _ in range(BEST_OF)), size
        size *= 2


def _gemm(side: int, device: str, dtype: str) -> tuple[Callable[[], object], float]:
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    out = torch.empty(side, side, device=device, dtype=kind)
    return lambda: torch.mm(a, b, out=out), 2.0 * side**3


def _copy(size: int, device: str) -> tuple[Callable[[], object], float]:
    source, target = (torch.ones(size // 4, device=device) for _ in range(2))
    return lambda: target.copy_(source), 2.0 * size
