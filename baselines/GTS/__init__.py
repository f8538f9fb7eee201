"""GTS (arXiv 2101.06861): a discrete graph learned from the training series, and a forecast along it."""

from baselines.GTS.config import CARD, RECIPES, GTSConfig
from baselines.GTS.model import GTS
from ealinformer.models import ModelEntry

ENTRY = ModelEntry(GTS, GTSConfig, CARD, RECIPES)

__all__ = ["ENTRY", "GTS", "GTSConfig"]
