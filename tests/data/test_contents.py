"""The check before a training: what a sound series is said to hold, and the one line for each way to be unsound."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ealinformer.data import SeriesSpec, contents, open_prepared, prepare
from ealinformer.data.checksums import digest
from ealinformer.data.contents import check_contents, describe_contents
from ealinformer.data.graphs import Graph, load_graph, save_graph
from ealinformer.data.meta import SPLITS
from ealinformer.errors import InputError
from ealinformer.measure.memory import resident_peak

START = datetime(2018, 1, 5, 22, 17)  # a Friday night, off every round interval
STEPS, SENSORS = 900, 5
IDS = ["400001", "400017", "400030", "400040", "400052"]
NAN = float("nan")


def readings(null_value: float = 0.0) -> np.ndarray:
    """Some readings missing; sensor 2 has a single value in the training part, sensor 4 none."""
    rng = np.random.default_rng(3)
    values = rng.gamma(2, 100, (STEPS, SENSORS)).astype(np.float32)
    values[:600, 2] = 70
    values[rng.random(values.shape) < 0.1] = null_value
    values[:600, 4] = null_value
    return values


def make(root: Path, values: np.ndarray, times: Any = None, **changes: Any) -> Path:
    (root / "raw").mkdir(exist_ok=True)
    if times is None:
        times = pd.date_range(START, periods=len(values), freq="30min")
    table = pd.DataFrame(values, columns=IDS)
    table.insert(0, "time", pd.DatetimeIndex(times).strftime("%Y-%m-%d %H:%M:%S"))
    table.to_csv(root / "raw" / "town.csv", index=False)
    (root / "raw" / "edges.csv").write_text("from,to\n400001,400030\n400052,400001\n")
    fields = {
        "name": "TOWN",
        "num_sensors": SENSORS,
        "interval_minutes": 30,
        "start": START,
        "raw_file": "town.csv",
        "graph_file": "edges.csv",
        **changes,
    }
    return prepare(SeriesSpec(**fields), root / "raw", root / "datasets", force=True, report=lambda line: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path, readings())


def refused(folder: Path) -> str:
    """The one line, which names a file of the folder and ends with the command that mends it."""
    series = open_prepared(folder)
    with pytest.raises(InputError) as caught:
        check_contents(series)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    return message


def sealed_again(folder: Path) -> None:
    """Make `meta.json` vouch for the files as they are now."""
    meta = json.loads((folder / "meta.json").read_text())
    for name, file in meta["files"].items():
        found = digest(folder / name)
        file["sha256"], file["size"] = found.sha256, found.size
    (folder / "meta.json").write_text(json.dumps(meta))


def altered(path: Path, row: int, column: int, value: float) -> None:
    array = np.load(path)
    array[row, column] = value
    np.save(path, array)


@pytest.mark.parametrize("null_value", [0.0, NAN])
@pytest.mark.parametrize("block_bytes", [64, 1 << 22])
def test_a_sound_series_is_described_as_numpy_sees_it(
    tmp_path: Path, null_value: float, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ealinformer.data.statistics.BYTES_PER_BLOCK", block_bytes)
    folder = make(tmp_path, readings(null_value), null_value=null_value)
    found = check_contents(open_prepared(folder))

    values = readings(null_value)
    missing = np.isnan(values) | (values == null_value)
    parts = np.split(missing, [540, 720])
    assert found.steps == {"train": 540, "val": 180, "test": 180}
    assert found.num_sensors == SENSORS
    assert found.missing == {s: pytest.approx(part.mean()) for s, part in zip(SPLITS, parts, strict=True)}
    assert found.constant == (2,)
    assert found.empty == (4,)
    assert found.checksum == open_prepared(folder).checksum


@pytest.mark.parametrize("day_of_week", ["calendar", "row"])
@pytest.mark.parametrize("interval", [1, 5, 60, 1440])
def test_every_calendar_of_ours_is_accepted(tmp_path: Path, day_of_week: str, interval: int) -> None:
    times = [START + timedelta(minutes=interval * step) for step in range(STEPS)]
    series = open_prepared(make(tmp_path, readings(), times, interval_minutes=interval, day_of_week=day_of_week))
    check_contents(series)


def test_rows_that_were_left_out_are_accepted_where_the_spec_allows_gaps(tmp_path: Path) -> None:
    times = [START + timedelta(minutes=30 * step + 90 * (step > 100)) for step in range(STEPS)]
    folder = make(tmp_path, readings(), times, allow_gaps=True)
    check_contents(open_prepared(folder))
    altered(folder / "train_timestamps.npy", 300, 0, 0.5)  # not a whole number of intervals after 22:17
    sealed_again(folder)
    assert "train_timestamps.npy: time of day of row 300 is 0.500000" in refused(folder)


def test_the_line_for_the_log() -> None:
    sound = contents.Contents(
        {"train": 6000, "val": 2000, "test": 2000}, 5, dict.fromkeys(SPLITS, 0.0123), (), (), "ab12"
    )
    shares = "missing 1.23 % of train, 1.23 % of val, 1.23 % of test"
    assert describe_contents(sound, IDS) == f"10,000 steps x 5 sensors; {shares}; checksum ab12"
    odd = contents.Contents(sound.steps, 40, sound.missing, tuple(range(8)), (3,), "ab12")
    line = describe_contents(odd, [f"s{i}" for i in range(40)])
    assert "; 8 sensors constant in the training part (s0, s1, s2, s3, s4, ...); " in line
    assert "; 1 sensor without any reading in the training part (s3); " in line


def flipped(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 0x10
    (folder / name).write_bytes(bytes(content))


@pytest.mark.parametrize(
    "name", ["train_data.npy", "val_data.npy", "test_timestamps.npy", "graph.npz", "sensor_ids.txt"]
)
def test_a_flipped_bit_is_noticed_in_every_file(folder: Path, name: str) -> None:
    before = digest(folder / name).sha256
    flipped(folder, name)
    assert refused(folder) == (
        f"{folder / name} was changed after it was prepared: its sha256 is {digest(folder / name).sha256[:12]}..., "
        f"expected {before[:12]}...: run  python scripts/prepare_dataset.py TOWN --datasets-dir {folder.parent} "
        "--force  again"
    )


def test_the_command_of_the_message_mends_it(tmp_path: Path, folder: Path) -> None:
    flipped(folder, "train_data.npy")
    make(tmp_path, readings())
    check_contents(open_prepared(folder))


def test_swapped_files_are_noticed(folder: Path) -> None:
    (folder / "val_data.npy").rename(folder / "x")
    (folder / "test_data.npy").rename(folder / "val_data.npy")
    (folder / "x").rename(folder / "test_data.npy")
    assert "val_data.npy was changed after it was prepared" in refused(folder)


@pytest.mark.parametrize("change", [lambda content: content[:-400], lambda content: content + bytes(8)])
def test_a_file_that_is_cut_off_or_grows_after_it_was_opened_is_named(
    folder: Path, change: Callable[[bytes], bytes]
) -> None:
    series = open_prepared(folder)
    path = folder / "test_data.npy"
    size = path.stat().st_size
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=rf"test_data\.npy has \d+ bytes, expected {size}: run"):
        contents._Reader(series, None).check("test_data.npy")


@pytest.mark.parametrize("name", ["graph.npz", "val_data.npy"])
def test_a_file_that_vanishes_is_named(folder: Path, name: str) -> None:
    series = open_prepared(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name} cannot be read"):
        check_contents(series)


@pytest.mark.parametrize(
    ("split", "row", "sensor", "value", "null_value", "expected"),
    [
        ("train", 3, 1, np.inf, 0.0, "holds inf in row 3, sensor 1, expected finite values: "),
        ("val", 179, 4, NAN, 0.0, "holds nan in row 179, sensor 4, expected finite values: "),
        ("test", 0, 0, -np.inf, NAN, "holds -inf in row 0, sensor 0, expected finite values or NaN: "),
    ],
)
def test_what_is_not_finite_is_named(
    tmp_path: Path, split: str, row: int, sensor: int, value: float, null_value: float, expected: str
) -> None:
    folder = make(tmp_path, readings(null_value), null_value=null_value)
    altered(folder / f"{split}_data.npy", row, sensor, value)
    altered(folder / f"{split}_data.npy", 179, 4, value)  # the first is what is named
    sealed_again(folder)
    assert f"{split}_data.npy: the {split} part {expected}" in refused(folder)


@pytest.mark.parametrize(
    ("split", "row", "column", "value", "expected"),
    [
        ("train", 5, 0, 1.0, "time of day of row 5 is 1.0, expected at least 0 and below 1"),
        ("val", 7, 1, -0.25, "day of week of row 7 is -0.25, expected at least 0 and below 1"),
        ("test", 9, 1, NAN, "day of week of row 9 is nan, expected at least 0 and below 1"),
        ("val", 0, 0, 0.125, "time of day of row 0 is 0.125000, expected 0.178472 (30 minutes a row from 2018"),
        ("test", 179, 1, 0.0, "day of week of row 179 is 0.000000, expected 0.285714 "),
    ],
)
def test_a_timestamp_that_cannot_be_is_named(
    folder: Path, split: str, row: int, column: int, value: float, expected: str
) -> None:
    altered(folder / f"{split}_timestamps.npy", row, column, value)
    sealed_again(folder)
    assert f"{split}_timestamps.npy: {expected}" in refused(folder)


def test_a_graph_of_other_sensors_is_named(folder: Path) -> None:
    graph = load_graph(folder / "graph.npz")
    save_graph(Graph(graph.adjacency[:4, :4], graph.weights), folder / "graph.npz")
    sealed_again(folder)
    assert refused(folder) == f"{folder}/graph.npz holds a graph of 4 sensors, expected 5"


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (IDS[:4], "sensor_ids.txt names 4 sensors, expected 5"),
        ([*IDS[:4], IDS[0]], "sensor 400001 is named twice, expected 5 different ids"),
    ],
)
def test_ids_that_do_not_fit_are_named(folder: Path, ids: list[str], expected: str) -> None:
    (folder / "sensor_ids.txt").write_text("\n".join(ids) + "\n")
    sealed_again(folder)
    assert expected in refused(folder)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("train_mean", 1.5, "says train_mean=1.5, the training part has "),
        ("train_std", NAN, "says train_std=nan, the training part has "),
        ("train_std", -3.0, "says train_std=-3.0, the training part has "),
        ("missing", 12, "says 12 readings are missing, the files hold "),
    ],
)
def test_other_statistics_in_the_description_are_named(folder: Path, name: str, value: float, expected: str) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    meta["statistics"][name] = value
    (folder / "meta.json").write_text(json.dumps(meta))
    assert f"meta.json {expected}" in refused(folder)


def test_progress_says_share_and_time_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "SECONDS_BETWEEN_LINES", 0)
    lines: list[str] = []
    check_contents(open_prepared(folder), lines.append)
    assert lines[-1] == "checking TOWN: 100% of 0.0 GB, 0:00:00 left"
    shares = [int(line.split()[2].removesuffix("%")) for line in lines]
    assert shares == sorted(shares)


def test_a_large_file_does_not_stay_in_memory(tmp_path: Path, folder: Path) -> None:
    series = open_prepared(folder)
    steps, sensors = 10_000, 2500
    path = folder / "train_data.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (steps, sensors)})
        file.truncate(file.tell() + steps * sensors * 4)  # zeros that take no room on the disk
    series.meta.update(num_sensors=sensors, steps={**series.meta["steps"], "train": steps})
    series.meta["files"][path.name] = {"sha256": digest(path).sha256, "size": path.stat().st_size}
    tally = contents._Tally(0, 0.0)

    def read() -> None:
        nonlocal tally
        tally = contents._check_readings(series, "train", contents._Reader(series, None))

    assert resident_peak(read) < path.stat().st_size // 4
    assert tally.missing == steps * sensors
