"""ELinFormer: STAEformer's backbone on entropy-equal linear attention (arXiv 2511.03190), or on another by name."""

from dataclasses import dataclass, field, fields
from typing import Any

from ealinformer.attention import Attention, attention_options, build_attention
from ealinformer.attention.options import positive_whole
from ealinformer.models.backbone import SpatioTemporalTransformer
from ealinformer.models.config import BackboneConfig, backbone_width


@dataclass
class ELinFormerConfig(BackboneConfig):
    """Config of ELinFormer. An option of another attention than the one named has to keep its default."""

    attention: str = field(default="entropy_equal", metadata={"help": "Attention of both axes, by name."})
    entropy: str = field(default="taylor", metadata={"help": "How entropy_equal estimates entropy; taylor: the paper."})
    eps: float = field(default=1e-8, metadata={"help": "entropy_equal adds it to theta; a large one flattens weights."})
    performer_features: int | None = field(
        default=None, metadata={"help": "Random features of performer, for heads of size C; C log C when None."}
    )
    linformer_rank: int = field(
        default=64, metadata={"help": "Learned mixtures of the keys for linformer; at most as many as there are keys."}
    )


# Key of the config -> option of the attention. num_features is the number of sensors in a config, so not all agree.
_OPTIONS = {"entropy": "entropy", "eps": "eps", "performer_features": "num_features", "linformer_rank": "rank"}
_WHOLE = ("performer_features", "linformer_rank")


class ELinFormer(SpatioTemporalTransformer):
    """Forecasts `[B, L, N]` -> `[B, H, N]` in time and memory linear in the number of sensors N.

    Raises:
        ValueError: a size, a name or an option in the config cannot be.
    """

    def __init__(self, config: ELinFormerConfig) -> None:
        options = _attention_options(config)

        def attention(num_keys: int) -> Attention:
            head_size = backbone_width(config) // config.n_heads
            return build_attention(config.attention, head_size=head_size, num_keys=num_keys, **options)

        super().__init__(config, attention)


def _attention_options(config: ELinFormerConfig) -> dict[str, Any]:
    """What the config says to its attention.

    Raises:
        ValueError: the attention is not known, or an option of another one is not at its default.
    """
    known = attention_options(config.attention)
    options = {}
    for key in fields(ELinFormerConfig):
        if key.name not in _OPTIONS:
            continue
        # A config that was saved before a key came has the default.
        value = getattr(config, key.name, key.default)
        if _OPTIONS[key.name] in known:
            if key.name in _WHOLE and value is not None:
                positive_whole(key.name, value)  # here, since the attention would call it by another name
            options[_OPTIONS[key.name]] = value
        elif value != key.default:
            raise ValueError(f"{key.name} has no effect on the attention {config.attention!r}, got {value!r}")
    return options
