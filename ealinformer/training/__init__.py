"""What sits on BasicTS: configs, recipes, runner, losses, metrics, checkpoints.

Importing the package loads the config schemas alone, so that a config file costs no import of torch.
"""

from ealinformer.data.spec import SeriesSpec
from ealinformer.training.config import BASICTS_RECIPE, Experiment, Recipe, RunConfig, load_config

__all__ = ["BASICTS_RECIPE", "Experiment", "Recipe", "RunConfig", "SeriesSpec", "load_config"]
