"""STAEformer (arXiv 2308.10425): adaptive embeddings and softmax attention along time and sensors."""

from baselines.STAEformer.authors import load_authors_state_dict
from baselines.STAEformer.model import STAEformer, STAEformerConfig

__all__ = ["STAEformer", "STAEformerConfig", "load_authors_state_dict"]
