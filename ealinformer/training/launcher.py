"""Train a run from its config to its metrics, or score a checkpoint: what the command lines call."""

import logging
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from easytorch.launcher import dist_wrap
from easytorch.utils import is_master

from ealinformer.data.meta import Split
from ealinformer.data.prepared import PreparedSeries, open_prepared
from ealinformer.errors import InputError
from ealinformer.measure import PeakMemory, provenance
from ealinformer.models import Catalogue, ModelEntry, find_model
from ealinformer.report.figures import loss_curves
from ealinformer.report.tables import metrics_table
from ealinformer.training import run_folder
from ealinformer.training.checkpoint import check_fits, load_checkpoint, load_weights
from ealinformer.training.config import RunConfig
from ealinformer.training.devices import select_devices
from ealinformer.training.host import host_config, quiet_host
from ealinformer.training.losses import is_masked
from ealinformer.training.predictions import save_predictions
from ealinformer.training.runner import BEST, ForecastingRunner


@dataclass(frozen=True)
class Job:
    """A run with where it reads and writes, all of it checked; it is handed to every process of the run as it is."""

    run: RunConfig
    entry: ModelEntry
    data_dir: Path
    folder: Path
    gpus: str | None
    predictions: Path | None = None


def prepare_job(
    run: RunConfig,
    catalogue: Catalogue,
    *,
    datasets_dir: Path,
    folder: Path | None = None,
    gpus: str | None = None,
) -> Job:
    """Check everything that can be wrong before anything is written, and choose the devices.

    Raises:
        InputError: the model, a parameter of it, the data, the windows or the devices do not fit.
    """
    entry = find_model(run.model, catalogue)
    data = open_prepared(datasets_dir / run.series.name)
    check_data(run, data)
    folder = folder or run_folder.default_folder(run)
    try:
        # On the meta device: checks all sizes without memory or time.
        with torch.device("meta"):
            config = host_config(run, entry, data_dir=data.directory, folder=folder, gpus=None)
            entry.model(config.model_config)
    except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: a size beyond what torch counts
        problem = str(error).splitlines()[0]
        raise InputError(f"model {run.model} cannot be built: {problem}") from error
    select_devices(gpus)
    return Job(run, entry, data.directory, folder, gpus)


def check_data(run: RunConfig, data: PreparedSeries) -> None:
    """Compare what the config says of the series with what was prepared.

    Raises:
        InputError: names the first difference, or a split that is shorter than one window.
    """
    series = run.series
    prepared = {
        "num_sensors": (series.num_sensors, data.num_sensors),
        "interval_minutes": (series.interval_minutes, data.interval_minutes),
        "raw_file": (series.raw_file, data.meta["raw_file"]),
        "channel": (series.channel, data.meta["channel"]),
        "null_value": (series.null_value, data.null_value),
        "start": (series.start, data.start),
        "split": (list(series.split), list(data.meta["split"])),
        "day_of_week": (series.day_of_week, data.meta["day_of_week"]),
        "simulated": (series.simulated, data.meta["simulated"]),
    }
    for name, (said, found) in prepared.items():
        both_nan = said != said and found != found
        if said != found and not both_nan:
            raise InputError(
                f"the config says {name}={said}, {data.directory} was prepared with {found}: mend the config or run  "
                f"python scripts/prepare_dataset.py {series.name}  again"
            )
    window = run.input_len + run.output_len
    for split, steps in data.meta["steps"].items():
        if steps < window:
            raise InputError(
                f"{data.directory}: the {split} part has {steps} steps, one window of {run.input_len} in and "
                f"{run.output_len} out needs {window}"
            )
    if not is_masked(run.recipe.loss) and series.null_value != series.null_value:
        raise InputError(f"loss {run.recipe.loss} counts missing readings, which are NaN here: --set loss=masked_mae")


def train(job: Job) -> dict[str, Any]:
    """Train, score the best epoch on the test part, and return what `metrics.json` in the run's folder says.

    Raises:
        InputError: the folder cannot be written to.
    """
    status: dict[str, Any] = {"status": "running", **provenance()}
    run_folder.create(job.folder, job.run)
    run_folder.write_json(job.folder / run_folder.STATUS, status)
    try:
        num_devices = len(job.gpus.split(",")) if job.gpus else 0
        with _explaining_out_of_memory(job.run):
            dist_wrap(_train_on_this_rank, device_num=num_devices)(job)
    except BaseException as error:
        status["status"] = "interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {error!r}"
        raise
    else:
        status["status"] = "finished"
    finally:
        run_folder.write_json(job.folder / run_folder.STATUS, status)
    return run_folder.read_json(job.folder / run_folder.METRICS)


@contextmanager
def _explaining_out_of_memory(run: RunConfig) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # torch has a class of its own for CUDA alone.
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        recipe, sensors = run.recipe, run.series.num_sensors
        raise InputError(
            f"out of memory: {run.model} with {sensors} sensors, batch_size {recipe.batch_size} and eval_batch_size "
            f"{recipe.eval_batch_size}: --set smaller ones, or a smaller model"
        ) from error


def _train_on_this_rank(job: Job) -> None:
    quiet_host()
    memory = PeakMemory(cuda=job.gpus is not None)
    started = time.monotonic()
    with run_folder.logging_to(job.folder, silent=not is_master()) as logger:
        runner = _build_runner(job, logger)
        logger.info(_headline(job, runner))
        runner.train()
        if not is_master():
            return
        _, state = load_checkpoint(job.folder / BEST)
        load_weights(job.folder / BEST, runner.bare_model, state)
        peak = memory.mib()
        metrics = _score(job, runner, state, "test")
        metrics.update(
            {
                "stopped_by": runner.stopped_by,
                "epochs": len(runner.history.rows),
                "steps": runner.step,
                "steps_per_epoch": len(runner.train_data_loader),
                "seconds_per_epoch": _seconds_per_epoch(runner),
                "seconds_per_step": sum(r["train_seconds"] for r in runner.history.rows) / runner.step,
                "seconds_in_all": time.monotonic() - started,
                "peak_memory_mib": peak,
                "peak_memory_of": memory.kind,
            }
        )
        run_folder.write_json(job.folder / run_folder.METRICS, metrics)
        note = "simulated series" if job.run.series.simulated else None
        title = f"{job.run.model} on {job.run.series.name}"
        loss_curves({title: runner.history.rows}, job.folder / "loss.png", unit=job.run.series.unit, note=note)
        logger.info(f"\n{describe_score(metrics)}\n")
        logger.info(
            f"run folder  {job.folder}  (metrics.json, history.csv, loss.png, best.pt, train.log, tensorboard/)"
        )


def evaluate(job: Job, checkpoint: Path, split: Split, *, eval_batch_size: int | None = None) -> dict[str, Any]:
    """Score a checkpoint on a split; the same numbers as at the end of its training.

    Model and recipe are those of the checkpoint. `eval_batch_size` is for a device with less memory than in training.

    Raises:
        InputError: the checkpoint is not one, or of another model, data set or size.
    """
    saved, state = load_checkpoint(checkpoint)
    check_fits(checkpoint, saved, job.run)
    if eval_batch_size is not None:
        recipe = saved.recipe.model_copy(update={"eval_batch_size": eval_batch_size})
        saved = saved.model_copy(update={"recipe": recipe})
    quiet_host()
    job = Job(saved, job.entry, job.data_dir, checkpoint.parent, job.gpus, job.predictions)
    with _explaining_out_of_memory(saved):
        runner = _build_runner(job)
        runner.scaler.stats.update({name: torch.tensor(value) for name, value in state["scaler"].items()})
        load_weights(checkpoint, runner.bare_model, state)
        return _score(job, runner, state, split)


def describe_score(metrics: dict[str, Any]) -> str:
    """The table that training ends with and evaluation prints, the same to the last digit."""
    simulated = ", simulated series" if metrics["simulated"] else ""
    head = (
        f"{metrics['model']} on {metrics['dataset']}{simulated}: {metrics['split']} part, {metrics['windows']} windows,"
        f" epoch {metrics['epoch']}"
    )
    return f"{head}\n{metrics_table(metrics)}"


def _build_runner(job: Job, log: logging.Logger | None = None) -> ForecastingRunner:
    config = host_config(job.run, job.entry, data_dir=job.data_dir, folder=job.folder, gpus=job.gpus)
    return ForecastingRunner(config, job.run, log)


def _score(job: Job, runner: ForecastingRunner, state: dict[str, Any], split: Split) -> dict[str, Any]:
    score = runner.evaluate(split, keep_predictions=job.predictions is not None)
    data = open_prepared(job.data_dir)
    if job.predictions is not None:
        save_predictions(job.predictions, torch.cat(score.predictions).numpy(), data, split, job.run)
    return {
        "model": job.run.model,
        "dataset": job.run.series.name,
        "simulated": job.run.series.simulated,
        "split": split,
        "windows": data.meta["steps"][split] - job.run.input_len - job.run.output_len + 1,
        **score.sums.as_dict(),
        "epoch": state["epoch"],
        "parameters": sum(p.numel() for p in runner.bare_model.parameters()),
        "recipe": job.run.recipe_name,
        "seed": job.run.seed,
    }


def _seconds_per_epoch(runner: ForecastingRunner) -> float | None:
    """Median training time of the whole epochs; None when none was whole."""
    whole = [r["train_seconds"] for r in runner.history.rows if r["steps"] == len(runner.train_data_loader)]
    return statistics.median(whole) if whole else None


def _headline(job: Job, runner: ForecastingRunner) -> str:
    run, recipe = job.run, job.run.recipe
    parameters = sum(p.numel() for p in runner.bare_model.parameters())
    where = f"GPU {job.gpus}" if job.gpus else f"CPU, {torch.get_num_threads()} threads"
    return (
        f"{run.model} ({parameters:,} parameters) on {run.series.name}: {run.series.num_sensors} sensors, "
        f"{run.input_len} steps in, {run.output_len} out; recipe {run.recipe_name}: {recipe.loss}, lr {recipe.lr:g}, "
        f"weight decay {recipe.weight_decay:g}, batch {recipe.batch_size}, at most {recipe.num_epochs} epochs; "
        f"seed {run.seed}; {where}"
    )
