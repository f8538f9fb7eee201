"""Frees the space of runs that ended without a result, and of checkpoints that only served to go on."""

import os
import socket
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ealinformer.errors import InputError
from ealinformer.training.runs.folder import (
    BEST,
    CONFIG,
    HISTORY,
    LAST,
    LOCK,
    LOG,
    METRICS,
    PREVIOUS,
    STATUS,
    at_work,
    is_leftover,
    is_numbered,
    read_json,
    state_of,
)
from ealinformer.training.runs.listing import RunSummary, list_runs

DAY = 24 * 3600.0
TENSORBOARD, EVENTS = "tensorboard", "events.out.tfevents."
# What tells that a folder is a run goes last: a cleaning that was cut short can be done again.
_WRITTEN = (BEST, LAST, PREVIOUS, "predictions.npz", "loss.png", METRICS, HISTORY, LOG, CONFIG, STATUS)


@dataclass(frozen=True)
class Removal:
    """Files of one run that can go, and what of its folder was not written by a run and stays."""

    run: RunSummary
    files: tuple[Path, ...]
    size_bytes: int
    foreign: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "run": str(self.run.folder),
            "state": self.run.state,
            "changed": self.run.changed,
            "files": [str(path.relative_to(self.run.folder)) for path in self.files],
            "size_bytes": self.size_bytes,
            "foreign": list(self.foreign),
        }


@dataclass(frozen=True)
class Kept:
    """A run that could go by its state and stays nevertheless, and why."""

    folder: Path
    why: str


def plan(root: Path, *, older_than: float = 0.0, checkpoints: bool = False) -> tuple[list[Removal], list[Kept]]:
    """What can go below `root`, and what was left out: whole runs, or with `checkpoints` those of finished runs.

    A whole run goes when it failed, was interrupted or killed, has no metrics, and has not changed for `older_than`
    days. Of a finished run that has its best.pt go last.pt and previous.pt.

    Raises:
        InputError: there is no such folder.
    """
    removals, kept = list[Removal](), list[Kept]()
    now = time.time()
    for run in list_runs(root):
        if run.state == "running" or now - run.changed < older_than * DAY:
            continue
        if checkpoints == (run.state != "finished"):
            continue
        why = _why_not(run, now)
        if why:
            kept.append(Kept(run.folder, why))
            continue
        removal = _of_finished(run) if checkpoints else _of_whole(run)
        if removal.files:
            removals.append(removal)
    return removals, kept


def carry_out(removal: Removal, root: Path) -> None:
    """Remove the files, and the folder when nothing else is in it.

    Raises:
        InputError: the run is at work or has changed since `plan`, lies outside `root`, or a file cannot be removed.
    """
    folder = removal.run.folder
    if not folder.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{folder} lies outside {root}")
    with at_work(folder):
        if state_of(folder) != removal.run.state:
            raise InputError(f"{folder} is {state_of(folder)} by now, it was {removal.run.state}")
        try:
            for path in removal.files:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{path} cannot be removed: {error.strerror}") from error
    for path in (folder / TENSORBOARD, folder):
        with suppress(OSError):  # not empty, or not there
            path.rmdir()


def _why_not(run: RunSummary, now: float) -> str | None:
    if run.damage:
        return f"damaged: {run.damage[0]}"
    if run.state == "finished":
        return None if (run.folder / BEST).is_file() else f"finished without a {BEST}"
    if (run.folder / METRICS).exists():
        return f"{run.state}, and has metrics"
    process = read_json(run.folder / STATUS).get("process")
    host = process.get("host") if isinstance(process, dict) else None
    if run.state == "killed" and host != socket.gethostname() and now - run.changed < DAY:
        # Locks do not reach across machines on every file system.
        where = f"on {host}" if host else "where nobody can tell"
        return f"killed, or still at work {where}: a file changed within a day"
    return None


def _of_finished(run: RunSummary) -> Removal:
    files = [path for path in (run.folder / LAST, run.folder / PREVIOUS) if _is_plain(path)]
    return Removal(run, tuple(files), _bytes(files), ())


def _of_whole(run: RunSummary) -> Removal:
    files, foreign = list[Path](), list[Path]()
    for path in sorted(run.folder.iterdir()):
        if path.name == LOCK:
            continue  # `at_work` removes it, when all else is gone
        if path.name == TENSORBOARD and path.is_dir() and not path.is_symlink():
            for event in sorted(path.iterdir()):
                (files if event.name.startswith(EVENTS) and _is_plain(event) else foreign).append(event)
        else:
            (files if _is_written_by_a_run(path) else foreign).append(path)
    files.sort(key=lambda path: _WRITTEN.index(path.name) if path.name in _WRITTEN else -1)
    return Removal(run, tuple(files), _bytes(files), tuple(str(path.relative_to(run.folder)) for path in foreign))


def _is_written_by_a_run(path: Path) -> bool:
    return _is_plain(path) and (path.name in _WRITTEN or is_numbered(path.name) or is_leftover(path))


def _is_plain(path: Path) -> bool:
    """Whether it is a file and no link: what a link points to may be anybody's."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _bytes(files: list[Path]) -> int:
    return sum(os.lstat(path).st_size for path in files)
