"""Run folders as they lie on the disk: where they are and how far each of them came; damage is told, never raised."""

import os
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from ealinformer.errors import InputError
from ealinformer.training.runs.folder import CONFIG, HISTORY, METRICS, STATUS, is_run, read_json, state_in
from ealinformer.training.runs.history import read_history

DAMAGED = "damaged"  # state of a run whose run.json does not say one
T = TypeVar("T")


@dataclass(frozen=True)
class RunSummary:
    """What a list of runs says of one; None where it is not known (yet)."""

    folder: Path
    state: str
    complete: bool | None  # False where --max-steps cut a finished run short
    damage: tuple[str, ...]  # one line for each file that is missing, damaged or says what cannot be
    model: str | None
    dataset: str | None
    recipe: str | None
    seed: int | None
    epochs: int | None
    max_epochs: int | None
    select_by: str | None
    best_score: float | None  # lowest validation score, of what `select_by` names
    test_mae: float | None
    seconds_per_epoch: float | None
    started: str | None
    changed: float  # newest modification of a file, seconds since 1970
    size_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "folder": str(self.folder), "damage": list(self.damage)}


@dataclass(frozen=True)
class RunFiles:
    """What the files of a run hold, empty where they are missing or damaged, and what is wrong with them."""

    config: dict[str, Any]
    status: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, float]]
    state: str
    damage: tuple[str, ...]


def find_runs(root: Path) -> list[Path]:
    """The folders of runs at and below `root`, without following links; no order is promised.

    Raises:
        InputError: there is no such folder.
    """
    if not root.is_dir():
        raise InputError(f"folder {root} is not there, expected one with runs below it")
    found = []
    for name, below, files in os.walk(root):
        if (STATUS in files or CONFIG in files) and is_run(Path(name)):
            found.append(Path(name))
            below.clear()
    return found


def list_runs(root: Path) -> list[RunSummary]:
    """All runs at and below `root`, newest first; InputError where there is no such folder."""
    summaries = [summarize(folder) for folder in find_runs(root)]
    return sorted(summaries, key=lambda run: (_seconds(run.started) or run.changed, run.folder), reverse=True)


def read_files(folder: Path) -> RunFiles:
    """Read what a run left, whatever it is worth."""
    damage: list[str] = []
    damaged = Damage(folder, damage)
    nothing: dict[str, Any] = {}
    metrics, history = nothing, list[dict[str, float]]()
    status = damaged.unless(lambda: read_json(folder / STATUS), nothing)
    state = damaged.unless(lambda: state_in(folder, status), DAMAGED) if not damage else DAMAGED
    config = damaged.unless(lambda: read_json(folder / CONFIG), nothing)
    if state == "finished" or (folder / METRICS).exists():
        metrics = damaged.unless(lambda: read_json(folder / METRICS), nothing)
    if state == "finished" or (folder / HISTORY).exists():
        history = damaged.unless(lambda: read_history(folder / HISTORY), history)
    return RunFiles(config, status, metrics, history, state, tuple(damage))


def summarize(folder: Path, files: RunFiles | None = None) -> RunSummary:
    """What `list_runs` says of one run; `files` where they are read already."""
    files = files or read_files(folder)
    damage = list(files.damage)
    damaged = Damage(folder, damage)

    def said(file: str, content: dict[str, Any], kind: type[T], *keys: str) -> T | None:
        return damaged.unless(lambda: value_at(folder / file, content, kind, *keys), None)

    config, metrics = files.config, files.metrics
    started = said(STATUS, files.status, str, "date")
    if started is not None and _seconds(started) is None:
        damage.append(f"{STATUS}: date is {started!r}, expected a date")
        started = None
    select_by = said(CONFIG, config, str, "recipe", "select_by")
    scores = [row[f"val_{select_by}"] for row in files.history if f"val_{select_by}" in row]
    seconds = said(METRICS, metrics, float, "seconds_per_epoch") if metrics else _median_seconds(files.history)
    size, changed = size_and_change(folder)
    return RunSummary(
        folder=folder,
        state=files.state,
        complete=metrics["steps"] != config.get("max_steps") if "steps" in metrics else None,
        model=said(CONFIG, config, str, "model"),
        dataset=said(CONFIG, config, str, "series", "name"),
        recipe=said(CONFIG, config, str, "recipe_name"),
        seed=said(CONFIG, config, int, "seed"),
        epochs=len(files.history),
        max_epochs=said(CONFIG, config, int, "recipe", "num_epochs"),
        select_by=select_by,
        best_score=min((score for score in scores if score == score), default=None),
        test_mae=said(METRICS, metrics, float, "average", "MAE"),
        seconds_per_epoch=seconds,
        started=started,
        changed=changed,
        size_bytes=size,
        damage=tuple(damage),  # the last one: what stands above adds to it
    )


class Damage:
    """Collects what is wrong with the files of a run, named without their folder."""

    def __init__(self, folder: Path, lines: list[str]) -> None:
        self.prefix, self.lines = f"{folder}{os.sep}", lines

    def unless(self, read: Callable[[], T], otherwise: T) -> T:
        """What `read` returns, or `otherwise` where it raises InputError."""
        try:
            return read()
        except InputError as error:
            self.lines.append(str(error).replace(self.prefix, ""))
            return otherwise


def value_at(file: Path, content: dict[str, Any], kind: type[T], *keys: str) -> T | None:
    """The value at a path of keys; None where it, or what it would stand in, is null or missing.

    Raises:
        InputError: it, or what it stands in, is of another kind.
    """
    value: Any = content
    for depth, key in enumerate(keys):
        if not isinstance(value, dict):
            name = ".".join(keys[:depth])
            raise InputError(f"{file}: {name} is a {type(value).__name__}, expected an object")
        value = value.get(key)
        if value is None:
            return None
    # JSON knows numbers, not floats; and in Python a bool is an int.
    fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
    if not fits:
        raise InputError(f"{file}: {'.'.join(keys)} is {str(value)[:40]!r}, expected {_KINDS[kind]}")
    return value


_KINDS: dict[type, str] = {str: "text", int: "a whole number", float: "a number", dict: "an object", list: "a list"}


def size_and_change(folder: Path) -> tuple[int, float]:
    """Bytes of all files in and below a folder, and when one was changed last; links are not followed."""
    size, changed = 0, 0.0
    for name, _, files in os.walk(folder):
        for file in files:
            try:
                found = os.lstat(os.path.join(name, file))
            except OSError:
                continue  # a temporary file of a run at work, gone again
            size, changed = size + found.st_size, max(changed, found.st_mtime)
    return size, changed


def _median_seconds(history: list[dict[str, float]]) -> float | None:
    """Median training time of the whole epochs, as far as the history says which ones are."""
    most = max((row.get("steps", 0) for row in history), default=0)
    times = [row["train_seconds"] for row in history if row.get("steps") == most and "train_seconds" in row]
    return statistics.median(times) if times else None


def _seconds(date: str | None) -> float | None:
    try:
        return None if date is None else datetime.fromisoformat(date).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
