"""PEMS04: flow at 307 sensors of the San Francisco Bay Area, January and February 2018, 5 minutes."""

from ealinformer.data import PUBLIC
from ealinformer.training import Experiment, Recipe

CONFIG = Experiment(
    series=PUBLIC["PEMS04"],
    recipes={"authors": Recipe(loss="huber", weight_decay=5e-4, milestones=(15, 30, 50), patience=20)},
)
