"""STWave (arXiv 2112.02740): a wavelet splits trend from events, spectral graph attention asks a few sensors only."""

from baselines.STWave.config import CARD, STWaveConfig
from baselines.STWave.model import STWave
from baselines.STWave.recipes import RECIPES
from ealinformer.models import ModelEntry

ENTRY = ModelEntry(STWave, STWaveConfig, CARD, RECIPES)

__all__ = ["ENTRY", "STWave", "STWaveConfig"]
