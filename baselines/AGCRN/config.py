"""AGCRN's config and published recipes."""

from dataclasses import dataclass, field

from ealinformer.models import ForecasterConfig, ModelCard
from ealinformer.recipe import PublishedRecipe, Recipe, Recipes

CARD = ModelCard(
    title="Adaptive Graph Convolutional Recurrent Network for Traffic Forecasting",
    venue="NeurIPS",
    year=2020,
    kind="RNN",
    arxiv="2007.02842",
)


@dataclass
class AGCRNConfig(ForecasterConfig):
    """Config of AGCRN; the defaults are those of BasicTS 0.5.8."""

    hidden_size: int = field(default=64, metadata={"help": "Width of the GRU's state."})
    num_layers: int = field(default=2, metadata={"help": "Number of GRU layers."})
    node_embedding_size: int = field(
        default=10, metadata={"help": "Width of a sensor's embedding, of which graph and weights are made."}
    )
    cheb_k: int = field(default=2, metadata={"help": "Number of Chebyshev terms of a graph convolution."})
    if_time_in_day: bool = field(default=False, metadata={"help": "Feed the time of day in [0, 1) beside the reading."})


_BASICTS = Recipe(
    loss="masked_mae",
    lr=3e-3,
    weight_decay=0,
    milestones=(),
    batch_size=64,
    num_epochs=100,
    patience=None,
    select_by="MAE",
)
_AUTHORS = _BASICTS.model_copy(update={"patience": 15, "select_by": "loss"})
_DEMO = _BASICTS.model_copy(
    update={"lr": 1e-2, "milestones": (1,), "gamma": 0.3, "batch_size": 32, "num_epochs": 2, "clip_grad_norm": 5.0}
)

_OWN = PublishedRecipe(_BASICTS, source="BasicTS 0.5.8")
_OF_AUTHORS = PublishedRecipe(_AUTHORS, source="github: LeiBAI/AGCRN, with the loss masked")
_NARROW = {"node_embedding_size": 2}

RECIPES: Recipes = {
    "PEMS-BAY": {"basicts": PublishedRecipe(_BASICTS, {"if_time_in_day": True}, source="BasicTS 0.5.8")},
    "PEMS03": {"basicts": _OWN},
    "PEMS04": {"basicts": _OWN, "authors": _OF_AUTHORS},
    "PEMS07": {"basicts": _OWN},
    "PEMS08": {
        "basicts": _OWN,
        "basicts-pre-0.4": PublishedRecipe(_BASICTS, _NARROW, source="BasicTS before 0.4"),
        "authors": PublishedRecipe(_AUTHORS, _NARROW, source=_OF_AUTHORS.source),
    },
    "default": {"basicts": _OWN},
    "DEMO": {"demo": PublishedRecipe(_DEMO, {"hidden_size": 32, "node_embedding_size": 4})},
}
