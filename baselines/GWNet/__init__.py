"""Graph WaveNet (arXiv 1906.00121): dilated convolutions along time, diffusion over road and learned graphs."""

from baselines.GWNet.config import CARD, RECIPES, GWNetConfig
from baselines.GWNet.model import GWNet
from ealinformer.models import ModelEntry

ENTRY = ModelEntry(GWNet, GWNetConfig, CARD, RECIPES)

__all__ = ["ENTRY", "GWNet", "GWNetConfig"]
