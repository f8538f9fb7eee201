"""Whole epochs in processes of their own: BasicTS's loop as it comes, or ours, on the same files."""

import logging
import os
import statistics
import sys
import threading
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicts.configs import BasicTSForecastingConfig
from basicts.launcher import BasicTSLauncher
from basicts.runners.callback import BasicTSCallback
from tqdm import tqdm

from benchmarks._common import CATALOGUE, NAMES, build, config_settings, model_and_config
from ealinformer.data import PUBLIC, SeriesSpec, prepare
from ealinformer.measure.ceilings import allow_tf32
from ealinformer.measure.memory import PeakMemory, limit_memory
from ealinformer.measure.timing import synchronize
from ealinformer.measure.train_step import (
    INPUT_LEN,
    LR,
    OUTPUT_LEN,
    SEED,
    WEIGHT_DECAY,
    Readings,
    Setting,
    TrainStep,
    built,
)
from ealinformer.training import Experiment, Recipe
from ealinformer.training.config import RunConfig
from ealinformer.training.jobs import prepare_job
from ealinformer.training.launcher import train
from ealinformer.training.resolve import resolve
from ealinformer.training.runner import ForecastingRunner

RUNNERS = ("stock", "ours")
COUNTED_EPOCH = 2
PURE_STEPS = 5


@dataclass(frozen=True)
class Case:
    """One run: a model by its short name, a runner, the folder of the series, and how it is computed."""

    model: str
    runner: str
    series: SeriesSpec
    root: Path
    batch_size: int
    threads: int
    cuda: bool
    settings: tuple[str, ...]
    memory_limit: int | None


def write_series(dataset: str, root: Path, batch_size: int, steps: int | None) -> SeriesSpec:
    """Random readings in the shape of a data set, prepared below `root`; cut to `steps` batches of training windows."""
    public = PUBLIC[dataset]
    window = INPUT_LEN + OUTPUT_LEN
    split, length = public.split, public.num_steps
    if steps is not None:
        parts = (steps * batch_size + window - 1, batch_size + window - 1, batch_size + window - 1)
        length = sum(parts)
        # Half a step over, as shares are rounded down.
        split = ((parts[0] + 0.5) / length, (parts[1] + 0.5) / length, (parts[2] - 1) / length)
    assert length is not None
    spec = SeriesSpec(
        name=dataset,
        num_sensors=public.num_sensors,
        interval_minutes=public.interval_minutes,
        start=datetime(2018, 1, 1),
        raw_file=f"{dataset}.npy",
        split=split,
        simulated=True,
    )
    values = np.random.default_rng(SEED).uniform(1, 400, (length, spec.num_sensors)).astype(np.float32)
    np.save(root / spec.raw_file, values)
    prepare(spec, root, root / "datasets", report=lambda line: None)
    return spec


def run_config(case: Case) -> RunConfig:
    """The run of our loop. Raises InputError where a setting cannot be."""
    recipe = Recipe(
        lr=LR,
        weight_decay=WEIGHT_DECAY,
        batch_size=case.batch_size,
        eval_batch_size=case.batch_size,
        num_epochs=COUNTED_EPOCH,
        patience=None,
    )
    name, params = config_settings(case.model)
    experiment = Experiment(series=case.series, model_params=params, recipes={"epoch": recipe}, seed=SEED)
    return resolve(experiment, model=name, settings=case.settings)


def epoch_of(case: Case) -> dict[str, Any]:
    """Fields of a row: seconds of the second epoch and what they are made of, and the peak memory of the whole run."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "0" if case.cuda else ""
    folder = case.root / f"{case.model}-{case.runner}"
    folder.mkdir()
    _write_output_to(folder / "output.txt")
    torch.set_num_threads(case.threads)
    device = "cuda" if case.cuda else "cpu"
    if case.memory_limit is not None:
        limit_memory(case.memory_limit, device)
    memory, clock = PeakMemory(cuda=case.cuda), Clock(device)
    (_run_stock if case.runner == "stock" else _run_ours)(case, folder, clock)
    peak, reserved = memory.mib(), torch.cuda.max_memory_reserved() if case.cuda else None
    torch.set_num_threads(case.threads)
    phases = _pure_step(case, device)
    return {
        "epoch_seconds": clock.seconds,
        "steps": clock.steps,
        "data_seconds": clock.waited / clock.steps,
        "step_seconds": phases,
        "overhead": 1 - clock.steps * phases / clock.seconds,
        "peak_mib": peak,
        "peak_memory_of": memory.kind,
        "reserved_bytes": reserved,
    }


class Clock(BasicTSCallback):
    """Times the counted epoch from its start to its validation, and what passes between its steps: waiting for data."""

    def __init__(self, device: str) -> None:
        self.device, self.counts = device, False
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0
        self._started = self._step_ended = 0.0

    def on_epoch_start(self, runner: Any, epoch: int, **_: Any) -> None:
        """Wait for what is under way, and begin."""
        self.counts = epoch == COUNTED_EPOCH
        synchronize(self.device)
        self._started = self._step_ended = time.perf_counter()

    def on_step_start(self, runner: Any, **_: Any) -> None:
        """A batch is there."""
        self.waited += self.counts * (time.perf_counter() - self._step_ended)

    def on_step_end(self, runner: Any, **_: Any) -> None:
        """The next batch is fetched from now on."""
        self.steps += self.counts
        self._step_ended = time.perf_counter()

    def on_validate_start(self, runner: Any, **_: Any) -> None:
        """The training part of the epoch is over, and nothing comes after that of the counted one."""
        if self.counts:
            synchronize(self.device)
            self.seconds = time.perf_counter() - self._started
            self.counts, runner.should_training_stop = False, True


def _run_stock(case: Case, folder: Path, clock: Clock) -> None:
    """BasicTS's own launcher and runner; where its defaults do not run on traffic, what makes them."""
    os.chdir(folder)  # it writes where it is
    model, config = model_and_config(case.model, case.series.num_sensors, num_time_in_day=case.series.steps_per_day)
    BasicTSLauncher.launch_training(
        BasicTSForecastingConfig(
            model=model,
            model_config=config,
            dataset_name=case.series.name,
            dataset_params={"data_file_path": str(case.root / "datasets" / case.series.name)},
            input_len=INPUT_LEN,
            output_len=OUTPUT_LEN,
            use_timestamps=True,
            null_val=0.0,
            rescale=True,
            norm_each_channel=True,
            callbacks=[clock],
            batch_size=case.batch_size,
            optimizer_params={"lr": LR, "weight_decay": WEIGHT_DECAY},
            num_epochs=COUNTED_EPOCH + 1,  # it never trains the last batch of the last epoch
            eval_after_train=False,
            gpus="0" if case.cuda else None,
            ckpt_save_dir=str(folder / "checkpoints"),
        )
    )


def _run_ours(case: Case, folder: Path, clock: Clock) -> None:
    """What experiments/train.py runs, with a clock among the callbacks."""
    host_init = ForecastingRunner.__init__

    def with_clock(runner: ForecastingRunner, *arguments: Any, **named: Any) -> None:
        host_init(runner, *arguments, **named)
        runner.callback_handler.callbacks.append(clock)

    ForecastingRunner.__init__ = with_clock  # type: ignore[method-assign, assignment]  # of this process alone
    gpus = "0" if case.cuda else None
    run = run_config(case)
    train(prepare_job(run, CATALOGUE, datasets_dir=case.root / "datasets", folder=folder / "run", gpus=gpus))


def _pure_step(case: Case, device: str) -> float:
    """Median seconds of forward, backward and optimizer on the same model, here and now, without any loop around."""
    setting = Setting(case.series.num_sensors, case.batch_size, device=device, threads=case.threads)
    if case.runner == "ours":
        run = run_config(case)
        setting = replace(setting, dtype=run.dtype, compile=run.compile)
    allow_tf32(setting.dtype)
    step = TrainStep(built(NAMES[case.model][0], setting, build), setting, Readings(setting))
    for _ in range(2):
        step()
    synchronize(device)
    step.phases()
    for _ in range(PURE_STEPS):
        step()
    synchronize(device)
    phases = step.phases()
    return statistics.median(
        map(sum, zip(*(phases[name] for name in ("forward", "backward", "optimizer")), strict=True))
    )


def _write_output_to(path: Path) -> None:
    """Progress bars and logs of the runs are none of the benchmark's."""
    tqdm.set_lock(threading.RLock())  # tqdm's own is a semaphore of the system, and would outlive the process
    with path.open("w", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    logging.getLogger().handlers.clear()
