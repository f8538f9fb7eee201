"""Score a checkpoint on a part of its data set: the same table as at the end of its training."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from _common import CATALOGUE, add_run_arguments

from ealinformer.cli import ArgumentParser, run
from ealinformer.measure import provenance
from ealinformer.training import load_config
from ealinformer.training.launcher import describe_score, evaluate, prepare_job
from ealinformer.training.predictions import check_path
from ealinformer.training.resolve import resolve

EXAMPLES = """examples:
  python experiments/evaluate.py -c configs/PEMS08.py --checkpoint checkpoints/ELinFormer/PEMS08/RUN/best.pt
  python experiments/evaluate.py -c configs/PEMS08.py --checkpoint RUN/best.pt --split val --json
  python experiments/evaluate.py -c configs/PEMS08.py --checkpoint RUN/best.pt --predictions forecasts.npz
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and score."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    add_run_arguments(parser)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="best.pt or last.pt of a run")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="part to score (test)")
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="write forecasts and targets to an .npz file")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    given = parser.parse_args(arguments)

    if given.predictions is not None:
        check_path(given.predictions)
    config = resolve(load_config(given.config), model=given.model, settings=given.settings)
    job = prepare_job(config, CATALOGUE, datasets_dir=given.datasets_dir, gpus=given.gpus)
    metrics = evaluate(dataclasses.replace(job, predictions=given.predictions), given.checkpoint, given.split)
    print(json.dumps({**metrics, **provenance()}, indent=2) if given.json else describe_score(metrics))


if __name__ == "__main__":
    run(main)
