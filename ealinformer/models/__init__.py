"""ELinFormer, the backbone it shares with STAEformer, and the simple forecasts that a model has to beat."""

from ealinformer.models.backbone import SpatioTemporalTransformer
from ealinformer.models.catalogue import Catalogue, ModelEntry, find_model
from ealinformer.models.config import BackboneConfig
from ealinformer.models.elinformer import ELinFormer, ELinFormerConfig

MODELS: Catalogue = {"ELinFormer": ModelEntry(ELinFormer, ELinFormerConfig)}

__all__ = [
    "MODELS",
    "BackboneConfig",
    "Catalogue",
    "ELinFormer",
    "ELinFormerConfig",
    "ModelEntry",
    "SpatioTemporalTransformer",
    "find_model",
]
