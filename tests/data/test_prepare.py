"""Preparation: what is written, when it is written again, what is refused, and that nothing is left half done."""

import json
import os
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from basicts.data import BasicTSForecastingDataset

from ealinformer.data import PUBLIC, SeriesSpec, Source, open_prepared, prepare, raw_files
from ealinformer.data.meta import Meta, spec_fields
from ealinformer.errors import InputError

START = datetime(2016, 7, 1)
STEPS, SENSORS = 200, 4
ROW_EDGES = "from,to,cost\r\n0,1,12.5\r\n1,2,3\r\n3,0,0.5\r\n"


def spec(**changes: Any) -> SeriesSpec:
    fields = {
        "name": "TOWN",
        "num_sensors": SENSORS,
        "num_steps": STEPS,
        "interval_minutes": 60,
        "start": START,
        "raw_file": "town.npz",
        "graph_file": "town.csv",
    }
    return SeriesSpec.model_validate({**fields, **changes})


def readings(seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 50, (STEPS, SENSORS)).astype(np.float64)
    values[:, 3] = values[:, 1]
    return values


class Town:
    """Raw files and the two folders of one test."""

    def __init__(self, root: Path) -> None:
        self.raw, self.datasets = root / "raw", root / "datasets"
        self.folder = self.datasets / "TOWN"
        self.lines: list[str] = []
        (self.raw / "TOWN").mkdir(parents=True)
        self.write(readings())
        (self.raw / "TOWN" / "town.csv").write_text(ROW_EDGES, newline="")

    def write(self, values: np.ndarray, name: str = "town.npz") -> Path:
        path = self.raw / "TOWN" / name
        if name.endswith(".npz"):
            np.savez(path, data=values)
        elif name.endswith(".npy"):
            np.save(path, values)
        return path

    def write_table(self, times: Any, values: np.ndarray, columns: list[str] | None = None) -> Path:
        path = self.raw / "TOWN" / "town_series.csv"
        table = pd.DataFrame(values, columns=columns or [f"s{i}" for i in range(values.shape[1])])
        table.insert(0, "time", pd.DatetimeIndex(times).strftime("%Y-%m-%d %H:%M:%S"))
        table.to_csv(path, index=False)
        return path

    def prepare(self, series: SeriesSpec | None = None, **options: Any) -> Path:
        self.lines.clear()
        return prepare(series or spec(), self.raw, self.datasets, report=self.lines.append, **options)

    def meta(self) -> dict[str, Any]:
        return json.loads((self.folder / "meta.json").read_text())

    def refused(self, series: SeriesSpec | None = None, **options: Any) -> str:
        """The message, after a check that nothing was written or changed."""
        before = snapshot(self.datasets)
        with pytest.raises(InputError) as caught:
            self.prepare(series, **options)
        assert snapshot(self.datasets) == before
        assert "\n" not in str(caught.value)
        return str(caught.value)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path below `folder` with its content."""
    paths = sorted(folder.rglob("*")) if folder.is_dir() else []
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


def test_writes_the_splits_of_basicts_and_their_timestamps(town: Town) -> None:
    assert town.prepare(spec(split=(0.7, 0.15, 0.15))) == town.folder

    parts = {split: np.load(town.folder / f"{split}_data.npy") for split in ("train", "val", "test")}
    assert {split: part.shape for split, part in parts.items()} == {
        "train": (140, SENSORS),
        "val": (30, SENSORS),
        "test": (30, SENSORS),
    }
    whole = np.concatenate(list(parts.values()))
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, readings())

    stamps = np.concatenate([np.load(town.folder / f"{split}_timestamps.npy") for split in parts])
    assert stamps.shape == (STEPS, 2)
    assert stamps.dtype == np.float32
    np.testing.assert_allclose(stamps[:, 0], np.arange(STEPS) % 24 / 24, atol=1e-7)
    np.testing.assert_allclose(stamps[:, 1], (4 + np.arange(STEPS) // 24) % 7 / 7, atol=1e-7)
    assert sorted(path.name for path in town.datasets.iterdir()) == ["TOWN"]


def test_the_rest_of_the_split_goes_to_test(town: Town) -> None:
    town.write(readings()[:199])
    town.prepare(spec(num_steps=None))
    assert town.meta()["steps"] == {"train": 119, "val": 39, "test": 41}
    assert town.meta()["num_steps"] == 199


def test_meta_describes_the_series(town: Town) -> None:
    town.prepare()
    meta, values = town.meta(), readings()

    statistics = meta["statistics"]
    assert statistics["min"] == values.min()
    assert statistics["max"] == values.max()
    assert statistics["mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert statistics["std"] == pytest.approx(values.std(), rel=1e-12)
    assert statistics["train_mean"] == pytest.approx(values[:120].mean(), rel=1e-12)
    assert statistics["train_std"] == pytest.approx(values[:120].std(), rel=1e-12)
    assert statistics["zeros"] == statistics["missing"] == (values == 0).sum() > 0
    assert statistics["distinct_sensors"] == 3
    assert meta["start"] == "2016-07-01T00:00:00"
    assert (meta["num_sensors"], meta["num_steps"], meta["interval_minutes"]) == (SENSORS, STEPS, 60)
    assert meta["graph"]["edges"] == 3
    assert meta["graph"]["weights"] == "distance"
    assert meta["source"]["file"] == "town.npz"
    assert meta["source"]["is_published_file"] is False
    assert meta["ids"] is None
    assert meta["regular_settings"] == {
        "null_val": 0.0,
        "train_val_test_ratio": [0.6, 0.2, 0.2],
        "rescale": True,
        "norm_each_channel": False,
    }
    assert set(meta["files"]) == {path.name for path in town.folder.iterdir()} - {"meta.json"}


def test_meta_has_a_key_for_every_field_of_a_spec() -> None:
    assert set(spec_fields(spec())) <= set(Meta.__annotations__)


def test_nan_marks_missing_readings_and_survives_json(town: Town) -> None:
    values = readings() + 1
    values[0, 0] = values[130, 2] = np.nan
    town.write(values)
    town.prepare(spec(null_value=float("nan")))

    meta = town.meta()
    assert meta["null_value"] == meta["regular_settings"]["null_val"] == "nan"
    assert meta["statistics"]["missing"] == 2
    assert meta["statistics"]["zeros"] == 0
    assert meta["statistics"]["mean"] == pytest.approx(np.nanmean(values))
    assert meta["statistics"]["train_std"] == pytest.approx(np.nanstd(values[:120]))
    assert np.isnan(np.load(town.folder / "train_data.npy")[0, 0])
    town.prepare(spec(null_value=float("nan")))
    assert town.lines == [f"{town.folder} is up to date: nothing to do"]


def test_the_chosen_channel_is_read(town: Town) -> None:
    town.write(np.stack([readings(1), readings(2), readings(3)], axis=-1))
    town.prepare(spec(channel=2))
    np.testing.assert_array_equal(np.load(town.folder / "train_data.npy"), readings(3)[:120])


@pytest.mark.parametrize("num_steps", [200, 17856])
def test_stock_basicts_reads_the_result(town: Town, num_steps: int) -> None:
    values = np.arange(num_steps * 2, dtype=np.float32).reshape(num_steps, 2)
    town.write(values)
    town.prepare(spec(num_sensors=2, num_steps=num_steps, interval_minutes=5, graph_file=None))

    steps = {"train": int(0.6 * num_steps), "val": int(0.2 * num_steps)}
    steps["test"] = num_steps - sum(steps.values())
    if num_steps == 17856:
        assert {split: count - 23 for split, count in steps.items()} == {"train": 10690, "val": 3548, "test": 3549}
    for split, count in steps.items():
        data = BasicTSForecastingDataset(
            dataset_name="TOWN",
            input_len=12,
            output_len=12,
            mode=split,
            use_timestamps=True,
            data_file_path=str(town.folder),
        )
        assert len(data) == count - 23
        last = data[len(data) - 1]
        assert last["inputs"].shape == last["targets"].shape == (12, 2)
        assert last["inputs_timestamps"].shape == last["targets_timestamps"].shape == (12, 2)
    np.testing.assert_array_equal(last["targets"], values[-12:])


def test_a_second_run_changes_nothing(town: Town) -> None:
    town.prepare()
    before = {path: path.stat().st_mtime_ns for path in town.folder.iterdir()}
    town.prepare()
    assert town.lines == [f"{town.folder} is up to date: nothing to do"]
    assert {path: path.stat().st_mtime_ns for path in town.folder.iterdir()} == before

    town.prepare(force=True)
    assert town.lines == []
    assert (town.folder / "meta.json").stat().st_mtime_ns > before[town.folder / "meta.json"]


def test_prepared_data_outlives_its_raw_files(town: Town) -> None:
    town.prepare()
    (town.raw / "TOWN" / "town.npz").unlink()
    (town.raw / "TOWN" / "town.csv").unlink()
    town.prepare()
    assert town.lines == [f"{town.folder} is up to date: nothing to do"]


def test_a_change_is_named_and_prepared(town: Town) -> None:
    town.prepare()
    town.prepare(spec(split=(0.5, 0.25, 0.25)))
    assert town.lines == [f"{town.folder} is prepared anew: split [0.6, 0.2, 0.2] -> [0.5, 0.25, 0.25]"]
    assert len(np.load(town.folder / "train_data.npy")) == 100

    path = town.write(readings(9))
    town.prepare(spec(split=(0.5, 0.25, 0.25)))
    assert town.lines == [f"{town.folder} is prepared anew: {path} is another file than before"]
    np.testing.assert_array_equal(np.load(town.folder / "train_data.npy"), readings(9)[:100])

    (town.folder / "val_data.npy").unlink()
    (town.folder / "test_data.npy").write_bytes(b"cut")
    town.prepare(spec(split=(0.5, 0.25, 0.25)))
    assert "val_data.npy is missing" in town.lines[0]
    assert "test_data.npy has 3 bytes" in town.lines[0]
    open_prepared(town.folder)

    (town.folder / "meta.json").write_text('{"format": 1}')
    town.prepare(spec(split=(0.5, 0.25, 0.25)))
    assert "meta.json is damaged" in town.lines[0]
    open_prepared(town.folder)


def test_files_are_found_in_the_raw_folder_itself(town: Town) -> None:
    for name in ("town.npz", "town.csv"):
        (town.raw / "TOWN" / name).rename(town.raw / name)
    town.prepare()
    assert open_prepared(town.folder).graph() is not None


def test_ids_map_an_edge_list(town: Town) -> None:
    (town.raw / "TOWN" / "town.csv").write_text("from,to,distance\n30,10,1.5\n")
    (town.raw / "TOWN" / "town.txt").write_text("10\n20\n30\n40\n")
    town.prepare(spec(ids_file="town.txt"))
    series = open_prepared(town.folder)
    graph = series.graph()
    assert series.sensor_ids() == ["10", "20", "30", "40"]
    assert graph is not None
    assert graph.adjacency.toarray()[2, 0] == 1.5
    assert town.meta()["ids"]["file"] == "town.txt"


def test_a_table_brings_its_times_and_ids(town: Town) -> None:
    town.write_table(pd.date_range(START, periods=STEPS, freq="60min"), readings())
    town.prepare(spec(raw_file="town_series.csv", graph_file=None, time_column="time"))
    assert open_prepared(town.folder).sensor_ids() == ["s0", "s1", "s2", "s3"]
    np.testing.assert_array_equal(np.load(town.folder / "train_data.npy"), readings()[:120])


def test_allowed_gaps_follow_the_times_of_the_file(town: Town) -> None:
    times = pd.date_range(START, periods=STEPS + 3, freq="60min").delete([50, 51, 90])
    path = town.write_table(times, readings())
    gappy = spec(raw_file="town_series.csv", graph_file=None, allow_gaps=True)
    town.prepare(gappy)
    assert town.lines == [f"{path} leaves out 3 steps; timestamps follow the times of the file"]
    stamps = np.load(town.folder / "train_timestamps.npy")
    np.testing.assert_allclose(stamps[:, 0], times[:120].hour / 24, atol=1e-7)

    shifted = times.to_list()
    shifted[70] += timedelta(minutes=7)
    town.write_table(shifted, readings())
    assert "row 70 is at" in town.refused(gappy)


def test_pems_bay_graph_is_found_under_both_of_its_names(town: Town) -> None:
    bay = PUBLIC["PEMS-BAY"].model_copy(
        update={
            "num_sensors": SENSORS,
            "num_steps": STEPS,
            "interval_minutes": 60,
            "split": (0.6, 0.2, 0.2),
            "raw_file": "town.npz",
            "graph_file": "adj_mx_bay.npy",
            "graph_source": PUBLIC["PEMS-BAY"].graph_source.model_copy(update={"url": "https://x.org/a/adj_mx_B.npy"}),
        }
    )
    (town.raw / "TOWN").rename(town.raw / "PEMS-BAY")
    np.save(town.raw / "PEMS-BAY" / "adj_mx_B.npy", np.eye(SENSORS, k=1))
    town.prepare(bay)
    meta = json.loads((town.datasets / "PEMS-BAY" / "meta.json").read_text())
    assert (meta["graph"]["file"], meta["graph"]["edges"]) == ("adj_mx_B.npy", 3)


def small_public(monkeypatch: pytest.MonkeyPatch, town: Town, **changes: Any) -> SeriesSpec:
    """TOWN as a public series."""
    public = spec(raw_source={"sha256": "0" * 64}, graph_source={"md5": "0" * 32}, **changes)
    monkeypatch.setitem(PUBLIC, "TOWN", public)
    return public


def test_another_file_than_the_published_one_is_used_and_said(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.prepare(small_public(monkeypatch, town))
    assert [line.split(",")[0] for line in town.lines] == [
        f"{town.raw}/TOWN/town.npz is not the published file",
        f"{town.raw}/TOWN/town.csv is not the published file",
    ]
    assert town.meta()["source"]["is_published_file"] is False

    published = spec(raw_source={"sha256": town.meta()["source"]["sha256"]})
    town.prepare(published, force=True)
    assert town.lines == []
    assert town.meta()["source"]["is_published_file"] is True


def test_a_public_series_goes_on_without_its_graph_and_takes_it_later(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = small_public(monkeypatch, town)
    edges = town.raw / "TOWN" / "town.csv"
    edges.rename(town.raw / "away.csv")
    town.prepare(public)
    assert any(line.startswith(f"TOWN goes on without a graph: {edges} is not there") for line in town.lines)
    assert town.meta()["graph"] is None
    assert open_prepared(town.folder).graph() is None

    (town.raw / "away.csv").rename(edges)
    town.prepare(public)
    assert town.lines[0] == f"{town.folder} is prepared anew: {edges} is new"
    assert town.meta()["graph"]["edges"] == 3


def test_a_public_series_with_a_graph_of_ones_own_needs_it(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    own = small_public(monkeypatch, town).model_copy(update={"graph_file": "mine.csv"})
    assert "mine.csv is not there" in town.refused(own)


def test_missing_files_are_fetched_once(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[Path] = []

    def fetch(source: Source, target: Path) -> None:
        fetched.append(target)
        target.parent.mkdir(exist_ok=True)
        (town.raw / "published" / Path(str(source.url)).name).rename(target)

    monkeypatch.setattr(raw_files, "download", fetch)
    (town.raw / "TOWN").rename(town.raw / "published")
    public = spec(raw_source={"url": "https://x.org/town.npz"}, graph_source={"url": "https://x.org/town.csv"})
    town.prepare(public, allow_download=True)
    assert fetched == [town.raw / "TOWN" / "town.npz", town.raw / "TOWN" / "town.csv"]
    assert town.meta()["graph"]["edges"] == 3

    town.prepare(public, allow_download=True)
    assert len(fetched) == 2
    assert town.lines == [f"{town.folder} is up to date: nothing to do"]


def test_a_public_series_goes_on_when_its_graph_cannot_be_fetched(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(source: Source, target: Path) -> None:
        raise InputError(f"{source.url} answers 404")

    monkeypatch.setattr(raw_files, "download", dead)
    public = spec(graph_source={"url": "https://x.org/town.csv"})
    (town.raw / "TOWN" / "town.csv").unlink()
    assert town.refused(public, allow_download=True) == "https://x.org/town.csv answers 404"
    monkeypatch.setitem(PUBLIC, "TOWN", public)
    town.prepare(public, allow_download=True)
    assert town.lines[-1] == "TOWN goes on without a graph: https://x.org/town.csv answers 404"
    assert town.meta()["graph"] is None


def test_a_missing_raw_file_says_where_to_put_it(town: Town) -> None:
    path = town.raw / "TOWN" / "town.npz"
    path.unlink()
    assert town.refused() == f"{path} is not there: put town.npz into {path.parent}/"
    with_url = spec(raw_source={"url": "https://example.org/town.npz"})
    message = town.refused(with_url)
    assert message.endswith(
        "pass --download or put town.npz into " + f"{path.parent}/ (published at {with_url.raw_source.url})"
    )


def test_a_missing_graph_of_ones_own_is_an_error(town: Town) -> None:
    (town.raw / "TOWN" / "town.csv").unlink()
    assert f"put town.csv into {town.raw}/TOWN/" in town.refused()


@pytest.mark.parametrize("keep", [0, 1, 100, -10])
def test_a_truncated_raw_file(town: Town, keep: int) -> None:
    path = town.raw / "TOWN" / "town.npz"
    path.write_bytes(path.read_bytes()[:keep])
    assert "town.npz" in town.refused()


def test_a_corrupt_raw_file(town: Town) -> None:
    path = town.raw / "TOWN" / "town.npz"
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(bytes(content))
    assert "town.npz" in town.refused()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_sensors": 5}, "holds 4 sensors, expected num_sensors=5"),
        ({"num_sensors": STEPS}, "(is it transposed?)"),
        ({"num_steps": 201}, "holds 200 steps, expected num_steps=201"),
        ({"channel": 1}, "channel"),
        ({"split": (0.9, 0.05, 0.05)}, "10 are for val: expected at least one window of 24"),
    ],
)
def test_a_file_that_is_not_what_the_spec_says(town: Town, changes: dict[str, Any], expected: str) -> None:
    message = town.refused(spec(**changes))
    assert expected in message
    assert "town.npz" in message


def test_the_window_decides_what_is_too_short(town: Town) -> None:
    assert "40 are for val" in town.refused(min_window=41)
    town.prepare(min_window=40)


def test_nan_is_refused_where_it_is_not_the_null_value(town: Town) -> None:
    values = readings()
    values[60, 2] = values[150, 0] = np.nan
    town.write(values)
    message = town.refused()
    assert "holds 2 NaN values, the first in row 60, sensor 2" in message
    assert 'set null_value=float("nan")' in message


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_infinite_values_are_refused_whatever_the_null_value(town: Town, value: float) -> None:
    values = readings()
    values[199, 3] = value
    town.write(values)
    for null_value in (0.0, float("nan")):
        assert "1 infinite value (or too large for float32), the first in row 199, sensor 3" in town.refused(
            spec(null_value=null_value)
        )


@pytest.mark.parametrize("null_value", [0.0, float("nan")])
def test_a_training_part_without_readings(town: Town, null_value: float) -> None:
    values = readings()
    values[:120] = null_value
    town.write(values)
    assert "all 480 readings of the training part are missing" in town.refused(spec(null_value=null_value))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pd.date_range("2016-07-02", periods=STEPS, freq="60min"), "begins at 2016-07-02 00:00:00, expected start="),
        (pd.date_range(START, periods=STEPS, freq="30min"), "row 1 is at 2016-07-01 00:30:00"),
        (pd.date_range(START, periods=STEPS + 1, freq="60min").delete(7), "set allow_gaps=True"),
        (pd.date_range(START, periods=STEPS - 1, freq="60min").insert(3, START), "row 3 is at 2016-07-01 00:00:00"),
    ],
)
def test_times_that_are_not_those_of_the_spec(town: Town, times: Any, expected: str) -> None:
    town.write_table(times, readings())
    message = town.refused(spec(raw_file="town_series.csv", graph_file=None))
    assert expected in message
    assert "town_series.csv" in message


@pytest.mark.parametrize(
    ("graph", "ids", "expected"),
    [
        ("from,to,cost\n0,4,1\n", None, "town.csv"),
        ("from,to,cost\n10,99,1\n", "10\n20\n30\n40\n", "town.csv"),
        ("from,to,cost\n10,20,1\n", "10\n20\n30\n", "town.txt names 3 sensors, expected num_sensors=4"),
        ("from,to,cost\n10,20,1\n", "10\n20\n10\n40\n", "town.txt"),
    ],
)
def test_a_graph_that_does_not_fit(town: Town, graph: str, ids: str | None, expected: str) -> None:
    (town.raw / "TOWN" / "town.csv").write_text(graph)
    if ids:
        (town.raw / "TOWN" / "town.txt").write_text(ids)
    assert expected in town.refused(spec(ids_file="town.txt" if ids else None))


def test_a_matrix_of_another_size(town: Town) -> None:
    town.write(np.eye(5, k=1), "town_graph.npy")
    assert "town_graph.npy" in town.refused(spec(graph_file="town_graph.npy"))


def test_ids_in_another_order_than_the_series(town: Town) -> None:
    town.write_table(pd.date_range(START, periods=STEPS, freq="60min"), readings(), ["10", "20", "30", "40"])
    (town.raw / "TOWN" / "town.txt").write_text("10\n30\n20\n40\n")
    message = town.refused(spec(raw_file="town_series.csv", ids_file="town.txt", graph_file=None))
    assert "has sensor 30 in column 1, the series has 20 there" in message


def test_a_file_in_place_of_the_datasets_folder(town: Town) -> None:
    town.datasets.write_text("not a folder")
    assert f"{town.folder} cannot be written" in town.refused()
    assert town.datasets.read_text() == "not a folder"


def test_a_file_in_place_of_the_series(town: Town) -> None:
    town.datasets.mkdir()
    town.folder.write_text("notes")
    assert "is a file, expected a folder" in town.refused()


def test_a_folder_of_someone_else_is_not_replaced(town: Town) -> None:
    town.folder.mkdir(parents=True)
    (town.folder / "train_data.npy").write_bytes(b"by BasicTS")
    (town.folder / "meta.json").write_text('{"name": "TOWN"}')
    assert "meta.json, which was not written by this program" in town.refused()

    town.prepare(force=True)
    (town.folder / "notes.txt").write_text("mine")
    assert "holds notes.txt, which was not written by this program: move it away" in town.refused(force=True)


def test_a_link_to_another_disk_stays_a_link(town: Town, tmp_path: Path) -> None:
    town.datasets.mkdir()
    (tmp_path / "disk" / "TOWN").mkdir(parents=True)
    town.folder.symlink_to(tmp_path / "disk" / "TOWN")
    town.prepare()
    assert town.folder.is_symlink()
    assert (tmp_path / "disk" / "TOWN" / "meta.json").is_file()


def test_a_failing_write_keeps_what_was_there(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.prepare()

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    town.write(readings(5))
    assert town.refused().endswith("cannot be written: No space left on device")


def end_while_preparing(town: Town, what: str, call: int, number: signal.Signals) -> int:
    """Prepare in a process that gets signal `number` in the given call of `what`; its exit status."""
    code = (
        "import os, sys, numpy\n"
        "from pathlib import Path\n"
        "from ealinformer.cli import run\n"
        "from ealinformer.data import SeriesSpec, prepare\n"
        f"real, calls = {what}, []\n"
        "def ended(*args, **kwargs):\n"
        "    calls.append(1)\n"
        f"    if len(calls) == {call}:\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "    return real(*args, **kwargs)\n"
        f"{what} = ended\n"
        "spec = SeriesSpec.model_validate_json(sys.argv[1])\n"
        "run(lambda argv: prepare(spec, Path(sys.argv[2]), Path(sys.argv[3])) and None)\n"
    )
    command = [sys.executable, "-c", code, spec().model_dump_json(), str(town.raw), str(town.datasets)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


@pytest.mark.parametrize("has_older", [False, True])
def test_ctrl_c_leaves_nothing_half_written(town: Town, has_older: bool) -> None:
    if has_older:
        town.prepare()
        town.write(readings(5))
    before = snapshot(town.datasets)
    assert end_while_preparing(town, "numpy.save", 3, signal.SIGINT) == 130
    assert snapshot(town.datasets) == before


@pytest.mark.parametrize(("what", "call"), [("numpy.save", 3), ("os.rename", 2)])
def test_what_a_killed_run_left_is_cleared_by_the_next(town: Town, what: str, call: int) -> None:
    town.prepare()
    town.write(readings(5))
    assert end_while_preparing(town, what, call, signal.SIGKILL) == -signal.SIGKILL
    assert any(path.name.startswith(".TOWN") for path in town.datasets.iterdir())

    town.prepare()
    assert [path.name for path in town.datasets.iterdir()] == ["TOWN"]
    np.testing.assert_array_equal(open_prepared(town.folder).data("train"), readings(5)[:120])


@pytest.mark.real_data
@pytest.mark.skipif("EALINFORMER_RAW_DIR" not in os.environ, reason="skipped: no raw data")
def test_the_real_pems08(tmp_path: Path) -> None:
    folder = prepare(PUBLIC["PEMS08"], Path(os.environ["EALINFORMER_RAW_DIR"]), tmp_path, report=lambda line: None)
    series = open_prepared(folder)
    statistics = series.meta["statistics"]

    assert (series.num_steps, series.num_sensors, series.steps_per_day) == (17856, 170, 288)
    assert series.meta["steps"] == {"train": 10713, "val": 3571, "test": 3572}
    assert (statistics["min"], statistics["max"]) == (0, 1147)
    assert round(statistics["mean"], 6) == 230.680694
    assert round(statistics["std"], 6) == 146.216958
    assert statistics["zeros"] == statistics["missing"] == 10_560
    assert statistics["distinct_sensors"] == 149
    train = series.data("train")
    assert train[:6, 0].tolist() == [133, 114, 140, 106, 117, 110]
    assert statistics["train_mean"] == pytest.approx(train.mean(dtype=np.float64), rel=1e-12)
    assert statistics["train_std"] == pytest.approx(train.std(dtype=np.float64), rel=1e-12)
    # The list has 295 rows; 18 edges stand in it twice, with the same cost.
    graph = series.graph()
    assert graph is not None
    assert series.meta["graph"] is not None
    assert graph.num_edges == series.meta["graph"]["edges"] == 277
    assert series.start.strftime("%A") == "Friday"
    assert series.timestamps("train")[0].tolist() == [0, np.float32(4 / 7)]
    # 10,713 steps are 37 days and 57 steps: Sunday 2016-08-07, 04:45.
    np.testing.assert_allclose(series.timestamps("val")[0], [57 / 288, 6 / 7], atol=1e-7)
