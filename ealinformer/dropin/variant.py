"""A model class of BasicTS with another attention, for launchers that build the model from its class."""

import copyreg
import functools
import re
from typing import Any

from torch import nn

from ealinformer.dropin.replace import replace_attention

_Options = tuple[tuple[str, Any], ...]


def with_attention(model_class: type[nn.Module], attention: str = "entropy_equal", **options: Any) -> type[nn.Module]:
    """A subclass of `model_class` that calls `replace_attention` on itself once it is built.

    For `BasicTSForecastingConfig(model=with_attention(iTransformerForForecasting, "entropy_equal"), ...)`. BasicTS
    names folders and checkpoints after the class and tells runs apart by it, so attention and options are in its
    name: `iTransformerForForecasting_entropy_equal_entropy=gaussian`. The same call gives the same class. It can be
    pickled if `model_class` can.

    A `cfg.json` that names such a class is read back only after the same call, for its import path does not say how
    to make it. Write a class in a module of your own where that matters, or where `replace_attention` needs `where`:

        class EntropyEqualInformer(Informer):
            def __init__(self, config):
                super().__init__(config)
                replace_attention(self, "entropy_equal", where="*.cross_attn")

    Args:
        model_class: a model, built as `model_class(config)`.
        attention: a name known to `ealinformer.attention.build_attention`.
        options: of the attention: numbers, plain strings, True, False or None.

    Raises:
        ValueError: `model_class` is no model class, or an option cannot stand in a name. What `replace_attention`
            raises comes when the model is built.
    """
    if not (isinstance(model_class, type) and issubclass(model_class, nn.Module)):
        raise ValueError(f"model_class has to be a class of models, got {model_class!r}")
    for key, value in options.items():
        plain = value is None or isinstance(value, (bool, int, float, str))
        if not plain or not re.fullmatch(r"[\w.+-]*", str(value)):
            raise ValueError(
                f"{key} becomes part of the name of the class, so a number, a plain string, True, False or None is "
                f"expected, got {value!r}; write a subclass that calls replace_attention instead"
            )
    return _variant(model_class, attention, tuple(sorted(options.items())))


def __getattr__(name: str) -> type[nn.Module]:
    """A class that was made earlier, where a config that was read from a file asks for it by name."""
    for (_, made_name), variant in _made.items():
        if made_name == name:
            return variant
    raise AttributeError(f"{name} has not been made yet: call ealinformer.dropin.with_attention as the run did")


class _VariantType(type):
    """The class of the classes made here, by which pickle knows how to make them again in another process."""


_made: dict[tuple[type[nn.Module], str], type[nn.Module]] = {}


def _variant(model_class: type[nn.Module], attention: str, options: _Options) -> type[nn.Module]:
    name = "_".join([model_class.__name__, attention, *(f"{key}={value}" for key, value in options)])
    if (model_class, name) not in _made:
        _made[model_class, name] = _make(model_class, attention, options, name)
    return _made[model_class, name]


def _make(model_class: type[nn.Module], attention: str, options: _Options, name: str) -> Any:
    # The signature is kept, for BasicTS reads from it what a model wants.
    @functools.wraps(model_class.__init__)
    def __init__(self: nn.Module, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        model_class.__init__(self, *args, **kwargs)
        replace_attention(self, attention, **dict(options))

    body = {
        "__init__": __init__,
        "__doc__": f"`{model_class.__module__}.{model_class.__qualname__}` with attention {attention!r}.",
        "__module__": __name__,
        "_recipe": (model_class, attention, options),
    }
    return _VariantType(name, (model_class,), body)


def _reduce(variant: Any) -> str | tuple[Any, ...]:
    # A subclass that someone wrote is found by its import path, like any class.
    return (_variant, variant._recipe) if "_recipe" in vars(variant) else variant.__qualname__


copyreg.pickle(_VariantType, _reduce)
