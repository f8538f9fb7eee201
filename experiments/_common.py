"""What the command lines of experiments/ share: the catalogue of models and the arguments about data and devices."""

import argparse
from pathlib import Path

import _interrupt  # noqa: F401  before what takes seconds to import

import baselines
from ealinformer import models
from ealinformer.models import Catalogue

CATALOGUE: Catalogue = {**models.MODELS, **baselines.MODELS}


SET_HELP = "change a key of the recipe (lr=0.002), of the run (input_len=24) or of the model (model.entropy=gaussian)"


def add_run_arguments(parser: argparse.ArgumentParser, *, set_help: str = SET_HELP) -> None:
    """Add what chooses config, model and devices."""
    parser.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="e.g. configs/PEMS08.py")
    parser.add_argument("--gpus", metavar="LIST", help="0, or 0,1 for several; the CPU when left out")
    parser.add_argument("--model", metavar="NAME", help=f"{', '.join(CATALOGUE)}; the config's when left out")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=set_help)
    parser.add_argument("--datasets-dir", type=Path, default=Path("datasets"), metavar="DIR", help="prepared data sets")
