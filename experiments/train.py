"""Train a model on a prepared data set and score it on the test part."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from _common import CATALOGUE, add_run_arguments

from ealinformer.cli import ArgumentParser, run
from ealinformer.training import load_config
from ealinformer.training.launcher import prepare_job, train
from ealinformer.training.resolve import resolve

EXAMPLES = """examples:
  python experiments/train.py -c configs/PEMS08.py --gpus 0
  python experiments/train.py -c configs/PEMS08.py --model STAEformer --recipe basicts --gpus 0
  python experiments/train.py -c configs/PEMS08.py --set model.entropy=gaussian --set lr=0.0005
  python experiments/train.py -c configs/DEMO.py --max-steps 20 --output-dir /tmp/try
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    add_run_arguments(parser)
    parser.add_argument("--recipe", metavar="NAME", help="authors (default) or basicts, or another of the config")
    parser.add_argument("--seed", type=int, help="seed of weights, shuffling and dropout")
    parser.add_argument("--epochs", type=int, metavar="N", help="at most N epochs")
    parser.add_argument("--batch-size", type=int, metavar="N", help="windows in a step")
    parser.add_argument("--max-steps", type=int, metavar="N", help="stop after N steps, score what is there")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="folder of the run, new or empty")
    parser.add_argument("--predictions", action="store_true", help="write predictions.npz of the test part, too")
    given = parser.parse_args(arguments)

    short = {
        "seed": given.seed,
        "num_epochs": given.epochs,
        "batch_size": given.batch_size,
        "max_steps": given.max_steps,
    }
    settings = [*given.settings, *(f"{key}={value}" for key, value in short.items() if value is not None)]
    config = resolve(load_config(given.config), model=given.model, recipe=given.recipe, settings=settings)
    job = prepare_job(config, CATALOGUE, datasets_dir=given.datasets_dir, folder=given.output_dir, gpus=given.gpus)
    if given.predictions:
        job = dataclasses.replace(job, predictions=job.folder / "predictions.npz")
    train(job)


if __name__ == "__main__":
    run(main)
