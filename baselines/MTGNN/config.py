"""MTGNN's config and recipes."""

from dataclasses import dataclass, field

from ealinformer.models import ForecasterConfig, ModelCard
from ealinformer.models.config import check_positive, check_rate
from ealinformer.recipe import Curriculum, PublishedRecipe, Recipe, Recipes

CARD = ModelCard(
    title="Connecting the Dots: Multivariate Time Series Forecasting with Graph Neural Networks",
    venue="KDD",
    year=2020,
    kind="TCN",
    arxiv="2005.11650",
)

KERNEL_SIZES = (2, 3, 6, 7)  # of the dilated inception (section 4.4): their sums make the periods 7, 14, 24, 28 and 30


@dataclass
class MTGNNConfig(ForecasterConfig):
    """Config of MTGNN."""

    hidden_size: int = field(default=32, metadata={"help": "Width D of the layers; 4 kernel sizes share it."})
    skip_size: int = field(default=64, metadata={"help": "Width of the sum of what the layers skip to the output."})
    end_size: int = field(default=128, metadata={"help": "Hidden width of the output map."})
    num_layers: int = field(default=3, metadata={"help": "Number of layers."})
    dilation_growth: int = field(default=1, metadata={"help": "Factor q of the dilation from one layer to the next."})
    node_embedding_size: int = field(default=40, metadata={"help": "Width of the tables that the graph is learned of."})
    num_neighbors: int = field(default=20, metadata={"help": "Number k of edges that the graph keeps of each sensor."})
    saturation: float = field(default=3.0, metadata={"help": "alpha of the graph's tanh."})
    tie_noise: float = field(
        default=0.01, metadata={"help": "In training edges are ranked with uniform noise of this size added."}
    )
    propagation_depth: int = field(default=2, metadata={"help": "Number K of hops of the mix-hop propagation."})
    retain_ratio: float = field(default=0.05, metadata={"help": "beta: share of its input that every hop keeps."})
    dropout: float = field(
        default=0.3, metadata={"help": "Dropout rate of the readings and of the gated convolutions."}
    )


def dilations(config: MTGNNConfig) -> list[int]:
    """Dilation of each layer: 1, 1, 1 as published for windows of 12 steps."""
    return [config.dilation_growth**layer for layer in range(config.num_layers)]


def receptive_field(config: MTGNNConfig) -> int:
    """How many steps a forecast is made of at least: 19 as published; a shorter window is padded in front."""
    return 1 + (max(KERNEL_SIZES) - 1) * sum(dilations(config))


def check_config(config: MTGNNConfig) -> None:
    """Raises ValueError that names the first size that cannot be."""
    check_positive(config, "input_len", "output_len", "num_features", "hidden_size", "skip_size", "end_size")
    check_positive(config, "num_layers", "dilation_growth", "node_embedding_size", "num_neighbors", "propagation_depth")
    check_rate(config, "retain_ratio", "dropout")
    if config.hidden_size % len(KERNEL_SIZES):
        raise ValueError(f"hidden_size has to be a multiple of {len(KERNEL_SIZES)}, got {config.hidden_size}")
    if not config.saturation > 0:
        raise ValueError(f"saturation has to be positive, got {config.saturation!r}")
    if not config.tie_noise >= 0:
        raise ValueError(f"tie_noise has to be 0 or positive, got {config.tie_noise!r}")


_BASICTS = Recipe(
    loss="masked_mae",
    lr=1e-3,
    weight_decay=1e-4,
    milestones=(),
    batch_size=64,
    num_epochs=100,
    patience=None,
    select_by="MAE",
    clip_grad_norm=5.0,
    curriculum=Curriculum(epochs=3),
)
_PUBLISHED = {"basicts": PublishedRecipe(_BASICTS, source="BasicTS 0.5.8")}

RECIPES: Recipes = {
    "PEMS-BAY": {
        **_PUBLISHED,
        "authors": PublishedRecipe(
            _BASICTS.model_copy(update={"curriculum": Curriculum(steps=2500)}),
            source="nnzhan/MTGNN, train_multi_step.py",
        ),
    },
    **dict.fromkeys(("PEMS03", "PEMS04", "PEMS07", "PEMS08", "default"), _PUBLISHED),
    "DEMO": {
        "demo": PublishedRecipe(
            _BASICTS.model_copy(
                update={"lr": 5e-3, "milestones": (1,), "batch_size": 16, "num_epochs": 2, "curriculum": None}
            ),
            params={"hidden_size": 16, "skip_size": 32, "end_size": 64, "node_embedding_size": 16, "num_neighbors": 8},
        )
    },
}
