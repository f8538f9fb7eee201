"""DCRNN's config, and the recipes of its authors and of BasicTS."""

from dataclasses import dataclass, field

from ealinformer.models import ModelCard, PriorConfig
from ealinformer.recipe import PublishedRecipe, Recipe, Recipes

CARD = ModelCard(
    title="Diffusion Convolutional Recurrent Neural Network: Data-Driven Traffic Forecasting",
    venue="ICLR",
    year=2018,
    kind="RNN",
    arxiv="1707.01926",
    needs_graph=True,
)


@dataclass
class DCRNNConfig(PriorConfig):
    """Config of DCRNN; the defaults are the published ones, the same on all five series."""

    hidden_size: int = field(default=64, metadata={"help": "Width D of the recurrent states."})
    num_layers: int = field(default=2, metadata={"help": "Layers of the encoder, and of the decoder."})
    max_diffusion_step: int = field(default=2, metadata={"help": "Steps K of the random walks, each way."})
    cl_decay_steps: int = field(
        default=2000, metadata={"help": "Decay k of scheduled sampling: half of the truth is left after k ln k steps."}
    )


_BASICTS = "BasicTS 0.5.8"
_FLOW = Recipe(
    loss="masked_mae",
    lr=3e-3,
    weight_decay=0.0,
    eps=1e-3,
    milestones=(80,),
    gamma=0.3,
    batch_size=64,
    eval_batch_size=64,
    num_epochs=100,
    patience=None,
    select_by="MAE",
)
_SPEED = _FLOW.model_copy(update={"lr": 0.01, "milestones": (20, 30, 40, 50), "gamma": 0.1, "clip_grad_norm": 5.0})
_AUTHORS = _SPEED.model_copy(update={"patience": 50})
_DEMO = _FLOW.model_copy(
    update={"lr": 0.01, "milestones": (1,), "batch_size": 32, "num_epochs": 2, "clip_grad_norm": 5.0}
)
_DEMO_PARAMS = {"hidden_size": 32, "num_layers": 1, "cl_decay_steps": 5}

_flow = {"basicts": PublishedRecipe(_FLOW, source=_BASICTS)}
RECIPES: Recipes = {
    "PEMS-BAY": {
        "basicts": PublishedRecipe(_SPEED, source=_BASICTS),
        "authors": PublishedRecipe(_AUTHORS, source="liyaguang/DCRNN, dcrnn_bay.yaml"),
    },
    "PEMS03": _flow,
    "PEMS04": {"basicts": PublishedRecipe(_FLOW.model_copy(update={"clip_grad_norm": 5.0}), source=_BASICTS)},
    "PEMS07": _flow,
    "PEMS08": _flow,
    "default": {"basicts": PublishedRecipe(_FLOW, source="BasicTS 0.5.8, as for PEMS08")},
    "DEMO": {"demo": PublishedRecipe(_DEMO, params=_DEMO_PARAMS, source="for the simulated series")},
}
