"""STAEformer: the shared backbone with softmax attention."""

from baselines.STAEformer.config import STAEformerConfig
from ealinformer.attention import fused_softmax_attention, softmax_attention
from ealinformer.models import SpatioTemporalTransformer


class STAEformer(SpatioTemporalTransformer):
    """Forecasts `[B, L, N]` -> `[B, H, N]`; time quadratic in the number of sensors N.

    Raises:
        ValueError: a size or a name in the config cannot be.
    """

    def __init__(self, config: STAEformerConfig) -> None:
        if config.attention not in ("sdpa", "softmax"):
            raise ValueError(f"STAEformer's attention is sdpa or softmax, got {config.attention!r}")
        attention = fused_softmax_attention if config.attention == "sdpa" else softmax_attention
        super().__init__(config, lambda num_keys: attention)
