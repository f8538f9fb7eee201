"""Scores of checkpoints on perturbed windows, each measured once and kept on disk until all are there."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from ealinformer.analysis.perturbations import PerturbedWindows
from ealinformer.data.meta import Split
from ealinformer.errors import InputError
from ealinformer.measure.memory import is_out_of_memory
from ealinformer.training.checkpoints.checkpoint import load_weights
from ealinformer.training.host import host_config
from ealinformer.training.jobs import Job
from ealinformer.training.progress import duration
from ealinformer.training.runs.folder import read_json, write_json
from ealinformer.training.scoring import ScoringRunner, ShareLoader

CLEAN = "clean"
Score = dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A checkpoint to be scored: its file, its name in tables, its content, and what runs as it was trained."""

    path: Path
    label: str
    state: dict[str, Any]
    job: Job


@dataclass(frozen=True)
class Task:
    """One evaluation: whose weights, what runs on them, and what happens to its inputs."""

    candidate: Candidate
    job: Job
    perturbation: str = CLEAN
    strength: float = 0.0

    @property
    def key(self) -> str:
        """The same for evaluations that give the same numbers."""
        model = [self.job.run.model, sorted(self.job.run.model_params.items())]
        return json.dumps([str(self.candidate.path), *model, self.perturbation, self.strength])

    def __str__(self) -> str:
        trained = self.candidate.job.run.model_params
        words = [f"{self.perturbation} {self.strength:g}"] if self.strength else []
        words += [f"{key} {value}" for key, value in self.job.run.model_params.items() if trained.get(key) != value]
        return f"{self.candidate.label}, {', '.join(words) or CLEAN}"


@dataclass(frozen=True)
class Windows:
    """The windows to be scored, by number, and what `perturb` needs to know of the series."""

    split: Split
    numbers: list[int]
    settings: dict[str, Any]


class PerturbedRunner(ScoringRunner):
    """Scores chosen windows, perturbed, with the loop that scores a whole part otherwise."""

    windows: Windows
    perturbation: str
    strength: float
    scored: PerturbedWindows

    def _evaluation_loader(self, dataset: Dataset) -> ShareLoader:
        chosen = self.windows
        self.scored = PerturbedWindows(
            dataset, chosen.numbers, self.perturbation, self.strength, settings=chosen.settings
        )
        return super()._evaluation_loader(self.scored)


class KeptScores:
    """Scores by key in a JSON file, so that what was measured before an interruption is not measured again.

    Args:
        path: of the file; None keeps nothing.
        belongs_to: what the scores depend on beside their key. Those of something else are not taken.
    """

    def __init__(self, path: Path | None, belongs_to: dict[str, Any]) -> None:
        self.path = path
        self._content: dict[str, Any] = {"belongs_to": json.loads(json.dumps(belongs_to)), "scores": {}}
        if path is not None and path.is_file():
            found = read_json(path)
            if found.get("belongs_to") == self._content["belongs_to"] and isinstance(found.get("scores"), dict):
                self._content = found

    @property
    def scores(self) -> dict[str, Score]:
        """All there are."""
        return self._content["scores"]

    def add(self, key: str, score: Score) -> None:
        """One more, on disk before this returns."""
        self.scores[key] = score
        self.write()

    def write(self) -> None:
        """Raises InputError where the file cannot be written."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path}: its folder cannot be made: {error.strerror}") from error
        write_json(self.path, self._content)

    def discard(self) -> None:
        """Remove the file, once something else holds the scores."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def measure(tasks: Sequence[Task], windows: Windows, kept: KeptScores, report: Callable[[str], None]) -> None:
    """Score each task whose key is not kept yet; a line to `report` for each, with the time left.

    Raises:
        InputError: memory ran out, or `kept` cannot be written.
    """
    missing = list({task.key: task for task in tasks if task.key not in kept.scores}.values())
    total = len({task.key for task in tasks})
    before = f", {total - len(missing)} of them measured before" if len(missing) < total else ""
    report(f"{total} evaluations of {len(windows.numbers)} windows{before}")
    kept.write()  # a folder that cannot be written to shows before the work, not after it
    started = time.monotonic()
    runner: PerturbedRunner | None = None
    runs: tuple[Candidate, Job] | None = None
    for number, task in enumerate(missing, start=1):
        if runner is None or runs is None or runs[0] is not task.candidate or runs[1] is not task.job:
            runner, runs = _build_runner(task, windows), (task.candidate, task.job)
        kept.add(task.key, _score(runner, task))
        left = (time.monotonic() - started) / number * (len(missing) - number)
        mae = kept.scores[task.key]["MAE"]
        shown = "no reading to score" if mae is None else f"MAE {mae:.4f}"
        report(f"{number}/{len(missing)}  {task}: {shown}; {duration(left)} left")


def _build_runner(task: Task, windows: Windows) -> PerturbedRunner:
    job, candidate = task.job, task.candidate
    config = host_config(job.run, job.entry, data_dir=job.data_dir, folder=job.folder, gpus=job.gpus)
    runner = PerturbedRunner(config, job.run)
    runner.windows = windows
    runner.scaler.stats.update({name: torch.tensor(value) for name, value in candidate.state["scaler"].items()})
    load_weights(candidate.path, runner.bare_model, candidate.state)
    return runner


def _score(runner: PerturbedRunner, task: Task) -> Score:
    """MAE, RMSE and MAPE over all horizons, the share of readings that the perturbation cost, and seconds."""
    started = time.monotonic()
    runner.perturbation, runner.strength = task.perturbation, task.strength
    try:
        found = runner.evaluate(runner.windows.split).sums.average()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        size = task.job.run.recipe.eval_batch_size
        raise InputError(
            f"out of memory: {task}, {size} windows a batch: a smaller --batch-size is expected"
        ) from error
    return {**found, "lost_share": runner.scored.lost_share, "seconds": time.monotonic() - started}
