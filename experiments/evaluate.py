"""Score a checkpoint on a part of its data set: the same table as at the end of its training."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from _common import CATALOGUE, add_run_arguments

from ealinformer.cli import ArgumentParser, run
from ealinformer.errors import InputError
from ealinformer.measure import provenance
from ealinformer.training import load_config
from ealinformer.training.jobs import prepare_job
from ealinformer.training.launcher import describe_score, evaluate
from ealinformer.training.predictions import check_path
from ealinformer.training.resolve import resolve

EXAMPLES = """examples:
  python experiments/evaluate.py -c configs/PEMS08.py --checkpoint checkpoints/ELinFormer/PEMS08/RUN/best.pt
  python experiments/evaluate.py -c configs/PEMS08.py --checkpoint RUN/best.pt --split val --json
  python experiments/evaluate.py -c configs/PEMS08.py --checkpoint RUN/best.pt --predictions forecasts.npz
"""

# All else is the checkpoint's, and a --set without effect would mislead.
SETTINGS = ("input_len", "output_len", "eval_batch_size", "dtype", "compile", "windows")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and score."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    add_run_arguments(
        parser, set_help="input_len=24, output_len=24, eval_batch_size=8, dtype=float32, compile=off or windows=host"
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="best.pt or last.pt of a run")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="part to score (test)")
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="write forecasts and targets to an .npz file")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    given = parser.parse_args(arguments)

    set_keys = [setting.partition("=")[0].strip() for setting in given.settings]
    for key in set_keys:
        if key not in SETTINGS:
            raise InputError(f"--set {key}: the checkpoint brings its own; {', '.join(SETTINGS)} can be set here")
    if given.predictions is not None:
        check_path(given.predictions)
    config = resolve(load_config(given.config), model=given.model, settings=given.settings, catalogue=CATALOGUE)
    job = prepare_job(config, CATALOGUE, datasets_dir=given.datasets_dir, gpus=given.gpus, with_prior=False)
    job = dataclasses.replace(job, predictions=given.predictions)
    eval_batch_size = config.recipe.eval_batch_size if "eval_batch_size" in set_keys else None
    for_machine = {key: getattr(config, key) for key in ("dtype", "compile", "windows") if key in set_keys}
    metrics = evaluate(job, given.checkpoint, given.split, eval_batch_size=eval_batch_size, **for_machine)
    print(json.dumps({**metrics, **provenance()}, indent=2) if given.json else describe_score(metrics))


if __name__ == "__main__":
    run(main)
