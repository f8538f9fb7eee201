"""HimNet's config and published recipes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ealinformer.models import ForecasterConfig, ModelCard
from ealinformer.recipe import PublishedRecipe, Recipe, Recipes

CARD = ModelCard(
    title="Heterogeneity-Informed Meta-Parameter Learning for Spatiotemporal Time Series Forecasting",
    venue="KDD",
    year=2024,
    kind="RNN",
    arxiv="2405.10800",
)


@dataclass
class HimNetConfig(ForecasterConfig):
    """Config of HimNet; the defaults are those of its authors and of BasicTS 0.5.8 on PEMS08."""

    num_time_in_day: int = field(default=288, metadata={"help": "Readings a day: 288 at an interval of 5 minutes."})
    num_day_in_week: int = field(default=7, metadata={"help": "Days of the day-of-week table."})
    hidden_size: int = field(default=96, metadata={"help": "Width of the GRUs' states."})
    num_layers: int = field(default=1, metadata={"help": "Number of GRU layers of each encoder and of the decoder."})
    cheb_k: int = field(default=2, metadata={"help": "Number of Chebyshev terms of a graph convolution."})
    node_embedding_size: int = field(default=14, metadata={"help": "Width of a sensor's embedding."})
    tid_hidden_size: int = field(default=10, metadata={"help": "Width of the time-of-day table."})
    diw_hidden_size: int = field(default=2, metadata={"help": "Width of the day-of-week table."})
    st_embedding_size: int = field(
        default=10, metadata={"help": "Width of the embedding of a sensor in a window, of which the decoder is made."}
    )
    tf_decay_steps: int = field(
        default=6000,
        metadata={"help": "k: the decoder reads the truth with probability k / (k + exp(step / k)) in training."},
    )


_PEMS08 = Recipe(
    loss="masked_huber",
    lr=1e-3,
    weight_decay=0,
    eps=1e-3,
    milestones=(40, 60, 80),
    batch_size=16,
    num_epochs=200,
    patience=20,
    select_by="MAE",
    clip_grad_norm=5.0,
)
_BAY = _PEMS08.model_copy(update={"loss": "masked_mae", "weight_decay": 1e-4, "milestones": (25, 35)})
_PEMS03 = _PEMS08.model_copy(update={"weight_decay": 3e-4, "milestones": (30, 50)})
_PEMS04 = _PEMS08.model_copy(update={"weight_decay": 1e-4, "milestones": (30, 50)})
_PEMS07 = _PEMS08.model_copy(update={"weight_decay": 1e-4, "milestones": (40, 60)})
_DEMO = _PEMS08.model_copy(
    update={
        "loss": "masked_mae",
        "lr": 1e-2,
        "eps": 1e-8,
        "milestones": (1,),
        "gamma": 0.3,
        "batch_size": 32,
        "num_epochs": 2,
    }
)

_WIDE: Mapping[str, int] = {
    "hidden_size": 64,
    "node_embedding_size": 16,
    "tid_hidden_size": 8,
    "diw_hidden_size": 8,
    "st_embedding_size": 16,
}
_SHORT = {"tf_decay_steps": 4000}
_SMALL = {
    "hidden_size": 16,
    "node_embedding_size": 6,
    "tid_hidden_size": 4,
    "diw_hidden_size": 2,
    "st_embedding_size": 4,
    "tf_decay_steps": 5,  # in two epochs it has to learn to live on its own forecasts
}


def _published(recipe: Recipe, params: Mapping[str, int]) -> Mapping[str, PublishedRecipe]:
    """The recipe of BasicTS, and that of the authors, whose Huber loss counts missing readings too."""
    loss = "huber" if recipe.loss == "masked_huber" else recipe.loss
    authors = recipe.model_copy(update={"loss": loss, "select_by": "loss"})
    return {
        "basicts": PublishedRecipe(recipe, params, source="BasicTS 0.5.8"),
        "authors": PublishedRecipe(authors, params, source="github: XDZhelheim/HimNet"),
    }


RECIPES: Recipes = {
    "PEMS-BAY": _published(_BAY, _WIDE),
    "PEMS03": _published(_PEMS03, {**_WIDE, **_SHORT}),
    "PEMS04": _published(_PEMS04, {**_WIDE, **_SHORT, "tid_hidden_size": 12, "diw_hidden_size": 4}),
    "PEMS07": _published(_PEMS07, _WIDE),
    "PEMS08": _published(_PEMS08, {}),
    "default": _published(_PEMS07, _WIDE),
    "DEMO": {"demo": PublishedRecipe(_DEMO, _SMALL)},
}
