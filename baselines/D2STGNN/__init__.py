"""D2STGNN (arXiv 2206.09112): diffusion over dynamic graphs, and what each sensor does by itself, told apart."""

from baselines.D2STGNN.config import CARD, RECIPES, D2STGNNConfig
from baselines.D2STGNN.model import D2STGNN
from ealinformer.models import ModelEntry

ENTRY = ModelEntry(D2STGNN, D2STGNNConfig, CARD, RECIPES)

__all__ = ["D2STGNN", "ENTRY", "D2STGNNConfig"]
