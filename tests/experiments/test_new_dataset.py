"""A data set that nobody here has seen goes in through a new config file alone, and a bad one is told what is wrong."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from basicts.data import BasicTSForecastingDataset
from basicts.utils import BasicTSMode

from ealinformer.data.prepared import open_prepared

# The model is made small for the sake of this test; without `model_params` and `recipes` a config is as good.
SMALL = """model_params=dict(input_hidden_size=8, tid_hidden_size=8, diw_hidden_size=0, adaptive_hidden_size=8,
                      intermediate_size=16, n_heads=2, num_layers=1),
    recipes={"mine": Recipe(loss="masked_mae", lr=0.01, batch_size=64)},"""


@dataclass(frozen=True)
class Case:
    """A city of its own: its config, the files it brings, and what has to come out."""

    config: str
    write: Callable[[Path, np.ndarray], None]
    steps_per_day: int
    num_sensors: int
    missing: float
    ids: list[str]


def head(name: str, series: str) -> str:
    return f"""from ealinformer.training import Experiment, Recipe, SeriesSpec

CONFIG = Experiment(
    series=SeriesSpec(
        name="{name}",
        {series}
    ),
    {SMALL}
)
"""


IDS = [str(40_100 + 7 * number) for number in range(7)]
# A ring, by the ids of an id file.
RING = "from,to,distance\n" + "".join(f"{IDS[i]},{IDS[(i + 1) % 7]},{1.5 + i}\n" for i in range(7))


def write_channels(folder: Path, values: np.ndarray) -> None:
    others = np.full_like(values, 3)
    np.savez(folder / "city.npz", data=np.stack([others, 2 * others, values], axis=2))
    (folder / "ids.txt").write_text("\n".join(IDS) + "\n")
    (folder / "roads.csv").write_text(RING)


def write_matrix(folder: Path, values: np.ndarray) -> None:
    (folder / "LAKESIDE").mkdir()
    np.save(folder / "LAKESIDE" / "counts.npy", values.astype(np.int32))
    near = np.eye(4, k=1) * 0.5
    np.save(folder / "LAKESIDE" / "near.npy", near)


def write_table(folder: Path, values: np.ndarray) -> None:
    start = datetime(2022, 10, 28)
    lines = ["A1,when,B2,C3"]
    for step, row in enumerate(values):
        cells = ["" if np.isnan(value) else f"{value:.3f}" for value in row]
        lines.append(f"{cells[0]},{start + timedelta(minutes=20 * step)},{cells[1]},{cells[2]}")
    (folder / "village.csv").write_text("\n".join(lines) + "\n")
    (folder / "roads.csv").write_text("from,to\nC3,A1\n")


CASES = {
    "quarter hours, third channel, NaN for missing, ids from a file": Case(
        head(
            "CITY-7",
            'raw_file="city.npz", channel=2, num_sensors=7, interval_minutes=15, start="2023-05-01",\n'
            '        null_value=float("nan"), ids_file="ids.txt", graph_file="roads.csv", target="speed", unit="km/h",',
        ),
        write_channels,
        steps_per_day=96,
        num_sensors=7,
        missing=np.nan,
        ids=IDS,
    ),
    "ten minutes, whole numbers, -1 for missing, adjacency matrix, another split": Case(
        head(
            "LAKESIDE",
            'raw_file="counts.npy", num_sensors=4, interval_minutes=10, start="2021-12-30 06:40", null_value=-1,\n'
            '        split=(0.7, 0.1, 0.2), graph_file="near.npy",',
        ),
        write_matrix,
        steps_per_day=144,
        num_sensors=4,
        missing=-1,
        ids=["0", "1", "2", "3"],
    ),
    "twenty minutes, CSV with a time column in the middle and empty fields": Case(
        head(
            "village",
            'raw_file="village.csv", time_column="when", num_sensors=3, interval_minutes=20, start="2022-10-28",\n'
            '        null_value=float("nan"), graph_file="roads.csv",',
        ),
        write_table,
        steps_per_day=72,
        num_sensors=3,
        missing=np.nan,
        ids=["A1", "B2", "C3"],
    ),
}


@dataclass(frozen=True)
class City:
    """A case with its files at hand."""

    case: Case
    folder: Path
    values: np.ndarray

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("-c", str(self.folder / "mine.py"), "--datasets-dir", str(self.folder / "datasets"))

    @property
    def prepared(self) -> Path:
        return next(path for path in (self.folder / "datasets").iterdir() if path.is_dir())


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.split(",")[0])
def city(request: pytest.FixtureRequest, call, flow, tmp_path_factory: pytest.TempPathFactory) -> City:
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp("city")
    values = flow(9 * case.steps_per_day, case.num_sensors, case.steps_per_day).round(3)
    values[np.random.default_rng(5).random(values.shape) < 0.1] = case.missing
    case.write(folder, values)
    (folder / "mine.py").write_text(case.config)
    city = City(case, folder, np.trunc(values) if case.missing == -1 else values)
    done = call("prepare_dataset", *city.arguments, "--raw-dir", folder)
    assert (done.status, done.err) == (0, "")
    return city


@pytest.fixture(scope="module")
def run(city: City, call) -> Path:
    folder = city.folder / "run"
    done = call("train", *city.arguments, "--max-steps", 30, "--output-dir", folder, "--predictions")
    assert done.status == 0, done.err
    return folder


def test_the_config_is_short(city: City) -> None:
    assert len(city.case.config.splitlines()) < 20


def test_the_prepared_series_is_the_raw_one(city: City) -> None:
    series = open_prepared(city.prepared)
    rows = np.concatenate([series.data(split) for split in ("train", "val", "test")])
    np.testing.assert_array_equal(rows, city.values.astype(np.float32))
    assert series.sensor_ids() == city.case.ids
    graph = series.graph()
    assert graph is not None
    edges = {
        (int(a), int(b)): float(w) for a, b, w in zip(*graph.adjacency.nonzero(), graph.adjacency.data, strict=True)
    }
    expected = {
        7: {(i, (i + 1) % 7): 1.5 + i for i in range(7)},
        4: {(0, 1): 0.5, (1, 2): 0.5, (2, 3): 0.5},
        3: {(2, 0): 1.0},
    }
    assert edges == expected[city.case.num_sensors]


def test_stock_basicts_reads_it(city: City) -> None:
    first = 0
    for mode in (BasicTSMode.TRAIN, BasicTSMode.VAL, BasicTSMode.TEST):
        data = BasicTSForecastingDataset(
            "any", 12, 12, mode, use_timestamps=True, data_file_path=str(city.prepared), memmap=True
        )
        last = data[len(data) - 1]
        assert last["inputs"].shape == last["targets"].shape == (12, city.case.num_sensors)
        assert last["targets_timestamps"].shape == (12, 2)
        end = first + len(data) + 23
        np.testing.assert_array_equal(last["targets"], city.values[end - 12 : end].astype(np.float32))
        slots = np.round(data[0]["inputs_timestamps"][:, 0] * city.case.steps_per_day).astype(int)
        assert (np.diff(slots) % city.case.steps_per_day == 1).all()
        first = end
    assert first == len(city.values)


def test_training_and_evaluation_give_sensible_metrics(city: City, run: Path, call) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["windows"] == len(open_prepared(city.prepared).data("test")) - 23
    assert list(metrics["horizons"]) == [str(step) for step in range(1, 13)]
    # The daily wave has a standard deviation of 64 and a mean absolute one of 57: something was learnt.
    assert 0 < metrics["average"]["MAE"] < 30
    assert metrics["average"]["MAE"] < metrics["average"]["RMSE"] < 40
    assert 0 < metrics["average"]["MAPE"] < 30
    done = call("evaluate", *city.arguments, "--checkpoint", run / "best.pt", "--json")
    assert json.loads(done.out)["average"] == metrics["average"]


def test_missing_readings_count_nowhere(city: City, run: Path) -> None:
    with np.load(run / "predictions.npz") as file:
        targets, prediction = file["targets"].astype(np.float64), file["prediction"].astype(np.float64)
        np.testing.assert_equal(float(file["null_value"]), city.case.missing)
        assert file["sensor_ids"].tolist() == city.case.ids
    missing = np.isnan(targets) | (targets == city.case.missing)
    assert 0.05 < missing.mean() < 0.15
    assert np.isfinite(prediction).all()
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["average"]["MAE"] == pytest.approx(np.abs(prediction - targets)[~missing].mean(), rel=1e-9)


def test_the_floor_is_a_floor(city: City, call) -> None:
    done = call("floor", *city.arguments)
    assert (done.status, done.err) == (0, "")
    rows = {line[:18].strip(): [float(number) for number in line[18:].split()] for line in done.out.splitlines()[4:]}
    assert list(rows) == ["last value", "weekly profile", "historical inertia"]
    assert np.isfinite(list(rows.values())).all()
    # The wave is the same every day and the noise has a standard deviation of 3.
    assert 2 < rows["weekly profile"][0] < 4
    assert rows["weekly profile"][0] < rows["last value"][0] < rows["historical inertia"][0] < 120


# Raw files that are not what the config says


@pytest.fixture
def refuse(refused, flow, tmp_path: Path):
    """`refuse(config, values)`: the line that answers when CITY-7 is prepared from these values."""
    case = next(iter(CASES.values()))

    def prepare(before: str = "", after: str = "", values: np.ndarray | None = None) -> str:
        assert before in case.config
        (tmp_path / "mine.py").write_text(case.config.replace(before, after) if before else case.config)
        if values is not None:
            write_channels(tmp_path, values)
        return refused("prepare_dataset", "-c", "mine.py", "--raw-dir", tmp_path)

    write_channels(tmp_path, flow(300, 7))
    return prepare


def changed(values: np.ndarray, value: float) -> np.ndarray:
    values[20, 3] = value
    return values


def test_values_and_shapes_that_do_not_fit_are_one_line(refuse, flow) -> None:
    good = flow(300, 7)
    assert "has 3 channels, but channel 3 is asked for; expected 0..2" in refuse("channel=2", "channel=3")
    assert "holds 7 sensors, expected num_sensors=8; its shape is 300 steps x 7" in refuse("sensors=7", "sensors=8")
    assert "(is it transposed?)" in refuse(values=good.T)
    assert "holds 1 infinite value" in refuse(values=changed(good.copy(), np.inf))
    # Without null_value, NaN has no meaning.
    message = refuse('null_value=float("nan"),', "", changed(good.copy(), np.nan))
    assert "holds 1 NaN value, the first in row 20, sensor 3, and null_value=0.0" in message
    assert "19 are for val: expected at least one window of 24 in each" in refuse(values=good[:99])


def test_files_that_cannot_be_read_are_one_line(refuse, tmp_path: Path) -> None:
    path = tmp_path / "city.npz"
    content = path.read_bytes()
    for damaged, said in (
        (content[: len(content) // 2], "city.npz: is no zip archive, or a truncated one"),
        (b"<html>404</html>", "city.npz: is no zip archive"),
        (b"", "city.npz: the file is empty"),
        (content[:3000] + b"\xff\x00\xff" + content[3003:], "city.npz: cannot be read"),
    ):
        path.write_bytes(damaged)
        assert said in refuse()
    path.unlink()
    assert "CITY-7/city.npz is not there: put city.npz into" in refuse()


def test_graphs_and_ids_that_do_not_fit_are_one_line(refuse, tmp_path: Path) -> None:
    roads, ids = tmp_path / "roads.csv", tmp_path / "ids.txt"
    for path, text, said in (
        (roads, RING + "1,2,3\n", "roads.csv: line 9 names sensor '1'; expected one of the N = 7 ids"),
        (roads, RING.replace("from,to,distance\n", ""), "roads.csv: the header is '40100,40107,1.5'; expected"),
        (roads, RING.replace("1.5", "far"), "roads.csv: line 2 has cost 'far'"),
        (ids, "\n".join(IDS[:-1]), "ids.txt names 6 sensors, expected num_sensors=7"),
        (ids, "\n".join([*IDS[:-1], IDS[0]]), "ids.txt: sensor id '40100' occurs twice"),
    ):
        good = path.read_text()
        path.write_text(text)
        assert said in refuse()
        path.write_text(good)
    np.save(tmp_path / "near.npy", np.ones((6, 6)))
    assert "near.npy: the adjacency has shape [6, 6]; expected [7, 7]" in refuse("roads.csv", "near.npy")
    assert "CITY-7/lost.csv is not there: put lost.csv into" in refuse("roads.csv", "lost.csv")
