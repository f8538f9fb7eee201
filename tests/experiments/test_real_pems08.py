"""The public PEMS08, from its raw file to a score."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from ealinformer.training.checkpoints.checkpoint import load_checkpoint
from ealinformer.training.runner import ForecastingRunner

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ("-c", str(ROOT / "configs" / "PEMS08.py"))
TINY = {
    "model.input_hidden_size": 4,
    "model.tid_hidden_size": 4,
    "model.diw_hidden_size": 0,
    "model.adaptive_hidden_size": 8,
    "model.intermediate_size": 8,
    "model.n_heads": 2,
    "model.num_layers": 1,
}

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not os.environ.get("EALINFORMER_RAW_DIR"), reason="skipped: no raw data"),
]


@pytest.fixture(scope="module")
def datasets(call, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEMS08, prepared by the command line."""
    folder = tmp_path_factory.mktemp("datasets")
    raw = os.environ["EALINFORMER_RAW_DIR"]
    done = call("prepare_dataset", "PEMS08", "--raw-dir", raw, "--datasets-dir", folder)
    assert done.status == 0, done.err
    assert "17856 steps x 170 sensors, every 5 minutes" in done.out
    assert "10713 / 3571 / 3572" in done.out
    return folder


def test_the_floor_is_the_published_one(call, datasets: Path) -> None:
    done = call("floor", *CONFIG, "--datasets-dir", datasets)
    assert (done.status, done.err) == (0, "")
    rows = [line.rsplit(maxsplit=3)[:2] for line in done.out.splitlines()[4:]]
    assert rows == [["last value", "25.3000"], ["weekly profile", "23.2706"], ["historical inertia", "34.7152"]]


@pytest.fixture(scope="module")
def arguments(datasets: Path) -> tuple[object, ...]:
    widths = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    return (*CONFIG, "--datasets-dir", datasets, "--max-steps", 3, *widths)


@pytest.fixture(scope="module")
def straight(call, arguments: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training that ran through."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    done = call("train", *arguments, "--output-dir", folder)
    assert done.status == 0, done.err
    assert "ELinFormer on PEMS08: test part, 3549 windows, epoch 1" in done.err
    assert "17,856 steps x 170 sensors; missing " in done.err
    return folder


def test_a_training_scores_all_windows_of_the_test_part(straight: Path) -> None:
    metrics = json.loads((straight / "metrics.json").read_text())
    assert (metrics["windows"], metrics["steps"], len(metrics["horizons"])) == (3549, 3, 12)
    assert 0 < metrics["average"]["MAE"] < 250
    assert not metrics["simulated"]


def test_a_training_that_was_stopped_gives_the_same_numbers(
    call, arguments: tuple[object, ...], straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = ForecastingRunner._train_step

    def stopped(self: ForecastingRunner, *batch: object) -> None:
        step(self, *batch)
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(ForecastingRunner, "_train_step", stopped)
        assert call("train", *arguments, "--output-dir", tmp_path / "run").status == 143
    done = call("train", *arguments, "--output-dir", tmp_path / "run")
    assert done.status == 0, done.err
    assert "epoch 1, 2 steps of it done, step 2 in all" in done.err
    metrics, expected = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "run", straight))
    assert metrics["horizons"] == expected["horizons"]  # to the last digit
    one, two = (load_checkpoint(folder / "last.pt")[1]["model"] for folder in (tmp_path / "run", straight))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_fast_path_ends_with_the_scores_of_the_plain_one(
    call, arguments: tuple[object, ...], tmp_path: Path
) -> None:
    """Lean layers and windows on the device against plain layers and windows of the host: within 0.2 % asked for."""
    plain = ("--set", "model.layers=plain", "--set", "windows=host")
    scores = []
    for name, how in (("fast", ()), ("plain", plain)):
        folder = tmp_path / name
        done = call("train", *arguments, "--set", "model.dropout=0.0", *how, "--output-dir", folder)
        assert done.status == 0, done.err
        scores.append(json.loads((folder / "metrics.json").read_text())["average"])
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
