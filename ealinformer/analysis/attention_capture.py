"""The queries, keys and values of every multi-head attention of a model, while it computes what it always computes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ealinformer.attention import MultiHeadAttention


@dataclass(frozen=True)
class Call:
    """One use of a layer: q, k, v `[..., heads, N, C]` and what its own attention made of them, of q's shape."""

    q: Tensor
    k: Tensor
    v: Tensor
    output: Tensor


Take = Callable[[str, Call], None]


def attention_layers(model: nn.Module) -> dict[str, MultiHeadAttention]:
    """The multi-head attentions of a model by their names in it, in the order in which they were added."""
    return {name: module for name, module in model.named_modules() if isinstance(module, MultiHeadAttention)}


@contextmanager
def captured(model: nn.Module, take: Take) -> Iterator[None]:
    """Within the block, tell `take` the name and the call of every layer as it is used.

    Only one layer's tensors are kept at a time. Forecasts stay what they are, to rounding where a layer would have gone
    without queries, keys and values; after the block nothing is left of it.

    Raises:
        ValueError: a layer is used with a mask or causally, which would need other weights than those compared here.
    """
    layers = attention_layers(model)
    handles: list[RemovableHandle] = []
    try:
        for name, layer in layers.items():
            handles.append(layer.register_forward_pre_hook(_refusing_masks(name), with_kwargs=True))
            layer.observer = _passing_on(name, take)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers.values():
            layer.observer = None


def _refusing_masks(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def refuse(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        options = (*args[1:], *(value for key, value in kwargs.items() if key not in ("x", "affine")))
        if any(option is not None and option is not False for option in options):
            raise ValueError(f"{name} is used with a mask or causally, attention without either is expected")

    return refuse


def _passing_on(name: str, take: Take) -> Callable[[Tensor, Tensor, Tensor, Tensor], None]:
    def observe(*tensors: Tensor) -> None:
        take(name, Call(*(tensor.detach() for tensor in tensors)))

    return observe
