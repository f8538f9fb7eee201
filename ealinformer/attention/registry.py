"""Attentions by name, all of one signature."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from ealinformer.attention.entropy_equal import Branch
from ealinformer.attention.entropy_equal_options import EntropyEqualAttention
from ealinformer.attention.identity import identity_attention
from ealinformer.attention.kernelized import elu_attention
from ealinformer.attention.linformer import DEFAULT_RANK, LinformerAttention
from ealinformer.attention.names import unknown_name
from ealinformer.attention.options import positive_whole
from ealinformer.attention.performer import PerformerAttention
from ealinformer.attention.softmax import fused_softmax_attention, softmax_attention


class Attention(Protocol):
    """A function or module on q `[..., Nq, C]`, k `[..., N, C]` and v `[..., N, Cv]` that gives `[..., Nq, Cv]`.

    The mask is bool `[..., N]`, True where a key is padding, and broadcasts against the leading dimensions of k.
    Padding has no influence and a gradient of 0, whatever it holds; a query that sees no key gives 0. With `causal`,
    query i sees the keys up to i. `scale` is that of the scores, and each attention says what None stands for.
    """

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        key_padding_mask: Tensor | None = None,
        causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        """Attend."""
        ...


def build_attention(name: str, *, head_size: int, num_keys: int | None = None, **options: Any) -> Attention:
    """The attention of a name.

    Args:
        name: one of `ATTENTIONS`.
        head_size: C, channels of a head.
        num_keys: N, where it is known. `"linformer"` needs it; the others take any number of keys.
        options: what `attention_options(name)` lists.

    Raises:
        ValueError: the name, an option or the value of one is not known, or a size is missing or cannot be.
    """
    known = attention_options(name)
    for option in options:
        if option not in known:
            error = unknown_name(f"an option of the attention {name!r}", option, known)
            raise error if known else ValueError(f"the attention {name!r} takes no options, got {option!r}")
    positive_whole("head_size", head_size)
    if num_keys is not None:
        positive_whole("num_keys", num_keys)
    return ATTENTIONS[name](head_size, num_keys, **options)


def attention_options(name: str) -> tuple[str, ...]:
    """The names of the options that an attention takes, none for most.

    Raises:
        ValueError: there is no attention of that name.
    """
    if not isinstance(name, str) or name not in ATTENTIONS:
        raise unknown_name("attention", name, ATTENTIONS)
    parameters = inspect.signature(ATTENTIONS[name]).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def _softmax(head_size: int, num_keys: int | None) -> Attention:
    return softmax_attention


def _sdpa(head_size: int, num_keys: int | None) -> Attention:
    return fused_softmax_attention


def _entropy_equal(
    head_size: int, num_keys: int | None, *, entropy: str = "taylor", eps: float = 1e-8, branch: Branch = "auto"
) -> Attention:
    return EntropyEqualAttention(entropy, eps, branch)


def _inline(head_size: int, num_keys: int | None) -> Attention:
    # InLine attention (arXiv 2412.06590) is entropy-equal attention with theta = 1.
    return EntropyEqualAttention("second_order", eps=0.0)


def _elu(head_size: int, num_keys: int | None) -> Attention:
    return elu_attention


def _performer(
    head_size: int, num_keys: int | None, *, num_features: int | None = None, seed: int = 0
) -> PerformerAttention:
    return PerformerAttention(head_size, num_features, seed)


def _linformer(head_size: int, num_keys: int | None, *, rank: int = DEFAULT_RANK) -> LinformerAttention:
    if num_keys is None:
        raise ValueError("linformer needs num_keys, the number of keys that its projections are learned for")
    return LinformerAttention(num_keys, rank)


def _identity(head_size: int, num_keys: int | None) -> Attention:
    return identity_attention


# How each is built from the head size, the number of keys and its options, which are the keyword-only arguments.
ATTENTIONS: Mapping[str, Callable[..., Attention]] = {
    "softmax": _softmax,
    "sdpa": _sdpa,
    "entropy_equal": _entropy_equal,
    "inline": _inline,
    "elu": _elu,
    "performer": _performer,
    "linformer": _linformer,
    "identity": _identity,
}
