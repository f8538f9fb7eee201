"""PDFormer (arXiv 2301.07945): attention to near and to similar sensors, with keys that know of propagation delays."""

from baselines.PDFormer.config import CARD, RECIPES, PDFormerConfig
from baselines.PDFormer.model import PDFormer
from ealinformer.models import ModelEntry

ENTRY = ModelEntry(PDFormer, PDFormerConfig, CARD, RECIPES)

__all__ = ["ENTRY", "PDFormer", "PDFormerConfig"]
