"""Runs of several models side by side: planned and checked together, then trained one after the other."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from _common import CATALOGUE
from _training import train_apart

from ealinformer.errors import InputError, Interrupted
from ealinformer.training import Experiment, RunConfig
from ealinformer.training.jobs import prepare_job
from ealinformer.training.progress import duration
from ealinformer.training.resolve import resolve
from ealinformer.training.resume import has_finished, take_up
from ealinformer.training.runs.folder import is_run, read_row


@dataclass(frozen=True)
class Planned:
    """One run of a comparison, and what `train.py` is told; `refused` says why it cannot even begin."""

    model: str
    seed: int
    folder: Path
    words: tuple[str, ...]
    run: RunConfig | None = None
    refused: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is anything to train."""
        with suppress(InputError):  # its run.json is damaged: found out when its turn comes
            return self.refused is None and not (is_run(self.folder) and has_finished(self.folder))
        return False


def plan(model: str, seed: int, experiment: Experiment, folder: Path, given: argparse.Namespace) -> Planned:
    """What `train.py` is told, and whether model, settings and data fit: known before anything is trained."""
    settings = settings_of(model, given.settings)
    short = {"--graph": given.graph, "--seed": seed, "--epochs": given.epochs}
    others = {"--model": model, "--recipe": given.recipe, "--gpus": given.gpus, "--datasets-dir": given.datasets_dir}
    own = folder / model / f"seed{seed}"
    options = {"-c": given.config, **others, **short, "--output-dir": own}
    words = [str(word) for option, value in options.items() if value is not None for word in (option, value)]
    words += [word for setting in settings for word in ("--set", setting)]
    planned = Planned(model, seed, own, tuple(words))
    keys = {"graph": given.graph, "seed": seed, "num_epochs": given.epochs}
    settings += [f"{key}={value}" for key, value in keys.items() if value is not None]
    try:
        config = resolve(experiment, model=model, recipe=given.recipe, settings=settings, catalogue=CATALOGUE)
        prepare_job(config, CATALOGUE, datasets_dir=given.datasets_dir, folder=own, gpus=given.gpus)
    except InputError as error:
        return replace(planned, refused=str(error))
    return replace(planned, run=config)


def settings_of(model: str, settings: Sequence[str]) -> list[str]:
    """Those for all models, and those for this one without its name."""
    parts = [setting.partition(":") for setting in settings]
    return [
        rest if name == model else setting
        for setting, (name, _, rest) in zip(settings, parts, strict=True)
        if name == model or name not in CATALOGUE
    ]


def train_all(planned: Sequence[Planned], folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of all runs, trained one after the other unless they have finished before, and what became of the rest.

    Raises:
        Interrupted: a signal came; the run at work has kept a checkpoint.
    """
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    for number, one in enumerate(planned, start=1):
        seconds = seconds_left([each for each in planned[number - 1 :] if each.is_open], rows)
        left = f"; about {duration(seconds)} left" if seconds else ""
        say(f"\n--- {number} of {len(planned)}: {one.model}, seed {one.seed}{left}")
        try:
            reason = one.refused or train(one, folder)
            if reason is None:
                rows.append(read_row(one.folder))
        except InputError as error:
            reason = str(error)
        if reason is not None:
            say(f"{one.model}, seed {one.seed}, has no result: {reason}")
            failures.append({"model": one.model, "seed": one.seed, "reason": reason})
    return rows, failures


def train(one: Planned, folder: Path) -> str | None:
    """Train a run to its end, or go on with it; why it has no result, None where it has one.

    Raises:
        InputError: its folder holds a finished run of another config, or is damaged.
        Interrupted: as in `train_all`.
    """
    assert one.run is not None
    if not one.is_open:
        for line in take_up(one.folder, one.run, "auto", code={}, data_checksum="", accept_changes=False).said:
            say(line)
        return None
    ended = train_apart(one.words)
    if ended.signal is not None:
        raise Interrupted(ended.signal, f"the same command with --output-dir {folder} goes on from there")
    return ended.reason


def seconds_left(rest: Sequence[Planned], rows: Sequence[dict[str, Any]]) -> float | None:
    """What the rest will take if it takes what other seeds of a model did, or the mean of all models; None at first."""
    seconds: dict[str, list[float]] = {}
    for row in rows:
        seconds.setdefault(row["model"], []).append(row["seconds_in_all"])
    known = {model: fmean(own) for model, own in seconds.items()}
    return sum(known.get(one.model, fmean(known.values())) for one in rest) if known else None


def say(line: str) -> None:
    """Progress goes to standard error: standard output is the table."""
    print(line, file=sys.stderr, flush=True)
