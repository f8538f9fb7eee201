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

    Only one layer's tensors are kept at a time. The hooks change no number, and are gone after the block.

    Raises:
        ValueError: a layer is used with a mask or causally, which would need other weights than those compared here.
    """
    handles: list[RemovableHandle] = []
    try:
        for name, layer in attention_layers(model).items():
            handles += _listen(name, layer, take)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _listen(name: str, layer: MultiHeadAttention, take: Take) -> list[RemovableHandle]:
    heard: dict[str, Tensor] = {}

    def refuse_masks(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        options = (*args[1:], *(value for key, value in kwargs.items() if key != "x"))
        if any(option is not None and option is not False for option in options):
            raise ValueError(f"{name} is used with a mask or causally, attention without either is expected")

    def keep(part: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            heard[part] = _split_heads(output.detach(), layer.n_heads)

        return hook

    def pass_on(module: nn.Module, args: tuple[Any, ...]) -> None:
        heard["output"] = _split_heads(args[0].detach(), layer.n_heads)
        call = Call(**heard)
        heard.clear()
        take(name, call)

    return [
        layer.register_forward_pre_hook(refuse_masks, with_kwargs=True),
        layer.q_proj.register_forward_hook(keep("q")),
        layer.k_proj.register_forward_hook(keep("k")),
        layer.v_proj.register_forward_hook(keep("v")),
        layer.out_proj.register_forward_pre_hook(pass_on),
    ]


def _split_heads(x: Tensor, n_heads: int) -> Tensor:
    """`[..., N, D]` -> `[..., heads, N, D / heads]`."""
    return x.unflatten(-1, (n_heads, -1)).transpose(-3, -2)
