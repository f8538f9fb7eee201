"""PEMS08: flow at 170 sensors of the San Bernardino area, July and August 2016, 5 minutes."""

from ealinformer.data import PUBLIC
from ealinformer.training import Experiment, Recipe

CONFIG = Experiment(
    series=PUBLIC["PEMS08"],
    recipes={"authors": Recipe(loss="huber", weight_decay=1.5e-3, milestones=(25, 45, 65), patience=30)},
)
