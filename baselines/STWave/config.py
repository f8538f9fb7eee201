"""STWave's config; the defaults are those of BasicTS 0.5.8 on PEMS08."""

from dataclasses import dataclass, field

from ealinformer.models import ModelCard, PriorConfig
from ealinformer.models.config import check_positive, check_rate

CARD = ModelCard(
    title="When Spatio-Temporal Meet Wavelets: Disentangled Traffic Forecasting via Efficient Spectral Graph "
    "Attention Networks",
    venue="ICDE",
    year=2023,
    kind="Transformer",
    arxiv="2112.02740",
    needs_graph=True,
)
QUERY_SCORES = ("features", "neighbours")


@dataclass
class STWaveConfig(PriorConfig):
    """Config of STWave."""

    num_time_in_day: int = field(default=288, metadata={"help": "Readings a day: 288 at an interval of 5 minutes."})
    num_day_in_week: int = field(default=7, metadata={"help": "Days of a week."})
    hidden_size: int = field(default=128, metadata={"help": "Width D, and the most eigenvectors taken of a graph."})
    n_heads: int = field(default=1, metadata={"help": "Number of attention heads; divides hidden_size."})
    num_layers: int = field(default=2, metadata={"help": "Number of layers of the two branches."})
    log_samples: int = field(default=1, metadata={"help": "Queries and neighbours, as a multiple of log2 N."})
    wave_type: str = field(default="coif1", metadata={"help": "Mother wavelet, by its name in PyWavelets."})
    wave_levels: int = field(default=2, metadata={"help": "Levels of the wavelet decomposition."})
    kernel_size: int = field(default=2, metadata={"help": "Steps that a causal convolution sees."})
    dropout: float = field(default=0.2, metadata={"help": "Dropout rate after a causal convolution."})
    query_score: str = field(
        default="features",
        metadata={"help": "What scores a query: its product with the neighbours' mean key by feature, or with each."},
    )
    spatial_norm_affine: bool = field(
        default=False, metadata={"help": "Whether the norms of spatial attention learn a scale and a shift."}
    )
    dtw_graph: bool = field(
        default=False, metadata={"help": "Take eigenvectors of the graph of sensors with alike days as well."}
    )


def check_config(config: STWaveConfig) -> None:
    """Raises ValueError that names the first field that cannot be."""
    sizes = ("input_len", "output_len", "num_features", "num_time_in_day", "num_day_in_week", "hidden_size", "n_heads")
    check_positive(config, *sizes, "num_layers", "log_samples", "wave_levels", "kernel_size")
    check_rate(config, "dropout")
    if config.hidden_size % config.n_heads:
        raise ValueError(f"n_heads has to divide hidden_size {config.hidden_size}, got {config.n_heads}")
    if config.query_score not in QUERY_SCORES:
        raise ValueError(f"query_score has to be one of {', '.join(QUERY_SCORES)}, got {config.query_score!r}")
    for name in ("spatial_norm_affine", "dtw_graph"):
        if not isinstance(config[name], bool):
            raise ValueError(f"{name} has to be True or False, got {config[name]!r}")
