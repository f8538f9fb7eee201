"""Graph WaveNet's config and recipes."""

from dataclasses import dataclass, field

from ealinformer.models import ModelCard, PriorConfig
from ealinformer.models.config import check_positive, check_rate
from ealinformer.recipe import PublishedRecipe, Recipe, Recipes

CARD = ModelCard(
    title="Graph WaveNet for Deep Spatial-Temporal Graph Modeling",
    venue="IJCAI",
    year=2019,
    kind="TCN",
    arxiv="1906.00121",
    needs_graph=True,
)


@dataclass
class GWNetConfig(PriorConfig):
    """Config of Graph WaveNet."""

    hidden_size: int = field(default=32, metadata={"help": "Width D of the layers."})
    skip_size: int = field(default=256, metadata={"help": "Width of the sum of what the layers skip to the output."})
    end_size: int = field(default=512, metadata={"help": "Hidden width of the output map."})
    num_blocks: int = field(default=4, metadata={"help": "Number of blocks; the dilation starts again at 1 in each."})
    num_layers: int = field(
        default=2, metadata={"help": "Layers of a block; the dilation doubles from one to the next."}
    )
    kernel_size: int = field(default=2, metadata={"help": "Taps of the temporal convolutions."})
    diffusion_order: int = field(default=2, metadata={"help": "Number K of diffusion steps over each graph."})
    node_embedding_size: int = field(
        default=10, metadata={"help": "Width c of the tables that the learned graph is of."}
    )
    dropout: float = field(default=0.3, metadata={"help": "Dropout rate of the diffusion convolutions."})


def dilations(config: GWNetConfig) -> list[int]:
    """Dilation of each layer: 1, 2, 1, 2, 1, 2, 1, 2 as published."""
    return [2**layer for _ in range(config.num_blocks) for layer in range(config.num_layers)]


def receptive_field(config: GWNetConfig) -> int:
    """How many steps a forecast can be made of: 13 as published."""
    return 1 + (config.kernel_size - 1) * sum(dilations(config))


def check_config(config: GWNetConfig) -> None:
    """Raises ValueError that names the first size that cannot be, or a window longer than the layers reach."""
    check_positive(config, "input_len", "output_len", "num_features", "hidden_size", "skip_size", "end_size")
    check_positive(config, "num_blocks", "num_layers", "kernel_size", "diffusion_order", "node_embedding_size")
    check_rate(config, "dropout")
    if config.input_len > receptive_field(config):
        raise ValueError(
            f"input_len has to be at most {receptive_field(config)}, as far as {config.num_blocks} blocks (num_blocks) "
            f"of {config.num_layers} layers (num_layers) reach, got {config.input_len}"
        )


_BASICTS = Recipe(
    loss="masked_mae",
    lr=2e-3,
    weight_decay=1e-4,
    milestones=(1, 50),
    gamma=0.5,
    num_epochs=100,
    patience=None,
    select_by="MAE",
    clip_grad_norm=5.0,
)
_PRE_04 = _BASICTS.model_copy(update={"batch_size": 64})
_AUTHORS = _BASICTS.model_copy(update={"lr": 1e-3, "milestones": (), "batch_size": 64})
_BASICTS_ENTRY = {"basicts": PublishedRecipe(_BASICTS, source="BasicTS 0.5.8")}
_FLOW = {
    **_BASICTS_ENTRY,
    "basicts-pre-0.4": PublishedRecipe(
        _PRE_04.model_copy(update={"milestones": (1, 50, 100)}), source="BasicTS before 0.4, commit ee1b4d7"
    ),
}

RECIPES: Recipes = {
    "PEMS-BAY": {
        **_BASICTS_ENTRY,
        "basicts-pre-0.4": PublishedRecipe(_PRE_04, source="BasicTS before 0.4, commit ee1b4d7"),
        "authors": PublishedRecipe(_AUTHORS, source="nnzhan/Graph-WaveNet, train.py and README"),
    },
    **dict.fromkeys(("PEMS03", "PEMS04", "PEMS07", "PEMS08"), _FLOW),
    "default": _BASICTS_ENTRY,
    "DEMO": {
        "demo": PublishedRecipe(
            _BASICTS.model_copy(update={"lr": 5e-3, "milestones": (1,), "batch_size": 16, "num_epochs": 2}),
            params={"hidden_size": 16, "skip_size": 64, "end_size": 128},
        )
    },
}
