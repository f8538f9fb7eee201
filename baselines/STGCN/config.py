"""STGCN's config, and how it is trained on each series."""

from dataclasses import dataclass, field

from ealinformer.models import ModelCard, PriorConfig
from ealinformer.recipe import DEFAULT, PublishedRecipe, Recipe, Recipes

CARD = ModelCard(
    title="Spatio-Temporal Graph Convolutional Networks: A Deep Learning Framework for Traffic Forecasting",
    venue="IJCAI",
    year=2018,
    kind="TCN",
    arxiv="1709.04875",
    needs_graph=True,
)


@dataclass
class STGCNConfig(PriorConfig):
    """Config of STGCN; the defaults are the sizes of BasicTS on all five series."""

    hidden_size: int = field(default=64, metadata={"help": "Channels of the temporal convolutions of a block."})
    graph_hidden_size: int = field(default=16, metadata={"help": "Channels of the graph convolution between them."})
    output_hidden_size: int = field(default=128, metadata={"help": "Channels of the output block."})
    num_layers: int = field(default=2, metadata={"help": "Number of spatio-temporal blocks."})
    temporal_kernel_size: int = field(
        default=3,
        metadata={"help": "K_t: steps that a temporal convolution sees; a block shortens the input by 2 K_t - 2."},
    )
    graph_kernel_size: int = field(default=3, metadata={"help": "K: Chebyshev polynomials, of degree 0 to K - 1."})
    dropout: float = field(default=0.5, metadata={"help": "Dropout rate at the end of each block."})


_BASICTS = Recipe(
    loss="masked_mae",
    lr=4e-4,
    weight_decay=3e-4,
    milestones=(1, 50),
    gamma=0.5,
    batch_size=16,
    num_epochs=100,
    patience=None,
    select_by="MAE",
)
_BEFORE = _BASICTS.model_copy(
    update={"lr": 2e-3, "weight_decay": 1e-4, "milestones": (1, 50, 100), "batch_size": 64, "clip_grad_norm": 5.0}
)
_DEMO = _BASICTS.model_copy(
    update={"lr": 4e-3, "weight_decay": 1e-4, "milestones": (2,), "gamma": 0.2, "num_epochs": 3}
)

_FLOW = {
    "basicts": PublishedRecipe(_BASICTS, source="BasicTS 0.5.8"),
    "basicts-pre-0.4": PublishedRecipe(_BEFORE, source="BasicTS before 0.4"),
}
RECIPES: Recipes = {
    "PEMS-BAY": {
        **_FLOW,
        "basicts-pre-0.4": PublishedRecipe(
            _BEFORE.model_copy(update={"milestones": (1, 50)}), source="BasicTS before 0.4"
        ),
    },
    **dict.fromkeys(("PEMS03", "PEMS04", "PEMS07", "PEMS08"), _FLOW),
    DEFAULT: {"basicts": _FLOW["basicts"]},
    "DEMO": {"demo": PublishedRecipe(_DEMO, {"hidden_size": 32, "output_hidden_size": 64, "dropout": 0.0})},
}
