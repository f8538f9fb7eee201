"""PEMS07: flow at 883 sensors of the Los Angeles area, May to August 2017, 98 days at 5 minutes."""

from ealinformer.data import PUBLIC
from ealinformer.training import BASICTS_RECIPE, Experiment, Recipe

CONFIG = Experiment(
    series=PUBLIC["PEMS07"],
    recipes={
        "authors": Recipe(loss="huber", weight_decay=1e-3, milestones=(15, 35, 50), patience=20),
        "basicts": BASICTS_RECIPE.model_copy(update={"batch_size": 8}),
    },
)
