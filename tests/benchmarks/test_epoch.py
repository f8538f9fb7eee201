"""benchmarks/epoch.py: both loops train on the same files, and the second epoch is what counts."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import epoch
from benchmarks._epochs import Clock, write_series
from ealinformer.errors import InputError


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """The benchmark sets torch's threads; the tests after these keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_both_loops_are_measured(tmp_path: Path) -> None:
    row = tmp_path / "epoch" / "cpu.json"
    cases = "identity:stock,identity:ours"
    epoch.main(["PEMS08", "--batch-size", "1", "--steps", "2", "--threads", "1", "--cases", cases, "--row", str(row)])
    content = json.loads(row.read_text())
    stock, ours = content["rows"]
    for found in (stock, ours):
        assert found["status"] == "ok", found["reason"]
        assert found["steps"] == 2
        assert 0 < found["data_seconds"] < found["epoch_seconds"]
        assert found["overhead"] == pytest.approx(1 - 2 * found["step_seconds"] / found["epoch_seconds"])
        assert found["peak_mib"] > 10
        assert found["series_cut"] is True
    assert (stock["ratio"], stock["memory_ratio"]) == (1, 1)
    assert ours["ratio"] == pytest.approx(ours["epoch_seconds"] / stock["epoch_seconds"])
    assert "cut to 2 steps an epoch" in row.with_suffix(".txt").read_text()
    assert {"machine", "commit", "random_values"} <= content.keys()


def test_a_series_is_cut_to_whole_batches(tmp_path: Path) -> None:
    spec = write_series("PEMS08", tmp_path, batch_size=4, steps=3)
    folder = tmp_path / "datasets" / "PEMS08"
    assert np.load(folder / "train_data.npy").shape == (3 * 4 + 23, 170)  # 12 windows of 12 steps in, 12 out
    assert len(np.load(folder / "val_data.npy")) == len(np.load(folder / "test_data.npy")) == 4 + 23
    assert spec.simulated


def test_only_the_second_epoch_counts() -> None:
    clock, runner = Clock("cpu"), SimpleNamespace(should_training_stop=False)
    for number in (1, 2, 3):
        clock.on_epoch_start(runner, epoch=number)
        for _ in range(number):
            clock.on_step_start(runner)
            clock.on_step_end(runner)
        clock.on_validate_start(runner)
        assert runner.should_training_stop == (number >= 2)
    assert clock.steps == 2
    assert 0 < clock.waited < clock.seconds


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["PEMS08", "--steps", "1"], "--steps has to be at least 2, got 1"),
        (["PEMS08", "--steps", "0"], "--steps has to be at least 1, got 0"),
        (["PEMS80"], "NAME is a list of"),
        (["PEMS08", "--cases", "explicit"], "--cases: 'explicit': '' is none of stock, ours"),
        (["PEMS08", "--cases", "fussed:ours"], "'fussed' is none of .*did you mean 'fused'"),
        (["PEMS08", "--steps", "2", "--batch-size", "1", "--set", "dtipe=bf16"], "unknown key 'dtipe'"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        epoch.main(arguments)
