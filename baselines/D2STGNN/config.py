"""D2STGNN's config, checked, and how it is trained on each series."""

from dataclasses import dataclass, field
from numbers import Integral

from ealinformer.models import ModelCard
from ealinformer.models.config import PriorConfig, check_positive, check_rate
from ealinformer.recipe import DEFAULT, Curriculum, PublishedRecipe, Recipe, Recipes

CARD = ModelCard(
    title="Decoupled Dynamic Spatial-Temporal Graph Neural Network for Traffic Forecasting",
    venue="PVLDB",
    year=2022,
    kind="RNN plus attention",
    arxiv="2206.09112",
    needs_graph=True,
)


@dataclass
class D2STGNNConfig(PriorConfig):
    """Sizes of D2STGNN; the defaults are those of PEMS08."""

    num_time_in_day: int = field(default=288, metadata={"help": "Readings a day: 288 at an interval of 5 minutes."})
    num_day_in_week: int = field(default=7, metadata={"help": "Days of the day-of-week table."})
    hidden_size: int = field(default=32, metadata={"help": "Width D."})
    node_hidden_size: int = field(default=10, metadata={"help": "Width of either embedding of a sensor."})
    time_hidden_size: int = field(default=10, metadata={"help": "Width of the time-of-day and day-of-week tables."})
    gate_hidden_size: int = field(default=64, metadata={"help": "Hidden width of the estimation gate."})
    forecast_hidden_size: int = field(default=256, metadata={"help": "Width in which the branches' forecasts add up."})
    output_hidden_size: int = field(default=512, metadata={"help": "Hidden width of the map to the forecast."})
    num_layers: int = field(default=5, metadata={"help": "Layers; each takes k_t - 1 steps off the input's start."})
    n_heads: int = field(default=4, metadata={"help": "Heads of the attention along time; divides hidden_size."})
    k_s: int = field(default=2, metadata={"help": "Spatial order: how many hops traffic diffuses in a step."})
    k_t: int = field(default=3, metadata={"help": "Temporal kernel: how many steps a diffusion looks back."})
    gap: int = field(default=3, metadata={"help": "Horizons that one extrapolated state stands for."})
    num_position_layers: int = field(
        default=1, metadata={"help": "Layers, from the first, whose attention knows positions; the authors: all."}
    )
    dropout: float = field(default=0.1, metadata={"help": "Dropout rate."})


def check_config(config: D2STGNNConfig) -> None:
    """Raises ValueError that names the first field that cannot be, or an input too short for the layers."""
    check_positive(config, "input_len", "output_len", "num_features", "num_time_in_day", "num_day_in_week")
    check_positive(config, "hidden_size", "node_hidden_size", "time_hidden_size", "gate_hidden_size")
    check_positive(config, "forecast_hidden_size", "output_hidden_size", "num_layers", "n_heads", "k_s", "k_t", "gap")
    check_rate(config, "dropout")
    if config.hidden_size % config.n_heads:
        raise ValueError(f"n_heads has to divide hidden_size {config.hidden_size}, got {config.n_heads}")
    positions = config.num_position_layers
    if not isinstance(positions, Integral) or isinstance(positions, bool) or not 0 <= positions <= config.num_layers:
        raise ValueError(
            f"num_position_layers has to be a whole number from 0 to num_layers {config.num_layers}, got {positions!r}"
        )
    shortest = config.num_layers * (config.k_t - 1) + 1
    if config.input_len < shortest:
        raise ValueError(
            f"input_len has to be {shortest} or more, as each of {config.num_layers} layers takes k_t - 1 = "
            f"{config.k_t - 1} steps off it, got {config.input_len}"
        )


def num_states(config: D2STGNNConfig) -> int:
    """States that a branch extrapolates: H / gap, rounded up."""
    return -(-config.output_len // config.gap)


_BASICTS = Recipe(
    loss="masked_mae",
    lr=2e-3,
    weight_decay=1e-5,
    milestones=(1, 30, 38, 46, 54, 62, 70, 80),
    gamma=0.5,
    num_epochs=100,
    patience=None,
    select_by="MAE",
    clip_grad_norm=5.0,
    curriculum=Curriculum(epochs=3, warm_epochs=30),
)
_PRE = _BASICTS.model_copy(update={"milestones": (1, 30, 38, 46, 54, 150)})
_WIDE = {"node_hidden_size": 12, "time_hidden_size": 12}
_NARROW = {"node_hidden_size": 10, "time_hidden_size": 10}


def _published(params: dict[str, int], batch_size: int = 16) -> dict[str, PublishedRecipe]:
    batch = {"batch_size": batch_size}
    return {
        "basicts": PublishedRecipe(_BASICTS.model_copy(update=batch), params, "BasicTS 0.5.8"),
        "basicts-pre-0.4": PublishedRecipe(_PRE.model_copy(update=batch), params, "BasicTS before 0.4"),
    }


_DEMO = _BASICTS.model_copy(
    update={"lr": 5e-3, "milestones": (1,), "batch_size": 32, "num_epochs": 2, "curriculum": None}
)
_SMALL = {
    "hidden_size": 16,
    "num_layers": 2,
    "gate_hidden_size": 32,
    "forecast_hidden_size": 64,
    "output_hidden_size": 128,
}

RECIPES: Recipes = {
    "PEMS-BAY": {
        "basicts": PublishedRecipe(_BASICTS, _WIDE, "BasicTS 0.5.8"),
        "basicts-pre-0.4": PublishedRecipe(_BASICTS.model_copy(update={"batch_size": 32}), _WIDE, "BasicTS before 0.4"),
        "authors": PublishedRecipe(
            _BASICTS.model_copy(update={"batch_size": 32, "num_epochs": 80, "patience": 100}),
            {**_WIDE, "num_position_layers": 5},
            "zezhishao/D2STGNN; its reset of the learning rate to 0.002 as the curriculum starts is left out",
        ),
    },
    "PEMS03": _published(_WIDE),
    "PEMS04": _published(_WIDE),
    "PEMS07": _published(_NARROW, batch_size=8),
    "PEMS08": _published(_NARROW),
    DEFAULT: {"basicts": PublishedRecipe(_BASICTS, _NARROW, "BasicTS 0.5.8, as for PEMS08")},
    "DEMO": {"demo": PublishedRecipe(_DEMO, _SMALL)},
}
