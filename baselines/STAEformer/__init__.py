"""STAEformer (arXiv 2308.10425): adaptive embeddings and softmax attention along time and sensors."""

from baselines.STAEformer.authors import load_authors_state_dict
from baselines.STAEformer.config import CARD, STAEformerConfig
from baselines.STAEformer.model import STAEformer
from ealinformer.models import ModelEntry

ENTRY = ModelEntry(STAEformer, STAEformerConfig, CARD)

__all__ = ["ENTRY", "STAEformer", "STAEformerConfig", "load_authors_state_dict"]
