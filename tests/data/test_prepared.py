"""Opening a prepared series: what it offers, and what is said when its folder is not as it was written."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from ealinformer.data import SeriesSpec, open_prepared, prepare
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


def test_a_damaged_graph_is_named(folder: Path) -> None:
    (folder / "graph.npz").write_bytes(bytes((folder / "graph.npz").stat().st_size))
    with pytest.raises(InputError, match=r"graph\.npz"):
        open_prepared(folder).graph()
