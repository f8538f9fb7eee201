"""PDFormer's sizes and recipes; the defaults are the authors' for PEMS08."""

from dataclasses import dataclass, field
from typing import Any

from ealinformer.models import ModelCard, PriorConfig
from ealinformer.models.config import check_positive, check_rate
from ealinformer.recipe import Curriculum, PublishedRecipe, Recipe, Recipes

CARD = ModelCard(
    title="PDFormer: Propagation Delay-aware Dynamic Long-range Transformer for Traffic Flow Prediction",
    venue="AAAI",
    year=2023,
    kind="Transformer",
    arxiv="2301.07945",
    needs_graph=True,
)


@dataclass
class PDFormerConfig(PriorConfig):
    """Config of PDFormer."""

    num_time_in_day: int = field(default=288, metadata={"help": "Readings a day: 288 at an interval of 5 minutes."})
    num_minute_in_day: int = field(
        default=1440, metadata={"help": "Rows of the time-of-day table: one a minute, whatever the interval."}
    )
    num_day_in_week: int = field(default=7, metadata={"help": "Days of the day-of-week table."})
    hidden_size: int = field(default=64, metadata={"help": "Width D; the three kinds of heads share it evenly."})
    intermediate_size: int = field(default=256, metadata={"help": "Hidden width of the feed-forward layers."})
    skip_size: int = field(default=256, metadata={"help": "Width of the skip connections."})
    num_layers: int = field(default=6, metadata={"help": "Number of blocks."})
    geographic_heads: int = field(default=4, metadata={"help": "Heads that see sensors few hops away."})
    semantic_heads: int = field(default=2, metadata={"help": "Heads that see sensors with similar days."})
    temporal_heads: int = field(default=2, metadata={"help": "Heads that see the other steps of a sensor."})
    far_hops: int = field(default=7, metadata={"help": "Geographic heads see sensors fewer hops away than this."})
    num_similar: int = field(default=5, metadata={"help": "Sensors that a semantic head sees, itself among them."})
    num_eigenvectors: int = field(
        default=8, metadata={"help": "Eigenvectors of the graph Laplacian that are embedded."}
    )
    pattern_len: int = field(default=3, metadata={"help": "Steps S of a traffic pattern."})
    num_patterns: int = field(default=16, metadata={"help": "Traffic patterns that k-Shape finds."})
    pattern_days: int = field(default=21, metadata={"help": "First days of the training part that are clustered."})
    dropout: float = field(default=0.0, metadata={"help": "Dropout rate of embedding, attention and feed-forward."})
    drop_path: float = field(
        default=0.3, metadata={"help": "Rate at which the last block's branches are left out; linear from 0."}
    )


def check_config(config: PDFormerConfig) -> None:
    """Raises ValueError that names the first size that cannot be."""
    check_positive(config, "input_len", "output_len", "num_features", "num_time_in_day", "num_minute_in_day")
    check_positive(config, "num_day_in_week", "hidden_size", "intermediate_size", "skip_size", "num_layers")
    check_positive(config, "geographic_heads", "semantic_heads", "temporal_heads", "far_hops", "num_similar")
    check_positive(config, "num_eigenvectors", "pattern_len", "num_patterns", "pattern_days")
    check_rate(config, "dropout", "drop_path")
    heads = config.geographic_heads + config.semantic_heads + config.temporal_heads
    if config.hidden_size % heads:
        raise ValueError(
            f"hidden_size has to be a multiple of the {heads} heads of all kinds, got {config.hidden_size}"
        )


# Selected by the validation loss, as the authors do. The pace of the horizon differs by series.
_AUTHORS = Recipe(
    loss="huber_2",
    optimizer="adamw",
    lr=1e-3,
    weight_decay=0.05,
    schedule="cosine",
    min_lr=1e-4,
    warmup_epochs=5,
    warmup_lr=1e-6,
    batch_size=16,
    num_epochs=200,
    patience=50,
    clip_grad_norm=5.0,
)


def _published(source: str, days: int, pace: Curriculum, **changes: Any) -> PublishedRecipe:
    recipe = _AUTHORS.model_copy(update={"curriculum": pace, **changes})
    return PublishedRecipe(recipe, params={"pattern_days": days}, source=source)


_SOURCE = "BUAABIGSCity/PDFormer"
_DEMO = PublishedRecipe(
    Recipe(loss="masked_mae", lr=4e-3, weight_decay=1e-4, milestones=(2,), num_epochs=3, clip_grad_norm=5.0),
    params={
        "hidden_size": 32,
        "intermediate_size": 64,
        "skip_size": 64,
        "num_layers": 2,
        "pattern_days": 14,
        "drop_path": 0.0,
    },
)
RECIPES: Recipes = {
    "PEMS-BAY": {"third-party": _published(f"{_SOURCE}, issue 7", 21, Curriculum(steps=2500))},
    "PEMS04": {"authors": _published(_SOURCE, 14, Curriculum(steps=1274))},
    # Two batches of 8 make a step there, and the pace counts batches: 4,232 of them.
    "PEMS07": {"authors": _published(_SOURCE, 14, Curriculum(steps=2116), micro_batch_size=8)},
    "PEMS08": {"authors": _published(_SOURCE, 21, Curriculum(steps=2776))},
    # A horizon more every second epoch, as on PEMS04 and PEMS07.
    "default": {"adapted": _published(f"{_SOURCE}, PEMS04", 14, Curriculum(epochs=2))},
    "DEMO": {"demo": _DEMO},
}
