"""How a model is found by its name and built for a series."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from ealinformer.errors import InputError, suggestion
from ealinformer.recipe import Recipes


@dataclass(frozen=True)
class ModelCard:
    """What a table says of a model: its paper, the year, what kind it is, and whether it needs a graph."""

    title: str
    venue: str
    year: int
    kind: str  # RNN, TCN, Transformer ...
    arxiv: str | None = None
    needs_graph: bool = False


@dataclass(frozen=True)
class ModelEntry:
    """A model class `Model(config)` and the dataclass of its config, whose fields carry the host's names.

    `recipes` are the model's own. Where there are none it takes those of the config file that it is trained with, and
    that file's sizes: ELinFormer and what shares its backbone. A model whose config has `data_dir` takes a `prior` as
    well, a `SensorPrior`; without one it reads that of its config.
    """

    model: type[nn.Module]
    config: type
    card: ModelCard | None = None
    recipes: Recipes | None = None

    @property
    def needs_graph(self) -> bool:
        """Whether it cannot be built without a graph of the sensors."""
        return self.card is not None and self.card.needs_graph

    @property
    def takes_prior(self) -> bool:
        """Whether it has to know of its sensors before it is trained: a graph, or the training part."""
        return "data_dir" in (f.name for f in fields(self.config))

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
