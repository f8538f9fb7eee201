"""ELinFormer, the backbone it shares with STAEformer, and the simple forecasts that a model has to beat."""

from ealinformer.models.backbone import SpatioTemporalTransformer
from ealinformer.models.catalogue import Catalogue, ModelCard, ModelEntry, find_model
from ealinformer.models.config import BackboneConfig, ForecasterConfig, PriorConfig
from ealinformer.models.elinformer import ELinFormer, ELinFormerConfig

CARD = ModelCard(
    title="Efficient Linear Attention for Multivariate Time Series Modeling via Entropy Equality",
    venue="arXiv",
    year=2025,
    kind="Transformer, linear",
    arxiv="2511.03190",
)
MODELS: Catalogue = {"ELinFormer": ModelEntry(ELinFormer, ELinFormerConfig, CARD)}

__all__ = [
    "MODELS",
    "BackboneConfig",
    "Catalogue",
    "ELinFormer",
    "ELinFormerConfig",
    "ForecasterConfig",
    "ModelCard",
    "ModelEntry",
    "PriorConfig",
    "SpatioTemporalTransformer",
    "find_model",
]
