"""In which precision sums over the keys are taken."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precision, else the dtype itself."""
    return torch.float32 if dtype in _HALF else dtype


def wide(x: Tensor) -> Tensor:
    """In float32 if `x` is in half precision, else as it is."""
    return x.float() if x.dtype in _HALF else x


def product_dtype(x: Tensor) -> torch.dtype:
    """What autocast would have a product of `x` computed in; its own dtype without autocast."""
    return torch.get_autocast_dtype(x.device.type) if _autocasts(x) and x.dtype != torch.float64 else x.dtype


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which products keep their dtype: autocast would take sums over N back to half precision."""
    return torch.autocast(x.device.type, enabled=False) if _autocasts(x) else nullcontext()


def _autocasts(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
