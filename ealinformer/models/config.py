"""What models are built from, in the host's field names: all of them, and the shared backbone."""

from dataclasses import dataclass, field
from numbers import Integral, Real

from basicts.configs import BasicTSModelConfig

LAYERS = ("lean", "plain")


@dataclass
class ForecasterConfig(BasicTSModelConfig):
    """What every model has to be told of its windows."""

    input_len: int = field(default=12, metadata={"help": "Input length L."})
    output_len: int = field(default=12, metadata={"help": "Horizon H."})
    num_features: int = field(default=0, metadata={"help": "Number of sensors N. Must be given."})


@dataclass
class PriorConfig(ForecasterConfig):
    """The same of a model that has to know of its sensors before it is trained: see `ealinformer.data.prior`."""

    data_dir: str = field(default="", metadata={"help": "Folder of the prepared series, such as datasets/PEMS08."})
    graph: str = field(
        default="road", metadata={"help": "road: that of data_dir; correlation, knn, none: built; or a file."}
    )


@dataclass
class BackboneConfig(ForecasterConfig):
    """Sizes of the backbone that ELinFormer and STAEformer share; the defaults are the published ones."""

    num_time_in_day: int = field(default=288, metadata={"help": "Readings a day: 288 at an interval of 5 minutes."})
    num_day_in_week: int = field(default=7, metadata={"help": "Days of the day-of-week table."})
    input_hidden_size: int = field(default=24, metadata={"help": "Width of the linear map of a reading."})
    tid_hidden_size: int = field(default=24, metadata={"help": "Width of the time-of-day table; 0 leaves it out."})
    diw_hidden_size: int = field(default=24, metadata={"help": "Width of the day-of-week table; 0 leaves it out."})
    adaptive_hidden_size: int = field(default=80, metadata={"help": "Width of the adaptive table; 0 leaves it out."})
    intermediate_size: int = field(default=256, metadata={"help": "Hidden width of the feed-forward layers."})
    n_heads: int = field(default=4, metadata={"help": "Number of attention heads; divides the sum of the widths."})
    num_layers: int = field(default=3, metadata={"help": "Number of temporal and, after them, of spatial layers."})
    dropout: float = field(default=0.1, metadata={"help": "Dropout rate."})
    layers: str = field(
        default="lean", metadata={"help": "lean: less time and memory; plain: as papers write it; the same numbers."}
    )
    recompute: bool = field(
        default=False, metadata={"help": "Keep each layer's input alone and compute the rest again when it is needed."}
    )


def backbone_width(config: BackboneConfig) -> int:
    """Width D of the backbone: 152 as published.

    A function and no property, because a config that BasicTS has saved and read back is a plain EasyDict.
    """
    return config.input_hidden_size + config.tid_hidden_size + config.diw_hidden_size + config.adaptive_hidden_size


# A config that was saved before these keys came has the defaults.


def layers_of(config: BackboneConfig) -> str:
    """`layers` of a config."""
    return getattr(config, "layers", "lean")


def recomputes(config: BackboneConfig) -> bool:
    """`recompute` of a config."""
    return getattr(config, "recompute", False)


def check_backbone_config(config: BackboneConfig) -> None:
    """Raises ValueError that names the first size that cannot be."""
    sizes = ("input_len", "output_len", "num_features", "num_time_in_day", "num_day_in_week", "input_hidden_size")
    check_positive(config, *sizes, "intermediate_size", "n_heads", "num_layers")
    for name in ("tid_hidden_size", "diw_hidden_size", "adaptive_hidden_size"):
        if not _is_whole(config[name]) or config[name] < 0:
            raise ValueError(f"{name} has to be 0 or a positive whole number, got {config[name]!r}")
    check_rate(config, "dropout")
    if layers_of(config) not in LAYERS:
        raise ValueError(f"layers has to be one of {', '.join(LAYERS)}, got {config['layers']!r}")
    if not isinstance(recomputes(config), bool):
        raise ValueError(f"recompute has to be True or False, got {config['recompute']!r}")
    if backbone_width(config) % config.n_heads:
        raise ValueError(f"n_heads has to divide the width {backbone_width(config)}, got {config.n_heads}")


def check_positive(config: BasicTSModelConfig, *names: str) -> None:
    """Raises ValueError that names the first of these fields that is no positive whole number."""
    for name in names:
        if not _is_whole(config[name]) or config[name] < 1:
            raise ValueError(f"{name} has to be a positive whole number, got {config[name]!r}")


def check_rate(config: BasicTSModelConfig, *names: str) -> None:
    """Raises ValueError that names the first of these fields that is not in [0, 1), as a dropout rate has to be."""
    for name in names:
        if not isinstance(config[name], Real) or not 0 <= config[name] < 1:
            raise ValueError(f"{name} has to be in [0, 1), got {config[name]!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
