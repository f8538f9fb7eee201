"""Train a run from its config to its metrics, or score a checkpoint: what the command lines call."""

import dataclasses
import errno
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from basicts.configs import BasicTSForecastingConfig

from ealinformer.data.contents import check_contents, describe_contents
from ealinformer.data.meta import Split
from ealinformer.data.prepared import PreparedSeries, open_prepared
from ealinformer.errors import InputError
from ealinformer.files import remove_leftovers
from ealinformer.measure import PeakMemory
from ealinformer.measure.allocator import keep_freed_memory
from ealinformer.report.figures import loss_curves
from ealinformer.report.tables import metrics_table
from ealinformer.training.checkpoints.checkpoint import (
    BEST,
    LAST,
    check_fits,
    load_checkpoint,
    load_weights,
    parse_checkpoint,
)
from ealinformer.training.compilation import check_compiler, explaining_compiler
from ealinformer.training.config import Recipe, RunConfig
from ealinformer.training.distributed.groups import broadcast_bytes, join
from ealinformer.training.distributed.ranks import Ranks, ranks_from_environment
from ealinformer.training.host import host_config, quiet_host
from ealinformer.training.identity import code_identity
from ealinformer.training.interrupts import Interrupts, deferred
from ealinformer.training.jobs import Job, check_prior
from ealinformer.training.precision import check_dtype
from ealinformer.training.predictions import save_predictions
from ealinformer.training.resume import Start, has_finished, take_up
from ealinformer.training.runner import ForecastingRunner
from ealinformer.training.runs import folder as run_folder
from ealinformer.training.scoring import ScoringRunner


def train(job: Job) -> dict[str, Any]:
    """Train, score the best epoch on the test part, and return what `metrics.json` in the run's folder says.

    A folder in which such a run was begun is gone on with, to the same numbers; one in which it was finished is left
    as it is. Under torchrun this process is one rank, and all but the first return nothing.

    Raises:
        InputError: the folder, its checkpoints or the data cannot be used, or a loss is not finite.
        Interrupted: a signal came, and a checkpoint was kept.
    """
    ranks = ranks_from_environment() or Ranks.alone()
    with ExitStack() as stack:
        interrupts = stack.enter_context(deferred(seconds_apart=1.0 if ranks.world_size > 1 else 0.0))
        data = open_prepared(job.data_dir)
        device = _prepare_device(job)
        check_compiler(job.run.compile, device)
        code = code_identity(job.entry.model, device=device, processes=ranks.world_size)
        start, record = Start(), _RecordEnd(job.folder)
        if ranks.is_master:
            start = _begin(job, data, code, interrupts, stack, record)
        if start.finished and ranks.world_size == 1:
            return run_folder.read_json(job.folder / run_folder.METRICS)
        stack.enter_context(_explaining_full_disk(job.folder))  # inside of what records it
        stack.enter_context(_explaining_out_of_memory(job.run))
        stack.enter_context(explaining_compiler(job.run.compile))
        quiet_host()
        memory = PeakMemory(cuda=job.gpus is not None)
        logger = stack.enter_context(run_folder.logging_to(job.folder, silent=not ranks.is_master))
        runner = ForecastingRunner(_host_config(job), job.run, logger, interrupts)
        runner.code, runner.data_checksum = code, data.checksum
        runner.minutes_between_checkpoints = job.checkpoint_minutes
        interrupts.check()  # while the ranks meet, a signal ends the process
        stack.enter_context(join(ranks, cuda=job.gpus is not None))
        message = None
        if ranks.is_master:
            message = _FINISHED if start.finished else start.found.data if start.found else b""
        content = broadcast_bytes(message)
        if content == _FINISHED:
            return run_folder.read_json(job.folder / run_folder.METRICS) if ranks.is_master else {}
        runner.distribute(ranks)
        if content:
            found = start.found  # of the first process; the others have its bytes
            path = found.path if found else job.folder / LAST
            runner.resume_from(path, found.state if found else parse_checkpoint(path, content)[1])
        logger.info(_headline(job, runner))
        slow = check_dtype(job.run.dtype, cuda=job.gpus is not None)
        for line in (*start.said, *([f"warning: {slow}"] if slow else [])):
            logger.info(line)
        runner.train()
        record.reason = runner.state.stopped_by
        return _finish(job, runner, memory)


def _prepare_device(job: Job) -> str:
    device = "cpu" if job.gpus is None else "cuda"
    if device == "cpu":
        keep_freed_memory()  # else the large tensors of each step are fresh pages
    return device


_FINISHED = b"finished"
_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def _begin(
    job: Job,
    data: PreparedSeries,
    code: dict[str, str],
    interrupts: Interrupts,
    stack: ExitStack,
    record: "_RecordEnd",
) -> Start:
    """Decide from where to train, check the data, and make the folder this process's own for as long as `stack` is."""
    folder = job.folder
    try:
        known = run_folder.is_run(folder)
    except OSError as error:
        raise InputError(f"output folder {folder} cannot be made: {error.strerror}") from error
    if known and not has_finished(folder):
        stack.enter_context(run_folder.at_work(folder))
    start = take_up(
        folder,
        job.run,
        job.resume,
        code=code,
        data_checksum=data.checksum,
        accept_changes=job.accept_changes,
    )
    if start.finished:
        if job.predictions is not None and not job.predictions.is_file():
            raise InputError(
                f"{folder}: the run has finished without {job.predictions.name}; experiments/evaluate.py --checkpoint "
                f"{folder / BEST} --predictions FILE writes it"
            )
        for line in start.said:
            print(line, file=sys.stderr)
        return start
    said = start.said
    if job.check_data:

        def tell(line: str) -> None:
            with suppress(OSError):  # the terminal may be gone
                print(line, file=sys.stderr)
            interrupts.check()

        contents = check_contents(data, progress=tell)
        said = (*said, *describe_contents(contents, data.sensor_ids()).splitlines())
    if not known:
        stack.enter_context(run_folder.at_work(folder))
    run_folder.create(folder, job.run, again=known)
    if known and start.found is None:  # what was written before the first checkpoint would be there twice
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        (folder / run_folder.HISTORY).unlink(missing_ok=True)
    remove_leftovers(folder)
    run_folder.begin(folder, job.run, data_checksum=data.checksum, resumed_from=start.place)
    stack.push(record)
    return dataclasses.replace(start, said=said)


class _RecordEnd(AbstractContextManager[None]):
    """Writes into run.json how a run ended."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.reason = folder, ""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        status, reason = "finished", self.reason
        if isinstance(error, KeyboardInterrupt):
            status, reason = "interrupted", str(error) or "interrupted by Ctrl-C"
        elif error is not None:
            status, reason = "failed", str(error) if isinstance(error, InputError) else repr(error)
        with suppress(InputError) if error is not None else nullcontext():  # on a full disk the first error says more
            run_folder.end(self.folder, status, reason)


@contextmanager
def _explaining_full_disk(folder: Path) -> Iterator[None]:
    """Name the folder where a library says no more than that there is no space.

    TensorBoard writes in a thread, which would end with a traceback: what it cannot write, the run cannot either, and
    says so. The thread may be late, so that its silence outlasts the block.
    """
    threading.excepthook = _without_disk_errors
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_A_DISK or error.filename is not None:
            raise
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error


def _without_disk_errors(error: threading.ExceptHookArgs) -> None:
    if not (isinstance(error.exc_value, OSError) and error.exc_value.errno in _OF_A_DISK):
        threading.__excepthook__(error)


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


def _finish(job: Job, runner: ForecastingRunner, memory: PeakMemory) -> dict[str, Any]:
    """Score the best epoch on the test part, on all ranks together, and write what came of the run."""
    started = time.monotonic()
    best = runner.state.best
    assert best is not None
    load_weights(job.folder / BEST, runner.bare_model, best)
    peak = memory.mib()
    metrics = _score(job, runner, best["epoch"], "test")
    if not runner.ranks.is_master:
        return {}
    rows = runner.history.rows
    metrics.update(
        {
            "stopped_by": runner.state.stopped_by,
            "epochs": len(rows),
            "steps": runner.step,
            "skipped_steps": runner.state.skipped,
            "steps_per_epoch": runner.steps_per_epoch,
            "seconds_per_epoch": _seconds_per_epoch(runner),
            "seconds_per_step": sum(r["train_seconds"] for r in rows) / runner.step,
            "seconds_in_all": sum(r["train_seconds"] + r["val_seconds"] for r in rows) + time.monotonic() - started,
            "peak_memory_mib": peak,
            "peak_memory_of": memory.kind,
            "processes": runner.ranks.world_size,
        }
    )
    note = "simulated series" if job.run.series.simulated else None
    title = f"{job.run.model} on {job.run.series.name}"
    loss_curves({title: rows}, job.folder / "loss.png", unit=job.run.series.unit, note=note)
    run_folder.write_json(job.folder / run_folder.METRICS, metrics)
    runner.log.info(f"\n{describe_score(metrics)}\n")
    runner.log.info(
        f"run folder  {job.folder}  (metrics.json, history.csv, loss.png, best.pt, train.log, tensorboard/)"
    )
    return metrics


def evaluate(
    job: Job, checkpoint: Path, split: Split, *, eval_batch_size: int | None = None, **settings: str
) -> dict[str, Any]:
    """Score a checkpoint on a split; the same numbers as at the end of its training.

    Model and recipe are those of the checkpoint. For another machine than that of its training there are
    `eval_batch_size` and, of the run's `settings`, dtype, compile and windows.

    Raises:
        InputError: the checkpoint is not one, or of another model, data set or size; or the machine lacks what its
            dtype or compile needs.
    """
    saved, state = load_checkpoint(checkpoint)
    check_fits(checkpoint, saved, job.run)
    if eval_batch_size is not None:
        recipe = saved.recipe.model_copy(update={"eval_batch_size": eval_batch_size})
        saved = saved.model_copy(update={"recipe": recipe})
    saved = saved.model_copy(update={"windows": "auto", **settings})
    check_dtype(saved.dtype, cuda=job.gpus is not None)
    check_prior(saved, job.entry, job.data_dir)
    quiet_host()
    job = dataclasses.replace(job, run=saved, folder=checkpoint.parent)
    check_compiler(saved.compile, _prepare_device(job))
    with _explaining_out_of_memory(saved), explaining_compiler(saved.compile):
        runner = ScoringRunner(_host_config(job), job.run)
        runner.scaler.stats.update({name: torch.tensor(value) for name, value in state["scaler"].items()})
        load_weights(checkpoint, runner.bare_model, state)
        return _score(job, runner, state["epoch"], split)


def describe_score(metrics: dict[str, Any]) -> str:
    """The table that training ends with and evaluation prints, the same to the last digit."""
    simulated = ", simulated series" if metrics["simulated"] else ""
    head = (
        f"{metrics['model']} on {metrics['dataset']}{simulated}: {metrics['split']} part, {metrics['windows']} windows,"
        f" epoch {metrics['epoch']}"
    )
    return f"{head}\n{metrics_table(metrics)}"


def _host_config(job: Job) -> BasicTSForecastingConfig:
    return host_config(job.run, job.entry, data_dir=job.data_dir, folder=job.folder, gpus=job.gpus)


def _score(job: Job, runner: ScoringRunner, epoch: int, split: Split) -> dict[str, Any]:
    score = runner.evaluate(split, keep_predictions=job.predictions is not None)
    data = open_prepared(job.data_dir)
    if job.predictions is not None and runner.ranks.is_master:
        save_predictions(job.predictions, torch.cat(score.predictions).numpy(), data, split, job.run)
    return {
        "model": job.run.model,
        "dataset": job.run.series.name,
        "simulated": job.run.series.simulated,
        "split": split,
        "windows": data.meta["steps"][split] - job.run.input_len - job.run.output_len + 1,
        **score.sums.as_dict(),
        "epoch": epoch,
        "parameters": sum(p.numel() for p in runner.bare_model.parameters()),
        "recipe": job.run.recipe_name,
        "seed": job.run.seed,
    }


def _seconds_per_epoch(runner: ForecastingRunner) -> float | None:
    """Median training time of the whole epochs; None when none was whole."""
    whole = [r["train_seconds"] for r in runner.history.rows if r["steps"] == runner.steps_per_epoch]
    return statistics.median(whole) if whole else None


def _headline(job: Job, runner: ForecastingRunner) -> str:
    run, recipe = job.run, job.run.recipe
    parameters = sum(p.numel() for p in runner.bare_model.parameters())
    where = f"GPU {job.gpus}" if job.gpus else f"CPU, {torch.get_num_threads()} threads"
    processes = runner.ranks.world_size
    batch = f"batch {recipe.batch_size}"
    if processes > 1:
        batch += f" x {processes} processes = {recipe.batch_size * processes}, the rate is not scaled with it"
    defaults = {**RunConfig.model_fields, **Recipe.model_fields}
    chosen = {name: getattr(run, name) for name in ("dtype", "compile", "windows")}
    chosen |= {name: getattr(recipe, name) for name in ("micro_batch_size", "optimizer")}
    other = "".join(f", {name} {value}" for name, value in chosen.items() if value != defaults[name].default)
    return (
        f"{run.model} ({parameters:,} parameters) on {run.series.name}: {run.series.num_sensors} sensors, "
        f"{run.input_len} steps in, {run.output_len} out; recipe {run.recipe_name}: {recipe.loss}, lr {recipe.lr:g}, "
        f"weight decay {recipe.weight_decay:g}, {batch}, at most {recipe.num_epochs} epochs; "
        f"seed {run.seed}; {where}{other}"
    )
