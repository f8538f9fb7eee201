"""A tiny prepared series and a small model on it: one epoch takes a fraction of a second."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from basicts.runners.callback import BasicTSCallback

from ealinformer.data.prepare import prepare
from ealinformer.data.spec import SeriesSpec
from ealinformer.models import MODELS, ModelEntry
from ealinformer.training import Experiment, Recipe, RunConfig
from ealinformer.training.host import host_config, quiet_host
from ealinformer.training.jobs import Job, prepare_job
from ealinformer.training.resolve import resolve
from ealinformer.training.runner import ForecastingRunner

NUM_SENSORS, NUM_STEPS = 5, 401
SPEC = SeriesSpec(
    name="TINY",
    num_sensors=NUM_SENSORS,
    interval_minutes=30,
    start=datetime(2018, 1, 5, 22, 30),  # a Friday night, so that day and week both turn over
    raw_file="TINY.npz",
)
MODEL_PARAMS = {
    "input_hidden_size": 4,
    "tid_hidden_size": 4,
    "diw_hidden_size": 4,
    "adaptive_hidden_size": 4,
    "intermediate_size": 16,
    "n_heads": 2,
    "num_layers": 1,
}


def daily_flow() -> np.ndarray:
    """Flow `[T, N]` with a daily wave, noise, and missing readings as zeros: single ones and an outage."""
    rng = np.random.default_rng(7)
    phase = 2 * np.pi * np.arange(NUM_STEPS)[:, None] / 48
    values = 200 + 20 * np.arange(NUM_SENSORS) + 120 * np.sin(phase) + 10 * rng.standard_normal((NUM_STEPS, 5))
    values = np.maximum(values, 1).astype(np.float32)
    values[rng.random(values.shape) < 0.05] = 0
    values[340:350, 2] = 0
    return values


@pytest.fixture(autouse=True)
def _host_is_quiet() -> None:
    quiet_host()


@pytest.fixture(scope="session")
def datasets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of prepared series; TINY is in it."""
    root = tmp_path_factory.mktemp("tiny")
    np.savez(root / "TINY.npz", data=daily_flow())
    prepare(SPEC, root, root / "datasets", report=lambda line: None)
    return root / "datasets"


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    """4 steps in, 3 out, so 234 windows to train on, 74 to validate and 75 to test; no batch size divides them."""
    recipe = Recipe(
        loss="masked_mae",
        lr=5e-3,
        weight_decay=1e-4,
        milestones=(2,),
        batch_size=40,
        eval_batch_size=32,
        num_epochs=2,
        patience=None,
    )
    return Experiment(
        series=SPEC, input_len=4, output_len=3, model_params=MODEL_PARAMS, recipes={"tiny": recipe}, seed=1
    )


@pytest.fixture(scope="session")
def configure(experiment: Experiment) -> Callable[..., RunConfig]:
    """`configure("lr=0.1", "seed=3")`: the tiny run with other settings."""
    return lambda *settings: resolve(experiment, settings=settings)


@pytest.fixture(scope="session")
def new_job(datasets_dir: Path, configure: Callable[..., RunConfig]) -> Callable[..., Job]:
    """`new_job(folder, "lr=0.1")`: the tiny run with other settings, ready to be trained in `folder`."""

    def make(folder: Path, *settings: str) -> Job:
        return prepare_job(configure(*settings), MODELS, datasets_dir=datasets_dir, folder=folder)

    return make


@pytest.fixture
def build(new_job: Callable[..., Job], tmp_path: Path) -> Callable[..., ForecastingRunner]:
    """`build("lr=0.1", callbacks=[...], entry=...)`: a runner of ours, in a folder of its own."""

    def make(
        *settings: str, callbacks: list[BasicTSCallback] | None = None, entry: ModelEntry | None = None, **host: Any
    ) -> ForecastingRunner:
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        job = new_job(folder, *settings)
        folder.mkdir()
        run = job.run if entry is None else job.run.model_copy(update={"model_params": {}})
        config = host_config(run, entry or job.entry, data_dir=job.data_dir, folder=folder, gpus=None)
        config.callbacks = [*config.callbacks, *(callbacks or [])]
        for key, value in host.items():
            setattr(config, key, value)
        return ForecastingRunner(config, run)

    return make
