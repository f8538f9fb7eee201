"""Train a model on a prepared data set and score it on the test part; given its folder, go on with a stopped run."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from _common import CATALOGUE, add_run_arguments
from _models import list_models

from ealinformer.cli import ArgumentParser, run
from ealinformer.errors import InputError
from ealinformer.training import load_config
from ealinformer.training.distributed.processes import start_processes
from ealinformer.training.distributed.ranks import ranks_from_environment
from ealinformer.training.jobs import prepare_job
from ealinformer.training.launcher import train
from ealinformer.training.resolve import resolve
from ealinformer.training.resume import MODES

EXAMPLES = """examples:
  python experiments/train.py -c configs/PEMS08.py --gpus 0
  python experiments/train.py -c configs/PEMS08.py --model STAEformer --recipe basicts --gpus 0,1,2,3
  python experiments/train.py -c configs/PEMS08.py --list-models
  python experiments/train.py -c configs/PEMS07.py --model DCRNN --graph correlation --gpus 0
  python experiments/train.py -c configs/PEMS08.py --set model.entropy=gaussian --set lr=0.0005
  python experiments/train.py -c configs/DEMO.py --max-steps 20 --output-dir /tmp/try
  python experiments/train.py -c configs/PEMS07.py --gpus 0 --set dtype=bf16 --set compile=default
  python experiments/train.py -c configs/PEMS07.py --set micro_batch_size=4 --set windows=host
  torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 --max-restarts 3 \\
      experiments/train.py -c configs/PEMS07.py --gpus 0,1,2,3 --output-dir /shared/run

A run that was stopped by Ctrl-C, SIGTERM, a crash or a reboot goes on exactly where its last checkpoint is when it is
given the same --output-dir; Ctrl-C and SIGTERM write one first. batch_size is that of one process.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    add_run_arguments(parser)
    parser.add_argument("--recipe", metavar="NAME", help="of the model: authors, basicts ...; its first when left out")
    parser.add_argument(
        "--graph", metavar="KIND", help="of a model that takes one: road (default), correlation, knn, none or a file"
    )
    parser.add_argument("--list-models", action="store_true", help="print a table of the models on this series")
    parser.add_argument("--seed", type=int, help="seed of weights, shuffling and dropout")
    parser.add_argument("--epochs", type=int, metavar="N", help="at most N epochs")
    parser.add_argument("--batch-size", type=int, metavar="N", help="windows in a step of one process")
    parser.add_argument("--max-steps", type=int, metavar="N", help="stop after N steps, score what is there")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="folder of the run, new or to go on with")
    parser.add_argument("--predictions", action="store_true", help="write predictions.npz of the test part, too")
    parser.add_argument(
        "--resume",
        choices=MODES,
        default="auto",
        help="what to do with a run in --output-dir: auto goes on with it, never refuses it, must wants one",
    )
    parser.add_argument("--accept-changes", action="store_true", help="go on although config or code have changed")
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=10, metavar="M", help="between checkpoints within an epoch (10)"
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes on the CPU; see --gpus")
    parser.add_argument("--skip-data-check", action="store_true", help="do not read all data for their checksums first")
    given = parser.parse_args(arguments)

    if given.list_models:
        print(list_models(CATALOGUE, load_config(given.config)))
        return
    short = {
        "graph": given.graph,
        "seed": given.seed,
        "num_epochs": given.epochs,
        "batch_size": given.batch_size,
        "max_steps": given.max_steps,
    }
    settings = [*given.settings, *(f"{key}={value}" for key, value in short.items() if value is not None)]
    config = resolve(
        load_config(given.config), model=given.model, recipe=given.recipe, settings=settings, catalogue=CATALOGUE
    )
    if given.processes < 1 or (given.processes > 1 and given.gpus):
        raise InputError(f"--processes {given.processes}: 1 or more, and not together with --gpus, is expected")
    if not given.checkpoint_minutes >= 0:
        raise InputError(f"--checkpoint-minutes {given.checkpoint_minutes}: 0 or more is expected")
    ranks = ranks_from_environment()
    is_rank = ranks is not None
    if ranks is not None and given.processes not in (1, ranks.local_world_size):
        raise InputError(f"--processes {given.processes}: torchrun started {ranks.local_world_size} on this machine")
    if is_rank and given.output_dir is None:
        raise InputError("under torchrun --output-dir has to be given, so that all processes and restarts find the run")
    if given.resume == "must" and given.output_dir is None:
        raise InputError("--resume must: --output-dir has to name the run; experiments/runs.py list shows them")
    job = prepare_job(config, CATALOGUE, datasets_dir=given.datasets_dir, folder=given.output_dir, gpus=given.gpus)
    processes = len(given.gpus.split(",")) if given.gpus else given.processes
    if processes > 1 and not is_rank:
        command = [sys.executable, *sys.argv, "--output-dir", str(job.folder)]
        sys.exit(start_processes(command, processes))
    job = dataclasses.replace(
        job,
        predictions=job.folder / "predictions.npz" if given.predictions else None,
        resume=given.resume,
        accept_changes=given.accept_changes,
        checkpoint_minutes=given.checkpoint_minutes,
        check_data=not given.skip_data_check,
    )
    train(job)


if __name__ == "__main__":
    run(main)
