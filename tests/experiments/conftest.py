"""Command lines called in this process, on a town small enough that a training takes a fraction of a second."""

import contextlib
import importlib.util
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import pytest

from ealinformer.cli import run

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {path.stem: path for folder in ("experiments", "scripts") for path in (ROOT / folder).glob("[!_]*.py")}
NUM_SENSORS, NUM_STEPS = 5, 480
TOWN = """
from ealinformer.training import Experiment, Recipe, SeriesSpec

CONFIG = Experiment(
    series=SeriesSpec(
        name="TOWN", num_sensors=5, interval_minutes=30, start="2020-02-05", raw_file="town.npz", channel=1
    ),
    input_len=6,
    output_len=4,
    model_params={
        "input_hidden_size": 4, "tid_hidden_size": 4, "diw_hidden_size": 4, "adaptive_hidden_size": 4,
        "intermediate_size": 16, "n_heads": 2, "num_layers": 1,
    },
    recipes={"short": Recipe(loss="masked_mae", lr=5e-3, batch_size=40, eval_batch_size=32, num_epochs=2)},
)
"""


@dataclass(frozen=True)
class Done:
    """How a command line ended, and what it said."""

    status: int | str | None
    out: str
    err: str


@dataclass(frozen=True)
class Town:
    """A prepared data set and its config: 288 steps to train on, 96 to validate and 96 to test."""

    config: Path
    datasets: Path

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("-c", str(self.config), "--datasets-dir", str(self.datasets))


@dataclass(frozen=True)
class Trained:
    """A run that is through, and what its command line said."""

    folder: Path
    done: Done

    @property
    def best(self) -> str:
        return str(self.folder / "best.pt")


Call = Callable[..., Done]
Refused = Callable[..., str]


@pytest.fixture(scope="session")
def script() -> Iterator[Callable[[str], ModuleType]]:
    """`script("train")`: the module experiments/train.py, or one of scripts/."""
    modules: dict[str, ModuleType] = {}

    def load(name: str) -> ModuleType:
        if name not in modules:
            spec = importlib.util.spec_from_file_location(f"command_line_{name}", SCRIPTS[name])
            assert spec is not None
            assert spec.loader is not None
            modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(modules[name])
        return modules[name]

    with patch.object(sys, "path", [str(ROOT / "experiments"), *sys.path]):
        yield load


@pytest.fixture(scope="session")
def call(script: Callable[[str], ModuleType]) -> Call:
    """`call("train", "-c", path)`: run a command line as a terminal would, but in this process."""

    def call_in_process(name: str, *arguments: str) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.object(sys, "argv", [f"{name}.py", *map(str, arguments)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as caught,
        ):
            run(script(name).main)
        return Done(caught.value.code, out.getvalue(), err.getvalue())

    return call_in_process


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """`start("train", ..., cwd=folder)`: the same in a process of its own, with one thread."""

    def popen(name: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        command = [sys.executable, str(SCRIPTS[name]), *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
        return subprocess.Popen(command, text=True, encoding="utf-8", env=environment, **pipes)  # type: ignore[call-overload]

    return popen


@pytest.fixture
def refused(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """`refused("train", ...)`: bad input, called from `tmp_path`: status 2, one line, nothing written or lost there."""
    monkeypatch.chdir(tmp_path)

    def call_in_vain(name: str, *arguments: object) -> str:
        before = contents(tmp_path)
        done = call(name, *map(str, arguments))
        assert (done.status, done.out) == (2, ""), done.err
        assert contents(tmp_path) == before
        lines = done.err.splitlines()
        assert len(lines) == 1, done.err
        assert lines[0].startswith("error: ")
        return lines[0].removeprefix("error: ")

    return call_in_vain


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def daily_flow(num_steps: int = NUM_STEPS, num_sensors: int = NUM_SENSORS, steps_per_day: int = 48) -> np.ndarray:
    """Flow `[T, N]` with a daily wave and noise, always positive."""
    rng = np.random.default_rng(11)
    phase = 2 * np.pi * np.arange(num_steps)[:, None] / steps_per_day
    return 200 + 20 * np.arange(num_sensors) + 90 * np.sin(phase) + 3 * rng.standard_normal((num_steps, num_sensors))


@pytest.fixture(scope="session")
def flow() -> Callable[..., np.ndarray]:
    return daily_flow


@pytest.fixture(scope="session")
def town_config() -> str:
    """Text of the town's config, to be changed."""
    return TOWN


@pytest.fixture(scope="session")
def town(call: Call, tmp_path_factory: pytest.TempPathFactory) -> Town:
    """The town, prepared by its config file and prepare_dataset.py; a share of its readings is missing."""
    root = tmp_path_factory.mktemp("town")
    values = daily_flow()
    values[np.random.default_rng(12).random(values.shape) < 0.04] = 0
    np.savez(root / "town.npz", data=np.stack([np.full_like(values, 9.0), values], axis=2))
    town = Town(root / "town.py", root / "datasets")
    town.config.write_text(TOWN)
    done = call("prepare_dataset", *town.arguments, "--raw-dir", root)
    assert done.status == 0, done.err
    return town


@pytest.fixture(scope="session")
def trained(call: Call, town: Town, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """ELinFormer after 12 steps, with its forecasts."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    done = call("train", *town.arguments, "--max-steps", "12", "--predictions", "--output-dir", folder)
    assert done.status == 0, done.err
    return Trained(folder, done)
