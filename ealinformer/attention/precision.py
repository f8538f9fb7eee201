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


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which products keep their dtype: autocast would take sums over N back to half precision."""
    kind = x.device.type
    active = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if active else nullcontext()
