"""Operations and bytes of a piece of work, counted as it runs, and how near they come to a machine's ceilings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ealinformer.measure.ceilings import Ceilings

# They make room and touch none of it.
_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"}
# They write over what was there without reading it.
_OVERWRITING = {"copy_", "fill_", "zero_", "zeros_like", "ones_like", "full_like", "normal_", "uniform_", "bernoulli_"}


@dataclass(frozen=True)
class Counts:
    """`flops`: multiplications and additions; `bytes`: read and written."""

    flops: int
    bytes: int


def count(work: Callable[[], object]) -> Counts:
    """Count what `work` does, its backward pass too where it has one.

    FLOPs are those of matrix products, convolutions and fused attentions; elementwise work has none. Bytes are those of
    the tensors that each operator takes and gives, views aside: the traffic of a machine without caches that runs one
    operator after the other. A cache, and kernels that fuse operators, move less. Compiled code and kernels that are
    launched beside torch's dispatcher are not seen.
    """
    traffic, flops = _Traffic(), FlopCounterMode(display=False, custom_mapping=_FUSED_ON_CPU)
    with traffic, flops:
        work()
    return Counts(flops.get_total_flops(), traffic.bytes)


def roofline(counts: Counts, ceilings: Ceilings, seconds: float | None) -> dict[str, float | None]:
    """`flop_per_byte`, the `roofline_seconds` that the ceilings allow, and the share of the ceiling reached.

    The share can exceed 1: bytes that a cache spared are counted too.
    """
    allowed = max(counts.flops / ceilings.flops_per_second, counts.bytes / ceilings.bytes_per_second)
    return {
        "flop_per_byte": counts.flops / counts.bytes if counts.bytes else None,
        "roofline_seconds": allowed,
        "roofline_share": allowed / seconds if seconds else None,
    }


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of what operators read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        taken = list(_tensors((args, kwargs)))
        known = {_storage(tensor) for tensor in taken}
        new = [tensor for tensor in _tensors(result) if _storage(tensor) not in known]
        written = list(_written(func, args, kwargs or {}))
        is_view = not new and not written and any(True for _ in _tensors(result))
        if is_view or name in _ALLOCATIONS:
            return result
        read = taken
        if name in _OVERWRITING:
            read = [tensor for tensor in taken[1:] if name == "copy_"]
        self.bytes += sum(_bytes_of(tensor) for tensor in (*read, *written, *new))
        return result


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The arguments that an operator changes in place, as its schema has them."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(args[place] if place < len(args) else kwargs.get(argument.name))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes_of(tensor: Tensor) -> int:
    """An expanded tensor is read once, and of a part of a storage that part."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# torch's own table has the kernels of GPUs alone.
_FUSED_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
