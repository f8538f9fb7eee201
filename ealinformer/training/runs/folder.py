"""One run, one folder: what was asked for, what happened, and the log.

`run.json` says how the run stands. At its top is what was true when it started first: machine, versions, commit and
command. `starts` has an entry for that start and for every resume, with what was different then.
"""

import itertools
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ealinformer.errors import InputError
from ealinformer.files import write_text
from ealinformer.training.config import RunConfig
from ealinformer.training.runs.history import read_history
from ealinformer.training.runs.lock import LOCK, holder, is_alive, is_held, this_process
from ealinformer.training.runs.lock import at_work as at_work  # part of what this module offers
from ealinformer.training.runs.strict_json import read_json, write_json

CONFIG, STATUS, METRICS = "config.json", "run.json", "metrics.json"
HISTORY, LOG = "history.csv", "train.log"
CODE, PACKAGES = "code.diff", "packages.txt"
BEST, LAST, PREVIOUS = "best.pt", "last.pt", "previous.pt"
ROW_KEYS = ("model", "dataset", "average", "horizons", "steps", "stopped_by")
STATES = ("running", "finished", "interrupted", "failed", "killed")
# What a row of results does not take over from run.json: it says who ran it, or that it has finished.
_NOT_IN_ROWS = ("status", "exit_reason", "process", "starts")
# Of the birth certificate, what a start says again only where it is not as at the first one.
_SAID_ONCE = ("machine", "versions", "environment")


def default_folder(run: RunConfig, root: Path = Path("checkpoints")) -> Path:
    """`checkpoints/<MODEL>/<DATASET>/<time>-seed<seed>`, with a number behind it for a second run in that second."""
    parent, name = root / run.model / run.series.name, f"{datetime.now():%Y%m%d-%H%M%S}-seed{run.seed}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(parent / name for name in names if not (parent / name).exists())


def create(folder: Path, run: RunConfig, *, again: bool = False) -> None:
    """Make the folder of a new run and write its config.

    Leftovers of a process that was killed while it wrote count as nothing. With `again` the folder may hold a run, one
    that has nothing to go on from; the config takes the place of its own.

    Raises:
        InputError: it cannot be made, or already holds something.
    """
    try:
        if folder.is_dir() and not again and any(not is_leftover(path) for path in folder.iterdir()):
            raise InputError(f"output folder {folder} already holds files; name another one with --output-dir")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output folder {folder} cannot be made: {error.strerror}") from error
    write_text(folder / CONFIG, run.model_dump_json(indent=2) + "\n")


def begin(folder: Path, run: RunConfig, *, data_checksum: str, resumed_from: str | None) -> None:
    """Write or extend `run.json`: this process trains the run from now on.

    Beside it are left `packages.txt` and, where the checkout differs from its commit, `code.diff`; the first one of a
    later start that is not like an earlier one is `packages-2.txt`, `code-2.diff`. `resumed_from` says where the run
    goes on, such as "epoch 3, step 120 of 669"; None starts it from nothing, and what was recorded before is dropped.

    Raises:
        InputError: the folder cannot be written to, or `run.json` of the run to be resumed is damaged.
    """
    from ealinformer.measure.provenance import code_changes, installed_packages, provenance  # imports torch

    now = provenance()
    before: dict[str, Any] = {}
    if resumed_from is None:
        _forget(folder)
    elif (folder / STATUS).exists():
        before = read_json(folder / STATUS)
    starts = before.get("starts", [])
    if before and not (isinstance(starts, list) and all(isinstance(start, dict) for start in starts)):
        raise InputError(f"{folder / STATUS}: starts is not a list of objects")
    for start in starts:
        if start.get("ended") is None and start.get("exit_reason") is None:
            start["exit_reason"] = "killed"  # it did not get to say anything
    data = {"name": run.series.name, "checksum": data_checksum}
    changes = code_changes()
    start = {
        **{key: now[key] for key in ("date", "command", "commit")},
        **{key: now[key] for key in _SAID_ONCE if before and now[key] != before.get(key)},
        **({"data": data} if before and data != before.get("data") else {}),
        "code_diff": None if changes is None else _keep(folder, CODE, changes),
        "packages": _keep(folder, PACKAGES, "".join(f"{line}\n" for line in installed_packages())),
        "resumed_from": resumed_from,
        "ended": None,
        "exit_reason": None,
    }
    status = {
        "status": "running",
        "exit_reason": None,
        **{key: before.get(key, value) for key, value in now.items()},
        "seed": run.seed,
        "data": before.get("data", data),
        "process": this_process(),
        "starts": [*starts, start],
    }
    write_json(folder / STATUS, status)


def end(folder: Path, status: str, exit_reason: str) -> None:
    """Record how the start that `begin` wrote ended: "finished", "interrupted" or "failed", and why.

    Raises:
        InputError: `run.json` is damaged, or cannot be written.
    """
    content = read_json(folder / STATUS)
    content.update(status=status, exit_reason=exit_reason)
    starts = content.get("starts")
    if isinstance(starts, list) and starts and isinstance(starts[-1], dict):
        starts[-1].update(ended=datetime.now(timezone.utc).isoformat(timespec="seconds"), exit_reason=exit_reason)
    write_json(folder / STATUS, content)


def state_of(folder: Path) -> str:
    """One of `STATES`. "killed": `run.json` says that the run is running, and nobody is at work on it.

    Asked by a process that holds the folder, it says how the run stood before that process began.

    Raises:
        InputError: `run.json` is missing or damaged.
    """
    return state_in(folder, read_json(folder / STATUS))


def state_in(folder: Path, status: dict[str, Any]) -> str:
    """The same for the content of `run.json`."""
    word = status.get("status")
    # Before there was an exit_reason, the reason stood behind the word.
    word = word.partition(":")[0] if isinstance(word, str) else word
    if word not in STATES:
        raise InputError(f"{folder / STATUS}: status is {word!r}, expected one of {', '.join(STATES)}")
    if word != "running":
        return word
    process = status.get("process")
    if process == this_process():
        return "running"
    held = is_held(folder)
    if held is None:
        return "running" if is_alive(process) else "killed"
    return "running" if held and holder(folder) != this_process() else "killed"


def is_run(folder: Path) -> bool:
    """Whether the folder holds a run, be it one that was stopped before it could say so in `run.json`."""
    if (folder / STATUS).is_file():
        return True
    with suppress(InputError):
        return read_json(folder / CONFIG).keys() >= {"series", "model", "recipe", "seed"}
    return False


def is_leftover(path: Path) -> bool:
    """Whether a file is the lock, or a temporary one that a killed process did not get to rename."""
    return path.name == LOCK or (path.name.startswith(".") and ".part" in path.suffixes)


def _forget(folder: Path) -> None:
    """Remove what starts of a run left that had not come far enough to be resumed."""
    for name in (CODE, PACKAGES):
        for path in folder.glob(name.replace(".", "*.")):
            if is_numbered(path.name):
                path.unlink()


def is_numbered(name: str) -> bool:
    """Whether a file of that name is one of those that `begin` leaves beside `run.json`."""
    return any(re.fullmatch(re.escape(one).replace(r"\.", r"(-\d+)?\."), name) for one in (CODE, PACKAGES))


def _keep(folder: Path, name: str, text: str) -> str:
    """Write `text` to a file of that name, unless one of an earlier start says the same; the file's name."""
    stem, suffix = name.split(".")
    for number in itertools.count(1):
        path = folder / (name if number == 1 else f"{stem}-{number}.{suffix}")
        if not path.exists():
            write_text(path, text)
            return path.name
        with suppress(OSError):
            if path.read_bytes() == text.encode():
                return path.name
    raise AssertionError("unreachable")


def read_row(folder: Path) -> dict[str, Any]:
    """What a finished run measured, with its config, its history and where and when it was measured.

    `complete` is False where `--max-steps` cut the run short. `resumed` is there where the run went on with another
    machine, version, setting or commit than it started with: what was different, a start each.

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
        **{key: value for key, value in status.items() if key not in _NOT_IN_ROWS},
        **_resumed(status),
        "config": config,
        "history": read_history(folder / HISTORY),
    }


def birth(folder: Path) -> dict[str, Any]:
    """What `run.json` says, without who ran it and where in the network: fit for a row of results.

    Raises:
        InputError: it is missing or damaged.
    """
    return {key: value for key, value in read_json(folder / STATUS).items() if key not in ("process", "starts")}


def _resumed(status: dict[str, Any]) -> dict[str, Any]:
    starts = status.get("starts")
    later = [one for one in starts[1:] if isinstance(one, dict)] if isinstance(starts, list) else []
    other = [{key: one[key] for key in ("date", "commit", *_SAID_ONCE) if key in one} for one in later]
    other = [one for one in other if one.get("commit") != status.get("commit") or set(_SAID_ONCE) & one.keys()]
    return {"resumed": other} if other else {}


class _LogFile(logging.FileHandler):
    """The disk may be full: that is told where a result is lost, not with a traceback for a line of the log."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, the name is logging's
        """Let the line go."""

    def close(self) -> None:
        """Close the file, and let go what cannot be written any more."""
        with suppress(OSError):
            super().close()


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
    file = _LogFile(folder / LOG, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s  %(message)s"))
    for handler in (console, file):
        logger.addHandler(handler)
    try:
        yield logger
    finally:
        for handler in (console, file):
            logger.removeHandler(handler)
            handler.close()
