"""PEMS03: flow at 358 sensors in 2018, 91 days at 5 minutes."""

from ealinformer.data import PUBLIC
from ealinformer.training import Experiment, Recipe

CONFIG = Experiment(
    series=PUBLIC["PEMS03"],
    recipes={"authors": Recipe(loss="huber", weight_decay=5e-4, milestones=(15, 30, 40), patience=20)},
)
