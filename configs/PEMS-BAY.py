"""PEMS-BAY: speed at 325 sensors of the San Francisco Bay Area, January to June 2017, 5 minutes."""

from ealinformer.data import PUBLIC
from ealinformer.training import Experiment, Recipe

CONFIG = Experiment(
    series=PUBLIC["PEMS-BAY"],
    recipes={"authors": Recipe(loss="masked_mae", weight_decay=1e-4, milestones=(10, 30), patience=20)},
)
