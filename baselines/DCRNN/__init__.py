"""DCRNN (arXiv 1707.01926): diffusion along the road graph inside of a recurrent encoder and decoder."""

from baselines.DCRNN.config import CARD, RECIPES, DCRNNConfig
from baselines.DCRNN.model import DCRNN
from ealinformer.models import ModelEntry

ENTRY = ModelEntry(DCRNN, DCRNNConfig, CARD, RECIPES)

__all__ = ["DCRNN", "ENTRY", "DCRNNConfig"]
