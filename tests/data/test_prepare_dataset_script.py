"""scripts/prepare_dataset.py as a user runs it: output, exit statuses, one line for bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "prepare_dataset.py"

CONFIG = """
from datetime import datetime

from ealinformer.data.spec import SeriesSpec
from ealinformer.training.config import Experiment

CONFIG = Experiment(
    series=SeriesSpec(
        name="TOWN", num_sensors=3, interval_minutes=5, start=datetime(2020, 2, 5), raw_file="town.npy"
    ),
    input_len=INPUT_LEN,
)
"""


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def refused(folder: Path, *arguments: str) -> str:
    before = sorted(folder.rglob("*"))
    done = call(folder, *arguments)
    assert done.returncode == 2
    assert sorted(folder.rglob("*")) == before
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def write_config(folder: Path, input_len: int = 12) -> Path:
    path = folder / "town.py"
    path.write_text(CONFIG.replace("INPUT_LEN", str(input_len)))
    return path


@pytest.fixture
def town(tmp_path: Path) -> Path:
    """A working directory with a config and the raw file it describes."""
    write_config(tmp_path)
    raw = tmp_path / "datasets" / "raw"
    raw.mkdir(parents=True)
    np.save(raw / "town.npy", np.arange(600.0).reshape(200, 3))
    return tmp_path


def test_prepares_the_series_of_a_config_and_then_has_nothing_to_do(town: Path) -> None:
    first = call(town, "-c", "town.py")
    assert (first.returncode, first.stderr) == (0, "")
    lines = [line.split(maxsplit=1) for line in first.stdout.splitlines()]
    said = {line[0]: line[1] for line in lines}
    assert said["shape"] == "200 steps x 3 sensors, every 5 minutes"
    assert said["start"] == "Wednesday 2020-02-05 00:00, day of week by calendar"
    assert said["split"] == "120 / 40 / 40"
    assert said["missing"] == "0.17% of the readings are 0"
    assert said["graph"] == "none"
    assert said["folder"] == "datasets/TOWN"
    assert np.load(town / "datasets" / "TOWN" / "train_timestamps.npy")[0, 1] == np.float32(2 / 7)

    second = call(town, "-c", "town.py")
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout.splitlines()[0] == "datasets/TOWN is up to date: nothing to do"

    by_row = call(town, "-c", "town.py", "--day-of-week", "row")
    assert by_row.stdout.splitlines()[0] == "datasets/TOWN is prepared anew: day_of_week calendar -> row"
    assert np.load(town / "datasets" / "TOWN" / "train_timestamps.npy")[0, 1] == 0


def test_the_windows_of_the_config_have_to_fit(town: Path) -> None:
    write_config(town, input_len=29)
    message = refused(town, "-c", "town.py")
    assert "40 are for val: expected at least one window of 41" in message


def test_lists_what_is_known_and_what_is_prepared(town: Path) -> None:
    call(town, "-c", "town.py")
    done = call(town, "--list")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    rows = {line.split()[0]: line.split() for line in lines}
    assert rows["PEMS08"][:7] == ["PEMS08", "170", "17856", "5", "flow", "0.6:0.2:0.2", "no"]
    assert rows["TOWN"] == ["TOWN", "3", "200", "5", "flow", "0.6:0.2:0.2", "datasets/TOWN"]
    # Aligned: every state begins below the word "prepared".
    column = lines[0].index("prepared")
    assert all(line[column - 2 : column] == "  " and line[column] != " " for line in lines)


def test_help_has_examples(tmp_path: Path) -> None:
    done = call(tmp_path, "--help")
    assert done.returncode == 0
    assert "examples:\n  python scripts/prepare_dataset.py PEMS08 --download" in done.stdout


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    message = refused(tmp_path, "PEMS8")
    assert "no series is called 'PEMS8' (did you mean 'PEMS08'?)" in message
    assert "METR-LA" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "give either the NAME of a series or -c CONFIG"),
        (("PEMS08", "-c", "town.py"), "give either the NAME of a series or -c CONFIG"),
        (("PEMS08", "--day-of-week", "monday"), "invalid choice: 'monday'"),
        (("-c", "nowhere.py"), "nowhere.py"),
        (
            ("PEMS08", "--raw-dir", "none"),
            "none/PEMS08/PEMS08.npz is not there: pass --download or put PEMS08.npz into",
        ),
        (("METR-LA", "--download"), "metr-la.h5 has no published address: put metr-la.h5 into datasets/raw/METR-LA/"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in refused(tmp_path, *arguments)


def test_a_bad_raw_file_is_one_line(town: Path) -> None:
    values = np.arange(600.0).reshape(200, 3)
    values[5, 1] = np.nan
    np.save(town / "datasets" / "raw" / "town.npy", values)
    assert "holds 1 NaN value, the first in row 5, sensor 1" in refused(town, "-c", "town.py")


def test_a_public_series_of_another_shape_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    np.savez(tmp_path / "raw" / "PEMS08.npz", data=np.ones((100, 170, 1)))
    message = refused(tmp_path, "PEMS08", "--raw-dir", "raw")
    assert "raw/PEMS08.npz holds 100 steps, expected num_steps=17856" in message


def test_a_file_in_place_of_the_datasets_folder_is_one_line(town: Path) -> None:
    (town / "file").write_text("")
    assert "file/TOWN cannot be written" in refused(
        town, "-c", "town.py", "--raw-dir", "datasets/raw", "--datasets-dir", "file"
    )


def test_a_damaged_series_does_not_break_the_list(town: Path) -> None:
    call(town, "-c", "town.py")
    meta = town / "datasets" / "TOWN" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "format": 0}))
    done = call(town, "--list")
    assert done.returncode == 0
    assert "datasets/TOWN is damaged or not ours" in done.stdout
