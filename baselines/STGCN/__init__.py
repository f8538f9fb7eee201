"""STGCN (arXiv 1709.04875): gated convolutions along time around Chebyshev convolutions on the road graph."""

from baselines.STGCN.config import CARD, RECIPES, STGCNConfig
from baselines.STGCN.model import STGCN
from ealinformer.models import ModelEntry

ENTRY = ModelEntry(STGCN, STGCNConfig, CARD, RECIPES)

__all__ = ["ENTRY", "STGCN", "STGCNConfig"]
