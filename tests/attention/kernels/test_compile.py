"""The kernels compile to machine code for NVIDIA GPUs, which takes none: a program fits, and spills next to nothing."""

import re
import subprocess

import pytest
import torch

pytest.importorskip("triton.knobs", reason="no triton of version 3.4 or later; make test-kernels has one")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ealinformer.attention.kernels import backward, forward
from ealinformer.attention.kernels.launch import interpreted, launch_over

pytestmark = pytest.mark.skipif(interpreted(), reason="the interpreter compiles nothing")

KERNELS = (forward._key_sums, forward._attend, backward._query_gradients, backward._key_gradients)
TENSORS = {"q", "k", "v", "out", "grad", "grad_q", "grad_k", "grad_v"}
SUMS = {"mean_k", "mean_v", "mixing", "spread", "grad_mean_v", "grad_mixing", "grad_spread"}
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
SMALLEST_SHARED = 99 * 1024  # bytes that a program may have on GPUs of compute capability 8.0 and above, 8.6 the least
SPILLED = 256  # bytes of a thread, of which 255 registers hold 1,020


def compiled(kernel, x, by_query, capability):
    launch = launch_over(x, x.shape[-1], by_query)
    constants = {name: launch.options[name] for name in kernel.arg_names if name in launch.options}
    signature = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(("scale", "eps", "two_log_n"), "fp32")
    signature |= dict.fromkeys(TENSORS, POINTERS[x.dtype]) | dict.fromkeys(SUMS, "*fp32")
    if not by_query:
        constants |= {name: None for name in ("spread", "grad_spread") if name in kernel.arg_names}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, {name: signature[name] for name in kernel.arg_names}, constants)
    settings = {name: launch.options[name] for name in ("num_warps", "num_stages")}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=settings)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("by_query", [False, True])
@pytest.mark.parametrize("dtype", POINTERS, ids=str)
@pytest.mark.parametrize("head_size", [8, 38, 64])
def test_a_program_fits_and_spills_next_to_nothing(tmp_path, dtype, by_query, capability, head_size):
    x = torch.empty(2, 4, 1000, head_size, dtype=dtype)
    for kernel in KERNELS:
        made = compiled(kernel, x, by_query, capability)
        assert made.metadata.shared <= SMALLEST_SHARED
        cubin = tmp_path / "kernel.cubin"
        cubin.write_bytes(made.asm["cubin"])
        command = (triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(cubin))
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert int(re.search(r"STACK:(\d+)", said)[1]) <= SPILLED
