"""What numbers a run computes with: how they are stored, and what is rounded to fewer digits on the way.

| dtype | weights, gradients, optimizer, loss, metrics | products |
|---|---|---|
| float32 | float32 | float32 |
| tf32 | float32 | TF32: 10 bits of mantissa, on CUDA devices from compute capability 8.0 on |
| bf16 | float32 | bfloat16: 7 bits of mantissa, by autocast around the forward pass, in training and in scoring |
| float64 | float64 | float64 |

bfloat16 has the range of float32, so that no loss has to be scaled.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from ealinformer.errors import InputError

_FIRST_WITH_TF32 = (8, 0)


def stored_dtype(dtype: str) -> torch.dtype:
    """What weights, gradients, losses and forecasts are stored in."""
    return torch.float64 if dtype == "float64" else torch.float32


def autocast(dtype: str, device: torch.device) -> AbstractContextManager[None]:
    """Within the block products are taken in bfloat16 where `dtype` says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16")


@contextmanager
def matmul_precision(dtype: str) -> Iterator[None]:
    """Within the block float32 products may use TF32, or may not; after it as before, as torch has it by process."""
    flags = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [flag.allow_tf32 for flag in flags]
    _allow_tf32(dtype == "tf32", dtype == "tf32")
    try:
        yield
    finally:
        _allow_tf32(*before)


def check_dtype(dtype: str, *, cuda: bool) -> str | None:
    """What to warn of where `dtype` works but cannot pay on this machine; None where there is nothing to say.

    Raises:
        InputError: it is TF32, which no device here has. Float32 in its place would be another run than was asked for.
    """
    if dtype == "tf32":
        if not cuda:
            raise InputError("dtype=tf32: only CUDA devices have TF32, and none is chosen: dtype=float32 is expected")
        if torch.cuda.get_device_capability() < _FIRST_WITH_TF32:
            raise InputError(f"dtype=tf32: {torch.cuda.get_device_name()} has no TF32: dtype=float32 is expected")
    if dtype == "bf16" and not (_cuda_has_bfloat16() if cuda else _processor_has_bfloat16()):
        return "dtype=bf16: there are no bfloat16 instructions here, which makes it slower than float32"
    return None


def _allow_tf32(in_products: bool, in_convolutions: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = in_products
    torch.backends.cudnn.allow_tf32 = in_convolutions


def _cuda_has_bfloat16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)


def _processor_has_bfloat16() -> bool:
    """Of x86 avx512_bf16 or amx_bf16, of Arm bf16; True where torch, older than 2.10, does not say."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return not capabilities or any(value for name, value in capabilities.items() if name.endswith("bf16"))
