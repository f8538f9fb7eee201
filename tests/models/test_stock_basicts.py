"""Our models under BasicTS's own launcher, without anything of `ealinformer.training`.

BasicTS keeps a device type and loggers for a whole process and renames it, so the trainings run in a process of their
own, which is this file as a program.
"""

import json
import math
import os
import runpy
import subprocess
import sys
import traceback
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines import MODELS as BASELINES
from ealinformer.models import MODELS

STEPS = {"train": 200, "val": 80, "test": 80}
NUM_SENSORS, STEPS_PER_DAY, EPOCHS = 5, 24, 2


def write_series(folder: Path) -> None:
    """Hourly flow with a daily wave, an offset per sensor, noise and some missing readings, in BasicTS's layout."""
    rng = np.random.default_rng(0)
    step = np.arange(sum(STEPS.values()))
    sensor = np.arange(NUM_SENSORS)
    flow = 200 + 30 * sensor + 100 * np.sin(2 * np.pi * step[:, None] / STEPS_PER_DAY + sensor)
    flow += rng.normal(scale=5, size=flow.shape)
    flow[rng.random(flow.shape) < 0.02] = 0
    calendar = np.stack([step % STEPS_PER_DAY / STEPS_PER_DAY, step // STEPS_PER_DAY % 7 / 7], axis=1)
    folder.mkdir()
    first = 0
    for split, steps in STEPS.items():
        rows = slice(first, first + steps)
        np.save(folder / f"{split}_data.npy", flow[rows].astype(np.float32))
        np.save(folder / f"{split}_timestamps.npy", calendar[rows].astype(np.float32))
        first += steps


def train(model: str, folder: Path) -> None:
    """Train a model on `folder`/data under stock BasicTS; everything that it writes is under `folder`/`model`."""
    import torch
    from basicts.configs import BasicTSForecastingConfig
    from basicts.launcher import BasicTSLauncher

    torch.set_num_threads(1)
    entry = {**MODELS, **BASELINES}[model]
    known = {field.name for field in fields(entry.config)}
    sizes = {"num_features": NUM_SENSORS, "num_time_in_day": STEPS_PER_DAY, **small_sizes(model)}
    prior = {"data_dir": str(folder / "data"), "graph": "correlation"}
    params = {key: value for key, value in {**sizes, **prior}.items() if key in known}
    BasicTSLauncher.launch_training(
        BasicTSForecastingConfig(
            model=entry.model,
            model_config=entry.config(**params),
            dataset_name="made_up",
            dataset_params={"data_file_path": str(folder / "data")},
            input_len=12,
            output_len=12,
            use_timestamps=True,
            null_val=0.0,
            rescale=True,
            norm_each_channel=True,
            batch_size=8,
            lr=5e-3,
            num_epochs=EPOCHS,
            gpus=None,
            ckpt_save_dir=str(folder / model / "checkpoints"),
        )
    )


def small_sizes(model: str) -> dict[str, Any]:
    """What sizes/NAME.py says, as for the conformance tests."""
    path = Path(__file__).parent / "sizes" / f"{model}.py"
    if path.is_file():
        return dict(runpy.run_path(str(path))["SMALL"])
    widths = dict.fromkeys(("input_hidden_size", "tid_hidden_size", "diw_hidden_size", "adaptive_hidden_size"), 4)
    return {"intermediate_size": 16, "num_layers": 1, **widths}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each model with what its training left, or with an error.txt."""
    folder = tmp_path_factory.mktemp("stock")
    write_series(folder / "data")
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}  # as in tests/conftest.py
    command = [sys.executable, __file__, str(folder)]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr[-3000:]
    return folder


@pytest.mark.parametrize("model", [*MODELS, *BASELINES])
def test_trains_under_the_stock_launcher(model, runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    error = runs / model / "error.txt"
    assert not error.exists(), error.read_text(encoding="utf-8")
    (run,) = (runs / model / "checkpoints").iterdir()
    metrics = json.loads((run / "test_metrics.json").read_text(encoding="utf-8"))["overall"]
    assert all(math.isfinite(value) for value in metrics.values())
    if model in ("ELinFormer", "STAEformer"):  # the others are too small here, or stand before their horizon's end
        assert metrics["MAE"] < 60  # the mean of each sensor would be off by 2 / pi of the wave's 100 vehicles

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert len(losses) == EPOCHS
    assert losses[-1] < (0.8 if model in ("ELinFormer", "STAEformer") else 1) * losses[0]
    assert (run / f"{model}_best_val_MAE.pt").is_file()


def train_all(folder: Path) -> None:
    """One after the other; what one of them raises is written down."""
    for model in (*MODELS, *BASELINES):
        (folder / model).mkdir()
        try:
            train(model, folder)
        except Exception:
            (folder / model / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")


if __name__ == "__main__":
    train_all(Path(sys.argv[1]))
