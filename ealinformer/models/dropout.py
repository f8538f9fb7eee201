"""Dropout masks, drawn faster than torch draws them on the CPU, and kept in a bit an entry there."""

import numpy as np
import torch
from torch import Tensor

_LEVELS = 1 << 16


def draw_kept(x: Tensor, p: float) -> Tensor:
    """uint8 in the shape of `x`: 0 with probability p, else 1.

    From torch's generator of the device. On the CPU, where that is a third of a train step's elementwise work, one
    64-bit number serves four entries, and p is rounded to a multiple of 2^-16.
    """
    if x.device.type != "cpu":
        return torch.empty(x.shape, dtype=torch.uint8, device=x.device).bernoulli_(1 - p)
    count = x.numel()
    lanes = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    dropped = round(p * _LEVELS) - _LEVELS // 2  # of the int16, those below
    return (lanes[:count] >= dropped).view(torch.uint8).view(x.shape)


def packed(kept: Tensor) -> Tensor:
    """A mask as it is kept for the backward pass: on the CPU eight entries a byte, `[-]`."""
    if kept.device.type != "cpu" or torch.compiler.is_compiling():
        return kept
    return torch.from_numpy(np.packbits(kept.numpy()))


def unpacked(kept: Tensor, shape: torch.Size) -> Tensor:
    """The mask that `packed` made this of, in a shape of two dimensions or more."""
    if kept.ndim > 1:
        return kept.view(shape)
    return torch.from_numpy(np.unpackbits(kept.numpy(), count=shape.numel())).view(shape)
