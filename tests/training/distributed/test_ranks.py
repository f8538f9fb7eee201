"""Several real processes (gloo) train one run: the losses, scores and decisions of one process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ealinformer.training.checkpoints.checkpoint import load_checkpoint
from ealinformer.training.runs.history import read_history

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """
from ealinformer.training import Experiment, Recipe, SeriesSpec

CONFIG = Experiment(
    series=SeriesSpec(name="TINY", num_sensors=5, interval_minutes=30, start="2018-01-05T22:30", raw_file="TINY.npz"),
    input_len=4,
    output_len=3,
    model_params={
        "input_hidden_size": 4, "tid_hidden_size": 4, "diw_hidden_size": 4, "adaptive_hidden_size": 4,
        "intermediate_size": 16, "n_heads": 2, "num_layers": 1, "dropout": 0.0,
    },
    recipes={"tiny": Recipe(loss="masked_mae", lr=5e-3, milestones=(2,), eval_batch_size=20, num_epochs=3)},
)
"""
# 234 windows to train on. Of global batches of 116 the last one holds 2: of four processes two have none of their own.
SIZES = {1: 116, 2: 58, 4: 29}


START = """
import sys
from ealinformer.training.distributed.processes import start_processes
sys.exit(start_processes([sys.executable, *sys.argv[1:]], 2))
"""


@dataclass(frozen=True)
class Runs:
    """Command lines of train.py on the tiny series, as one process or several."""

    root: Path
    datasets: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, folder: Path, processes: int, *arguments: str) -> list[str]:
        script = [str(ROOT / "experiments" / "train.py"), "-c", str(self.root / "tiny.py")]
        script += ["--datasets-dir", str(self.datasets), "--output-dir", str(folder), *arguments]
        return [sys.executable, *script, "--processes", str(processes), "--batch-size", str(SIZES[processes])]

    def start(self, command: Sequence[str], **variables: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
        self.started.append(process)
        return process

    def train(self, folder: Path, processes: int, *arguments: str) -> str:
        process = self.start(self.command(folder, processes, *arguments))
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said


@pytest.fixture(scope="module")
def runs(datasets_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    root = tmp_path_factory.mktemp("ranks")
    (root / "tiny.py").write_text(CONFIG)
    runs = Runs(root, datasets_dir)
    yield runs
    for process in runs.started:
        process.kill()  # of a test that failed; its ranks follow


@pytest.fixture(scope="module")
def of_one_process(runs: Runs) -> Path:
    runs.train(runs.root / "one", 1, "--set", "dtype=float64", "--predictions")
    return runs.root / "one"


def rows(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in read_history(folder / "history.csv")]


def assert_close(folder: Path, other: Path, tolerance: float = 1e-9) -> None:
    """Same history, metrics, decisions and weights, but for the order of float64 sums."""
    for row, expected in zip(rows(folder), rows(other), strict=True):
        assert row == pytest.approx(expected, rel=tolerance)
    metrics, expected = (json.loads((f / "metrics.json").read_text()) for f in (folder, other))
    for key in ("epoch", "steps", "steps_per_epoch", "windows", "stopped_by"):
        assert metrics[key] == expected[key]
    for horizon, values in metrics["horizons"].items():
        assert values == pytest.approx(expected["horizons"][horizon], rel=tolerance)
    weights, expected = (load_checkpoint(f / "last.pt")[1]["model"] for f in (folder, other))
    for name, tensor in weights.items():
        np.testing.assert_allclose(tensor.numpy(), expected[name].numpy(), rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_with_a_part_of_the_batch_follow_one_with_the_whole(
    runs: Runs, of_one_process: Path, tmp_path: Path, processes: int
) -> None:
    """With missing readings, of which every process has another number, and a last batch smaller than the processes."""
    said = runs.train(tmp_path / "run", processes, "--set", "dtype=float64", "--predictions")
    assert_close(tmp_path / "run", of_one_process)
    predictions, expected = (np.load(f / "predictions.npz") for f in (tmp_path / "run", of_one_process))
    np.testing.assert_allclose(predictions["prediction"], expected["prediction"], rtol=1e-9)
    np.testing.assert_array_equal(predictions["targets"], expected["targets"])
    batch = SIZES[processes]
    assert f"batch {batch} x {processes} processes = {batch * processes}, the rate is not scaled with it" in said
    assert said.count("epoch   1/3") == 1  # one speaks for all
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["processes"] == processes


def test_processes_that_pass_their_batches_in_parts_follow_one_with_the_whole(
    runs: Runs, of_one_process: Path, tmp_path: Path
) -> None:
    """Parts of 20 windows: of 58 three, and of the last batch, which is smaller, one on each process."""
    said = runs.train(tmp_path / "run", 2, "--set", "dtype=float64", "--set", "micro_batch_size=20")
    assert_close(tmp_path / "run", of_one_process)
    assert "dtype float64, micro_batch_size 20\n" in said


def test_one_step_more_shows_that_the_comparison_can_fail(runs: Runs, of_one_process: Path, tmp_path: Path) -> None:
    runs.train(tmp_path / "run", 1, "--set", "dtype=float64", "--set", "lr=0.00501")
    with pytest.raises(AssertionError):
        assert_close(tmp_path / "run", of_one_process, tolerance=1e-5)


def test_two_processes_killed_in_the_middle_end_as_two_that_ran_through(runs: Runs, tmp_path: Path) -> None:
    """With dropout, of which every process draws its own, and early stopping, which both have to decide alike."""
    settings = ["model.dropout=0.2", "patience=1", "lr=0.05"]
    options = ("--epochs", "9", "--checkpoint-minutes", "0", *(f"--set={setting}" for setting in settings))
    straight = tmp_path / "straight"
    runs.train(straight, 2, *options)
    metrics = json.loads((straight / "metrics.json").read_text())
    assert metrics["stopped_by"] == "no better validation score for 1 epochs"

    run = tmp_path / "run"
    process = runs.start(runs.command(run, 2, *options))
    wait_for(run / "previous.pt", process)
    ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(ranks) == 2
    started = time.monotonic()
    os.kill(int(ranks[1]), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - started < 60
    assert process.returncode != 0
    assert "SIGKILL" in said
    assert "Traceback" not in said
    assert not (run / "metrics.json").exists()

    assert "resumed from" in runs.train(run, 2, *options)
    assert rows(run) == rows(straight)
    one, two = (load_checkpoint(folder / "last.pt")[1]["model"] for folder in (run, straight))
    assert all(np.array_equal(one[name].numpy(), two[name].numpy()) for name in one)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_saves_once_and_leaves(runs: Runs, tmp_path: Path, number: signal.Signals) -> None:
    run = tmp_path / "run"
    settings = ("--epochs", "2000", "--checkpoint-minutes", "0")
    process = runs.start(runs.command(run, 2, *settings))
    wait_for(run / "previous.pt", process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert said.count("saving and leaving") == 1
    assert said.count(f"the same command with --output-dir {run} goes on from there") == 1
    assert "Traceback" not in said
    status: dict[str, Any] = json.loads((run / "run.json").read_text())
    assert (status["status"], number.name in status["exit_reason"]) == ("interrupted", True)


def test_bad_input_is_one_line_and_not_one_for_each_process(runs: Runs, tmp_path: Path) -> None:
    process = runs.start([*runs.command(tmp_path / "run", 2), "--set", "model.n_heads=3"])
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.count("\n") == 1
    assert said.startswith("error: model ELinFormer cannot be built")
    assert not (tmp_path / "run").exists()


def test_a_model_that_leaves_parameters_unused_is_trained_too(runs: Runs, tmp_path: Path) -> None:
    """Without attention the projections of queries and keys get no gradient, which torch refuses unless it is told."""
    settings = ("--set", "dtype=float64", "--set", "model.attention=identity", "--epochs", "1")
    for processes in (1, 2):
        runs.train(tmp_path / str(processes), processes, *settings)
    assert_close(tmp_path / "2", tmp_path / "1")


FAILING = """
import os, runpy, sys
sys.path.insert(0, "experiments")
sys.argv = sys.argv[1:]
rank, name, call = os.environ["FAIL"].split(",")
if os.environ["RANK"] == rank:
    from ealinformer.training.runner import ForecastingRunner
    original, calls = getattr(ForecastingRunner, name), []
    def failing(self, *arguments, **options):
        calls.append(1)
        if len(calls) == int(call):
            raise ZeroDivisionError(f"in {name} of rank {rank}")
        return original(self, *arguments, **options)
    setattr(ForecastingRunner, name, failing)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    "place", ["0,_train_step,3", "1,_train_step,3", "1,_predict,5", "0,validate,2", "1,evaluate,1"]
)
def test_an_exception_on_any_rank_ends_all_with_its_message(runs: Runs, tmp_path: Path, place: str) -> None:
    """In training, in the midst of a validation, before one, and in the final scoring."""
    run, script = tmp_path / "run", tmp_path / "failing.py"
    script.write_text(FAILING)
    python, *command = runs.command(run, 2)
    at = command.index("--processes")
    engine = [python, "-c", START, str(script), *command[:at], *command[at + 2 :]]
    started = time.monotonic()
    process = runs.start(engine, FAIL=place)
    _, said = process.communicate(timeout=60)
    rank, name, _ = place.split(",")
    assert time.monotonic() - started < 60
    assert process.returncode == 1
    assert f"ZeroDivisionError: in {name} of rank {rank}" in said
    assert said.splitlines()[-1] == f"error: rank {rank} ended with exit code 1; the run is ended"
    status = json.loads((run / "run.json").read_text())["status"]
    assert status in ("failed", "interrupted", "running")
    assert not (run / "metrics.json").exists()


def test_another_number_of_processes_is_named_and_taken_when_accepted(runs: Runs, tmp_path: Path) -> None:
    run, settings = tmp_path / "run", ("--epochs", "3", "--checkpoint-minutes", "0")
    process = runs.start(runs.command(run, 2, *settings))
    wait_for(run / "previous.pt", process)
    process.kill()
    process.communicate()
    command = [*runs.command(run, 1, *settings), "--batch-size", str(SIZES[2])]
    process = runs.start(command)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "the checkpoint is of other code: processes 2 -> 1" in said.splitlines()[-1]
    process = runs.start([*command, "--accept-changes"])
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "processes 2 -> 1 (accepted)" in said


def test_torchrun_starts_a_run_again_from_its_checkpoint(runs: Runs, tmp_path: Path) -> None:
    """`--max-restarts`: a process that dies by a kill takes the others with it, and all go on from the checkpoint."""
    run = tmp_path / "run"
    command = runs.command(run, 2, "--epochs", "3", "--checkpoint-minutes", "0")[1:]
    command = [arg for arg in command if arg not in ("--processes", "2")]
    engine = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1", "--master-port", "0"]
    process = runs.start(
        [sys.executable, *engine, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", *command]
    )
    wait_for(run / "previous.pt", process)
    ranks = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(ranks[-1]), signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "resumed from" in said
    starts = json.loads((run / "run.json").read_text())["starts"]
    assert len(starts) == 2
    assert len(read_history(run / "history.csv")) == 3


def test_torchrun_needs_the_name_of_the_folder_and_decides_the_number(runs: Runs, tmp_path: Path) -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    command = runs.command(tmp_path / "run", 4)
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == "error: --processes 4: torchrun started 2 on this machine\n"
    command = runs.command(tmp_path / "run", 1)
    at = command.index("--output-dir")
    del command[at : at + 2]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: under torchrun --output-dir has to be given")
