"""How a model is found by its name and built for a series."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from ealinformer.errors import InputError, suggestion


@dataclass(frozen=True)
class ModelEntry:
    """A model class `Model(config)` and the dataclass of its config, whose fields carry the host's names."""

    model: type[nn.Module]
    config: type

    def build_config(self, **params: Any) -> Any:
        """The config of this model.

        Raises:
            InputError: a field is not known.
        """
        known = [f.name for f in fields(self.config)]
        for name in params:
            if name not in known:
                hint = suggestion(name, known)
                raise InputError(f"unknown key {'model.' + name!r} of {self.model.__name__}{hint}")
        return self.config(**params)


Catalogue = Mapping[str, ModelEntry]


def find_model(name: str, catalogue: Catalogue) -> ModelEntry:
    """The entry of a name.

    Raises:
        InputError: there is no model of that name.
    """
    if name not in catalogue:
        raise InputError(f"unknown model {name!r}{suggestion(name, catalogue)}; known: {', '.join(catalogue)}")
    return catalogue[name]
