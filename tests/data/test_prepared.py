"""Opening a prepared series: what it offers, and what is said when its folder is not as it was written."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from ealinformer.data import SeriesSpec, open_prepared, prepare
from ealinformer.data.checksums import digest
from ealinformer.errors import InputError

VALUES = np.arange(150 * 3, dtype=np.float32).reshape(150, 3)


def make(root: Path, *, graph: str | None = None, null_value: float = 0.0) -> Path:
    (root / "raw").mkdir()
    np.savez(root / "raw" / "town.npz", data=VALUES)
    if graph:
        (root / "raw" / "town.csv").write_text(graph)
    spec = SeriesSpec(
        name="TOWN",
        num_sensors=3,
        interval_minutes=15,
        start=datetime(2018, 1, 1, 6),
        raw_file="town.npz",
        graph_file="town.csv" if graph else None,
        null_value=null_value,
    )
    return prepare(spec, root / "raw", root / "datasets", report=lambda line: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path, graph="from,to\n0,2\n")


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_prepared(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_offers_arrays_graph_and_description(folder: Path) -> None:
    series = open_prepared(folder)

    assert (series.name, series.num_sensors, series.num_steps) == ("TOWN", 3, 150)
    assert (series.interval_minutes, series.steps_per_day) == (15, 96)
    assert series.start == datetime(2018, 1, 1, 6)
    assert series.null_value == 0.0
    assert isinstance(series.data("val"), np.memmap)
    np.testing.assert_array_equal(np.concatenate([series.data(s) for s in ("train", "val", "test")]), VALUES)
    assert series.timestamps("test").shape == (30, 2)
    assert series.timestamps("train")[0, 0] == 0.25
    assert series.sensor_ids() == ["0", "1", "2"]
    graph = series.graph()
    assert graph is not None
    assert graph.weights == "binary"
    np.testing.assert_array_equal(graph.adjacency.toarray(), [[0, 0, 1], [0, 0, 0], [0, 0, 0]])


def test_arrays_are_read_only(folder: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        open_prepared(folder).data("train")[0, 0] = 1


def test_a_nan_null_value_comes_back_as_nan(tmp_path: Path) -> None:
    series = open_prepared(make(tmp_path, null_value=float("nan")))
    assert np.isnan(series.null_value)
    assert series.meta["null_value"] == "nan"
    assert series.graph() is None


def test_an_unknown_split_is_a_value_error(folder: Path) -> None:
    with pytest.raises(ValueError, match="split is 'valid', expected one of train, val, test"):
        open_prepared(folder).data("valid")  # type: ignore[arg-type]


def test_a_series_that_is_not_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "python scripts/prepare_dataset.py PEMS08"
    assert refused(Path("datasets/PEMS99")) == (
        "datasets/PEMS99 is not prepared: run  python scripts/prepare_dataset.py PEMS99"
    )
    assert refused(tmp_path / "PEMS08") == (
        f"{tmp_path}/PEMS08 is not prepared: run  {command} --datasets-dir {tmp_path}"
    )


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def other_shape(path: Path) -> None:
    """As many bytes as before, in another shape."""
    array = np.load(path)
    np.save(path, array.reshape(array.shape[1], array.shape[0]))


def other_type(path: Path) -> None:
    np.save(path, np.load(path).view(np.int32))


def other_byte_order(path: Path) -> None:
    np.save(path, np.load(path).astype(">f4"))


def by_column(path: Path) -> None:
    np.save(path, np.asfortranarray(np.load(path)))


def archive(path: Path) -> None:
    """The first bytes of a .npz file, which numpy would open as one."""
    path.write_bytes(b"PK\x03\x04" + path.read_bytes()[4:])


def header_of(text: bytes) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[:10] + text.ljust(118)[:117] + b"\n" + content[128:])

    return replace


def no_array(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("name", ["train_data.npy", "test_timestamps.npy"])
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (Path.unlink, "is missing"),
        (truncate, "bytes, expected"),
        (other_shape, "expected float32 ("),
        (other_type, "holds int32"),
        (no_array, "cannot be read as an array"),
        (archive, "cannot be read as an array"),
        (other_byte_order, "holds >f4"),
        (by_column, "holds its array column by column"),
        (header_of(b"(" * 117), "cannot be read as an array"),
        (
            header_of(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1" + b"0" * 40 + b", 3)}"),
            "cannot be read as",
        ),
        (header_of(b"{'descr': '|O', 'fortran_order': False, 'shape': (90, 3)}"), "cannot be read as an array"),
    ],
)
def test_a_damaged_array_is_named(folder: Path, name: str, damage: Callable[[Path], None], expected: str) -> None:
    damage(folder / name)
    message = refused(folder)
    assert str(folder / name) in message
    assert expected in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "has format None, expected 1"),
        ('{"name": "TOWN"}', "has format None, expected 1"),
        ('{"format": 99}', "has format 99, expected 1"),
        ('{"format": 1, "name": "TOWN"}', "is damaged: target: Field required"),
    ],
)
def test_a_damaged_description_is_named(folder: Path, content: str, expected: str) -> None:
    (folder / "meta.json").write_text(content)
    message = refused(folder)
    assert message.startswith(f"{folder}/meta.json ")
    assert expected in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "num_steps",
            151,
            "steps are {'train': 90, 'val': 30, 'test': 30}, expected those of train, val and test, 151",
        ),
        ("steps", {"train": 120, "val": 30}, "expected those of train, val and test, 150 in all"),
        ("steps", {"train": 150, "val": 30, "test": -30}, "expected those of train, val and test, 150 in all"),
        ("interval_minutes", 0, "interval_minutes: "),
        ("interval_minutes", 7, "interval_minutes: "),
        ("num_sensors", -3, "num_sensors: "),
        ("start", "yesterday", "start: "),
        ("start", "2018-01-01T06:00:00Z", "start: "),
        ("start", "1500000000", "start: "),
        ("null_value", float("inf"), "null_value: "),
        ("split", [0.5, 0.2, 0.2], "split: "),
        ("name", "../TOWN", "name: "),
        ("graph", None, "files has 'graph.npz', which is no file of this series"),
        ("files", {}, "files lacks graph.npz"),
    ],
)
def test_a_description_that_contradicts_itself_is_named(folder: Path, key: str, value: object, expected: str) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, key: value}))
    message = refused(folder)
    assert message.startswith(f"{folder}/meta.json is damaged: ")
    assert expected in message


def test_a_file_outside_the_folder_is_not_one_of_the_series(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    meta["files"]["../raw/town.npz"] = {"sha256": "", "size": 1}
    (folder / "meta.json").write_text(json.dumps(meta))
    assert "files has '../raw/town.npz', which is no file of this series" in refused(folder)


def test_the_checksum_is_that_of_the_content(tmp_path: Path, folder: Path) -> None:
    first = open_prepared(folder).checksum
    (tmp_path / "again").mkdir()
    assert open_prepared(make(tmp_path / "again", graph="from,to\n0,2\n")).checksum == first

    meta = json.loads((folder / "meta.json").read_text())
    data = folder / "train_data.npy"
    np.save(data, np.load(data) + 1)
    meta["files"][data.name]["sha256"] = digest(data).sha256
    (folder / "meta.json").write_text(json.dumps(meta))
    assert open_prepared(folder).checksum != first


def test_ids_that_are_no_text_are_named(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "sensor_ids.txt").write_bytes(b"\xff\xfe\x00")
    meta["files"]["sensor_ids.txt"] = {"sha256": "", "size": 3}
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match=r"sensor_ids\.txt: cannot be read"):
        open_prepared(folder).sensor_ids()


def test_a_damaged_graph_is_named(folder: Path) -> None:
    (folder / "graph.npz").write_bytes(bytes((folder / "graph.npz").stat().st_size))
    with pytest.raises(InputError, match=r"graph\.npz"):
        open_prepared(folder).graph()
