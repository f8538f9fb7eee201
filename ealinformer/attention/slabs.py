"""In what portions the groups of rows that attend to each other are worked through."""

from collections.abc import Iterable

import torch
from torch import Tensor

ENTRIES = 1 << 19  # 2 MiB in float32: what one pass leaves, the next finds in the cache


def slabs(x: Tensor, times: int = 1) -> list[Tensor]:
    """`[..., N, D]` -> parts `[g, N, D]` of some groups each, in order: views on the CPU, as large as suits its cache.

    Elsewhere, and where a program is traced, one part with all groups. Portions also bound what is held for a moment.
    `times` as large are those of work that does more than pass over its rows.
    """
    num_rows, width = x.shape[-2:]
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return [x.reshape(-1, num_rows, width)]
    size = max(1, times * ENTRIES // max(1, num_rows * width))
    # Not flattened: leading dimensions of a transposed tensor do not merge without a copy.
    outer = x.flatten(0, -4).unbind(0) if x.ndim > 3 else [x if x.ndim == 3 else x.unsqueeze(0)]
    return [part for groups in outer for part in groups.split(size)]


def joined(parts: Iterable[Tensor], x: Tensor, times: int = 1) -> Tensor:
    """`[..., N, D]` out of parts in the order of `slabs(x, times)`, one by one; on the CPU in the strides of x."""
    iterator = iter(parts)
    first = next(iterator)
    if first.numel() == x.numel():
        return first.reshape(x.shape)
    out = torch.empty_like(x)
    targets = slabs(out, times)
    targets[0].copy_(first)
    for target, part in zip(targets[1:], iterator, strict=True):
        target.copy_(part)
    return out
