"""Published models to compare with, one package each."""

from baselines.STAEformer import STAEformer, STAEformerConfig
from ealinformer.models import Catalogue, ModelEntry

MODELS: Catalogue = {"STAEformer": ModelEntry(STAEformer, STAEformerConfig)}
