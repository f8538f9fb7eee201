"""MTGNN (arXiv 2005.11650): dilated inception along time, mix-hop propagation over a graph that it learns."""

from baselines.MTGNN.config import CARD, RECIPES, MTGNNConfig
from baselines.MTGNN.model import MTGNN
from ealinformer.models import ModelEntry

ENTRY = ModelEntry(MTGNN, MTGNNConfig, CARD, RECIPES)

__all__ = ["ENTRY", "MTGNN", "MTGNNConfig"]
