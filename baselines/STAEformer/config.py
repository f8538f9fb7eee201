"""STAEformer's config; its recipes are those of the config files, which ELinFormer shares."""

from dataclasses import dataclass, field

from ealinformer.models import BackboneConfig, ModelCard

CARD = ModelCard(
    title="STAEformer: Spatio-Temporal Adaptive Embedding Makes Vanilla Transformer SOTA for Traffic Forecasting",
    venue="CIKM",
    year=2023,
    kind="Transformer",
    arxiv="2308.10425",
)


@dataclass
class STAEformerConfig(BackboneConfig):
    """Config of STAEformer."""

    attention: str = field(
        default="sdpa", metadata={"help": "sdpa (fused) or softmax (N x N weights in memory, as the authors have it)."}
    )
