"""ELinFormer: STAEformer's backbone on entropy-equal linear attention (arXiv 2511.03190)."""

from dataclasses import dataclass, field

from ealinformer.attention import get_attention
from ealinformer.models.backbone import SpatioTemporalTransformer
from ealinformer.models.config import BackboneConfig


@dataclass
class ELinFormerConfig(BackboneConfig):
    """Config of ELinFormer."""

    attention: str = field(default="entropy_equal", metadata={"help": "Attention of both axes, by name."})
    entropy: str = field(default="taylor", metadata={"help": "Entropy estimator: taylor (the paper's) or gaussian."})
    eps: float = field(default=1e-8, metadata={"help": "Added to theta; a large one flattens the weights."})


class ELinFormer(SpatioTemporalTransformer):
    """Forecasts `[B, L, N]` -> `[B, H, N]` in time and memory linear in the number of sensors N.

    Raises:
        ValueError: a size or a name in the config cannot be.
    """

    def __init__(self, config: ELinFormerConfig) -> None:
        super().__init__(config, get_attention(config.attention, entropy=config.entropy, eps=config.eps))
