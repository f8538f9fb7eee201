"""HimNet (arXiv 2405.10800): recurrent encoders and a decoder whose weights come from embeddings of place and time."""

from baselines.HimNet.config import CARD, RECIPES, HimNetConfig
from baselines.HimNet.model import HimNet
from ealinformer.models import ModelEntry

ENTRY = ModelEntry(HimNet, HimNetConfig, CARD, RECIPES)

__all__ = ["ENTRY", "HimNet", "HimNetConfig"]
