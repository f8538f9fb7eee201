"""Putting `DropInAttention` in the place of every `MultiHeadAttention` of a model of BasicTS."""

import fnmatch
from collections.abc import Callable, Iterable
from typing import Any

from basicts.modules.transformer import AutoCorrelation, MultiHeadAttention, ProbAttention
from torch import nn

from ealinformer.dropin.multi_head import DropInAttention

# Layers that the host offers in place of MultiHeadAttention, and why they cannot be replaced.
_OTHERS = {
    ProbAttention: "ProbSparse attention scores only some of the queries, so it has no counterpart here; "
    "build the model with prob_attn=False",
    AutoCorrelation: "auto-correlation mixes lags of a series, not tokens",
}

# Models of the host that hand their attention a mask which no linear attention can take, by a module of theirs.
_MASKS = {
    "basicts.models.DUET.arch.mahalanobis_mask.MahalanobisMask": "draws which sensors see each other anew in each "
    "step, a mask that is neither key padding nor causal",
}

Where = Callable[[str], bool] | str


def replace_attention(
    model: nn.Module, attention: str = "entropy_equal", *, where: Where | None = None, **options: Any
) -> list[str]:
    """Replace BasicTS's `MultiHeadAttention` everywhere in `model`, in place.

    The projections stay the same parameters, so weights are kept and an optimizer made before goes on working. (An
    attention with parameters of its own, such as `"linformer"`, needs an optimizer made after.) A module used at
    several places stays one module. May be called again, for other options or other modules. When it raises, nothing
    has been replaced.

    Args:
        model: holds the attention modules; may be on any device.
        attention: a name known to `ealinformer.attention.build_attention`.
        where: which modules, by their name in `model.named_modules()`: a function on the name, or a pattern such as
            `"encoder.*"` (as in `fnmatch`). All of them when None.
        options: of the attention, such as `entropy="gaussian"`.

    Returns:
        The names of the modules replaced, in the order of the model.

    Raises:
        ValueError: there is nothing to replace, or something cannot be: a model that outputs attention weights or
            masks pairs at will, ProbSparse attention, a subclass with a forward of its own, options that the
            attention refuses. The message names the module.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model has to be a module that has been built, got {model!r}")
    _check_model(model)
    sites = _choose(model, where)
    replacements: dict[int, DropInAttention] = {}
    for name, module in sites.items():
        if id(module) not in replacements:
            replacements[id(module)] = _replacement(name, module, attention, options)
    for parent in list(model.modules()):
        # Not named_children(), which leaves out a module that one parent holds twice.
        for child_name, child in list(parent._modules.items()):
            if id(child) in replacements:
                setattr(parent, child_name, replacements[id(child)])
    return list(sites)


def _check_model(model: nn.Module) -> None:
    for name, module in model.named_modules():
        for holder in (module, getattr(module, "config", None)):
            asked = getattr(holder, "output_attentions", None)
            if asked:
                raise ValueError(
                    f"{_label(name, module)} has output_attentions={asked!r}, but the weights are never formed; "
                    "build the model with output_attentions=False"
                )
        reason = _MASKS.get(f"{type(module).__module__}.{type(module).__qualname__}")
        if reason is not None:
            raise ValueError(f"{_label(name, module)} {reason}; its attention cannot be replaced")


def _choose(model: nn.Module, where: Where | None) -> dict[str, MultiHeadAttention]:
    """The modules to replace by name; a module used at several places under each of its names."""
    named = dict(model.named_modules(remove_duplicate=False))
    kinds = (MultiHeadAttention, *_OTHERS)
    sites: dict[str, nn.Module] = {name: module for name, module in named.items() if isinstance(module, kinds)}
    chosen = {name: module for name, module in sites.items() if _selects(where, name)}
    if not any(isinstance(module, MultiHeadAttention) for module in sites.values()):
        found = ", ".join(_attention_classes(named.values()))
        raise ValueError(
            f"{type(model).__name__} has no BasicTS MultiHeadAttention to replace; "
            + (f"its attention is of class {found}" if found else "none of its modules is an attention")
        )
    if not chosen:
        raise ValueError(f"where={where!r} selects none of {', '.join(sites)}")
    for name, module in chosen.items():
        _check_module(name, module)
    left_out = {id(module): name for name, module in sites.items() if name not in chosen}
    for name, module in chosen.items():
        if id(module) in left_out:
            raise ValueError(
                f"{name} and {left_out[id(module)]} are one and the same module, but where={where!r} selects only the "
                "first"
            )
    return chosen


def _check_module(name: str, module: nn.Module) -> None:
    label = _label(name, module)
    for other, reason in _OTHERS.items():
        if isinstance(module, other):
            raise ValueError(f"{label} cannot be replaced: {reason}, or leave the module out with where=...")
    if type(module) not in (MultiHeadAttention, DropInAttention) or "forward" in vars(module):
        raise ValueError(f"{label} has a forward of its own, which would be lost; leave the module out with where=...")
    if not name:
        raise ValueError(
            "the model is itself a MultiHeadAttention, which cannot be replaced in place; "
            "DropInAttention.from_host(model) makes a new module on the same weights"
        )


def _replacement(name: str, module: MultiHeadAttention, attention: str, options: dict[str, Any]) -> DropInAttention:
    try:
        return DropInAttention.from_host(module, attention, **options)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _selects(where: Where | None, name: str) -> bool:
    if where is None:
        return True
    return fnmatch.fnmatchcase(name, where) if isinstance(where, str) else where(name)


def _attention_classes(modules: Iterable[nn.Module]) -> list[str]:
    """Class names that sound like attention, sorted."""
    names = {type(module).__name__ for module in modules}
    return sorted(name for name in names if any(part in name.lower() for part in ("attention", "attn", "correlation")))


def _label(name: str, module: nn.Module) -> str:
    return f"{name} ({type(module).__name__})" if name else type(module).__name__
