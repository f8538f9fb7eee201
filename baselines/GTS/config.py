"""GTS's config, and the recipes of its authors and of BasicTS."""

from dataclasses import dataclass, field
from typing import Any

from ealinformer.models import ModelCard, PriorConfig
from ealinformer.recipe import PublishedRecipe, Recipe, Recipes

CARD = ModelCard(
    title="Discrete Graph Structure Learning for Forecasting Multiple Time Series",
    venue="ICLR",
    year=2021,
    kind="RNN, learned graph",
    arxiv="2101.06861",
)


@dataclass
class GTSConfig(PriorConfig):
    """Config of GTS; the defaults are those of PEMS08. Of the prior it takes the training part alone, and no graph."""

    hidden_size: int = field(default=64, metadata={"help": "Width D of the recurrent states."})
    num_layers: int = field(default=1, metadata={"help": "Layers of the encoder, and of the decoder."})
    max_diffusion_step: int = field(default=3, metadata={"help": "Steps K of the random walk on the learned graph."})
    embedding_size: int = field(default=100, metadata={"help": "Width of what is learned of each sensor's series."})
    temperature: float = field(default=0.5, metadata={"help": "Temperature s of the Gumbel softmax."})
    knn_k: int = field(default=30, metadata={"help": "Neighbours of a sensor in the graph of the cross entropy."})
    graph_loss_weight: float = field(
        default=1.0, metadata={"help": "Weight of the cross entropy of the links with that graph; 0: none."}
    )
    cl_decay_steps: int = field(
        default=2000, metadata={"help": "Decay k of scheduled sampling: half of the truth is left after k ln k steps."}
    )


_RECIPE = Recipe(
    loss="masked_mae",
    lr=1e-3,
    weight_decay=0.0,
    eps=1e-3,
    milestones=(20, 30),
    gamma=0.1,
    batch_size=64,
    eval_batch_size=64,
    num_epochs=100,
    patience=None,
    select_by="MAE",
    clip_grad_norm=5.0,
)
_AUTHORS = _RECIPE.model_copy(update={"milestones": (20, 30, 40), "num_epochs": 200, "patience": 100})
_DEMO = _RECIPE.model_copy(update={"lr": 5e-3, "milestones": (1,), "gamma": 0.3, "num_epochs": 2})
_DEMO_PARAMS = {"hidden_size": 32, "max_diffusion_step": 2, "knn_k": 5, "cl_decay_steps": 5}

_BAY = {"hidden_size": 128, "max_diffusion_step": 2}
_PEMS07 = {"max_diffusion_step": 2}


def _basicts(batch_size_before: int = 64, **sizes: Any) -> dict[str, PublishedRecipe]:
    """BasicTS trains without the cross entropy since 0.4; before, it trained with it, as the paper does."""
    before = _RECIPE.model_copy(update={"batch_size": batch_size_before})
    return {
        "basicts-pre-0.4": PublishedRecipe(before, params=sizes, source="BasicTS before 0.4, commit ee1b4d7"),
        "basicts": PublishedRecipe(_RECIPE, params={**sizes, "graph_loss_weight": 0.0}, source="BasicTS 0.5.8"),
    }


RECIPES: Recipes = {
    "PEMS-BAY": {
        **_basicts(**_BAY),
        "authors": PublishedRecipe(_AUTHORS, params=_BAY, source="chaoshangcs/GTS, para_bay.yaml"),
    },
    "PEMS03": _basicts(),
    "PEMS04": _basicts(),
    "PEMS07": _basicts(batch_size_before=32, **_PEMS07),
    "PEMS08": _basicts(),
    "default": _basicts(),
    "DEMO": {"demo": PublishedRecipe(_DEMO, params=_DEMO_PARAMS, source="for the simulated series")},
}
