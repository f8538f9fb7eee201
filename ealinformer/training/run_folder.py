"""One run, one folder: what was asked for, what happened, and the log."""

import itertools
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from ealinformer.errors import InputError
from ealinformer.files import write_text
from ealinformer.training.config import RunConfig
from ealinformer.training.history import read_history

CONFIG, STATUS, METRICS = "config.json", "run.json", "metrics.json"
HISTORY, LOG = "history.csv", "train.log"
ROW_KEYS = ("model", "dataset", "average", "horizons", "steps", "stopped_by")


def default_folder(run: RunConfig, root: Path = Path("checkpoints")) -> Path:
    """`checkpoints/<MODEL>/<DATASET>/<time>-seed<seed>`, with a number behind it for a second run in that second."""
    parent, name = root / run.model / run.series.name, f"{datetime.now():%Y%m%d-%H%M%S}-seed{run.seed}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(parent / name for name in names if not (parent / name).exists())


def create(folder: Path, run: RunConfig) -> None:
    """Make the folder of a new run and write its config.

    Raises:
        InputError: it cannot be made, or already holds something.
    """
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"output folder {folder} already holds files; name another one with --output-dir")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output folder {folder} cannot be made: {error.strerror}") from error
    write_text(folder / CONFIG, run.model_dump_json(indent=2) + "\n")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run.

    Raises:
        InputError: it is not there or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


def read_row(folder: Path) -> dict[str, Any]:
    """What a finished run measured, with its config, its history and where and when it was measured.

    `complete` is False where `--max-steps` cut the run short.

    Raises:
        InputError: the run has not finished, or a file of it is missing or damaged.
    """
    status = read_json(folder / STATUS)
    if status.get("status") != "finished":
        raise InputError(f"{folder}: the run's status is {status.get('status')!r}, expected 'finished'")
    metrics, config = read_json(folder / METRICS), read_json(folder / CONFIG)
    for key in ROW_KEYS:
        if key not in metrics:
            raise InputError(f"{folder / METRICS} lacks {key!r}, expected the metrics of a training")
    return {
        **metrics,
        "complete": metrics["steps"] != config.get("max_steps"),
        **{key: value for key, value in status.items() if key != "status"},
        "config": config,
        "history": read_history(folder / HISTORY),
    }


@contextmanager
def logging_to(folder: Path, *, silent: bool = False) -> Iterator[logging.Logger]:
    """A logger that writes bare messages to standard error and, with the time, to the folder's log, unless `silent`."""
    logger = logging.getLogger(f"ealinformer.run.{folder}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if silent:
        yield logger
        return
    console = logging.StreamHandler(sys.stderr)
    file = logging.FileHandler(folder / LOG, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s  %(message)s"))
    for handler in (console, file):
        logger.addHandler(handler)
    try:
        yield logger
    finally:
        for handler in (console, file):
            logger.removeHandler(handler)
            handler.close()
