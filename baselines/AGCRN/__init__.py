"""AGCRN (arXiv 2007.02842): a GRU whose graph and weights come from an embedding of each sensor."""

from baselines.AGCRN.config import CARD, RECIPES, AGCRNConfig
from baselines.AGCRN.model import AGCRN
from ealinformer.models import ModelEntry

ENTRY = ModelEntry(AGCRN, AGCRNConfig, CARD, RECIPES)

__all__ = ["AGCRN", "ENTRY", "AGCRNConfig"]
