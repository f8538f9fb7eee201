"""Simulated traffic: the same under a seed, plausible, periodic, with travelling waves, hard enough and easy enough."""

import importlib.util
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from ealinformer.data.simulation import (
    Quantity,
    SimulatedTraffic,
    iterate_traffic,
    simulate_network,
    simulate_traffic,
    write_raw,
)
from ealinformer.data.simulation.network import build_network, incoming_roads
from ealinformer.errors import InputError
from ealinformer.training.config import load_config

SCRIPT = Path(__file__).parents[2] / "scripts" / "simulate_traffic.py"
DAY = 288  # steps of 5 minutes
WEEK = 7 * DAY
QUANTITIES: tuple[Quantity, ...] = ("flow", "speed")
Array = NDArray[np.float64]


def slot_means(values: NDArray[np.float32], period: int) -> Array:
    """Mean by slot of the period, repeated over the series `[T, N]`."""
    slot = np.arange(len(values)) % period
    return np.stack([values[slot == s].mean(axis=0, dtype=np.float64) for s in range(period)])[slot]


def lagged_correlation(early: Array, late: Array, lag: int) -> float:
    """Correlation of `early` at t with `late` at t + lag."""
    if lag < 0:
        return lagged_correlation(late, early, -lag)
    return float(np.corrcoef(early[: len(early) - lag], late[lag:])[0, 1])


def zero_runs(column: NDArray[np.float32]) -> NDArray[np.int64]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], column == 0, [0]])))
    return np.diff(edges)[::2]


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_same_seed_same_bits(quantity: Quantity) -> None:
    one, two = (simulate_traffic(23, 500, seed=3, quantity=quantity) for _ in range(2))
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.adjacency.toarray(), two.adjacency.toarray())


def test_other_seeds_give_other_series_and_roads() -> None:
    one, two = simulate_traffic(23, 500, seed=3), simulate_traffic(23, 500, seed=4)
    assert (one.values != two.values).mean() > 0.9
    assert (one.adjacency.data != two.adjacency.data).all()


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("block_steps", [1, 7, 288, 601, 5000])
def test_blocks_join_to_the_series(quantity: Quantity, block_steps: int) -> None:
    whole = simulate_traffic(13, 601, quantity=quantity, missing_share=0.1).values
    blocks = list(iterate_traffic(13, 601, quantity=quantity, missing_share=0.1, block_steps=block_steps))
    assert [len(block) for block in blocks[:-1]] == [block_steps] * (len(blocks) - 1)
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_memory_bound_does_not_change_the_series(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = simulate_traffic(13, 601).values
    monkeypatch.setattr("ealinformer.data.simulation.traffic.READINGS_PER_BLOCK", 100)
    np.testing.assert_array_equal(simulate_traffic(13, 601).values, whole)


def test_longer_series_begins_with_the_shorter() -> None:
    np.testing.assert_array_equal(simulate_traffic(13, 1000).values[:333], simulate_traffic(13, 333).values)


def test_network_is_that_of_the_series() -> None:
    series = simulate_traffic(40, 3, seed=5)
    np.testing.assert_array_equal(simulate_network(40, seed=5).adjacency.toarray(), series.adjacency.toarray())


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize(
    ("num_sensors", "num_steps", "interval"),
    [(1, 1, 5), (1, 2000, 5), (2, 63, 5), (7, 289, 15), (63, 7, 1), (63, 400, 60), (8, 10, 1440), (9, 63, 5)],
)
def test_shapes(quantity: Quantity, num_sensors: int, num_steps: int, interval: int) -> None:
    traffic = simulate_traffic(num_sensors, num_steps, quantity=quantity, interval_minutes=interval)
    assert traffic.values.shape == (num_steps, num_sensors)
    assert traffic.values.dtype == np.float32
    assert np.isfinite(traffic.values).all()
    assert traffic.adjacency.shape == (num_sensors, num_sensors)


@pytest.mark.parametrize("interval", [1, 5, 15, 60])
def test_flow_is_whole_vehicles_within_the_capacity_of_a_road(interval: int) -> None:
    values = simulate_traffic(60, 7 * 1440 // interval, interval_minutes=interval, missing_share=0.0).values
    np.testing.assert_array_equal(values, np.rint(values))
    assert values.min() >= 1
    assert values.max() <= 120 * interval
    assert (values == 120 * interval).mean() < 0.01
    # A sensor's busiest hours carry several times the traffic of its quietest.
    assert (np.quantile(values, 0.95, axis=0) > 4 * np.quantile(values, 0.05, axis=0)).all()


def test_speed_is_free_at_night_and_breaks_down_in_the_peaks() -> None:
    values = simulate_traffic(60, WEEK, quantity="speed", missing_share=0.0).values
    assert values.min() >= 5
    assert values.max() <= 75
    night = values.reshape(7, DAY, 60)[:, 12:48].reshape(-1, 60)  # 1 to 4 o'clock
    assert (np.median(night, axis=0) > 55).all()
    assert (values.min(axis=0) < 40).mean() > 0.8
    assert 0.02 < (values < 45).mean() < 0.2


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5])
def test_missing_share_is_kept(share: float) -> None:
    values = simulate_traffic(2000, WEEK, missing_share=share).values
    assert (values == 0).mean() == pytest.approx(share, rel=0.12)


def test_missing_readings_are_single_ones_and_outages_of_hours() -> None:
    values = simulate_traffic(300, WEEK, missing_share=0.02).values
    runs = np.concatenate([zero_runs(column) for column in values.T])
    assert (runs == 1).sum() > 0.5 * len(runs)
    outages = runs[runs > 3]
    assert outages.mean() * 5 == pytest.approx(4 * 60, rel=0.25)  # minutes
    assert 0.4 < outages.sum() / runs.sum() < 0.7


def test_missing_readings_leave_the_others_as_they_are() -> None:
    whole, holed = (simulate_traffic(20, 500, missing_share=share).values for share in (0.0, 0.3))
    np.testing.assert_array_equal(np.where(holed == 0, whole, holed), whole)


def test_days_repeat() -> None:
    values = simulate_traffic(30, 2 * WEEK, missing_share=0.0).values.astype(np.float64)
    for sensor in values.T:
        assert lagged_correlation(sensor, sensor, DAY) > 0.6
        assert lagged_correlation(sensor, sensor, DAY // 2) < 0


def test_weekends_have_no_morning_peak() -> None:
    values = simulate_traffic(60, 4 * WEEK, missing_share=0.0).values.reshape(28, DAY, 60)
    morning = values[:, 84:102].mean(axis=(1, 2))  # 7:00 to 8:30
    weekend = np.arange(28) % 7 >= 5  # the first day is a Monday
    assert morning[weekend].max() < 0.75 * morning[~weekend].min()


def test_sundays_are_quieter_than_saturdays_and_no_two_weeks_are_alike() -> None:
    totals = (
        simulate_traffic(60, 8 * WEEK, missing_share=0.0).values.reshape(8, 7, DAY, 60).sum(axis=2, dtype=np.float64)
    )
    assert (totals[:, 6].mean(axis=0) < totals[:, 5].mean(axis=0)).mean() > 0.9
    variation = totals[:, :5].std(axis=0) / totals[:, :5].mean(axis=0)  # of a weekday over the weeks
    assert 0.05 < np.median(variation) < 0.2


def test_peaks_differ_by_sensor() -> None:
    values = simulate_traffic(60, 4 * WEEK, missing_share=0.0).values.reshape(28, DAY, 60)
    workday = values[np.arange(28) % 7 < 5].mean(axis=0)
    morning, evening = workday[84:102].mean(axis=0), workday[198:216].mean(axis=0)  # 7:00, 16:30
    assert (morning > 1.2 * evening).sum() >= 5
    assert (evening > 1.2 * morning).sum() >= 5


@pytest.mark.parametrize("start", [datetime(2024, 1, 6), datetime(2024, 1, 1, 7, 30)])
def test_calendar_follows_the_start(start: datetime) -> None:
    """From another start, the same seed shows the profile of that time of the week."""
    shift = int((start - datetime(2024, 1, 1)).total_seconds()) // 300
    profile = slot_means(simulate_traffic(30, 4 * WEEK, missing_share=0.0).values, WEEK)[:WEEK].mean(axis=1)
    moved = slot_means(simulate_traffic(30, 4 * WEEK, start=start, missing_share=0.0).values, WEEK)[:WEEK].mean(axis=1)
    assert np.corrcoef(np.roll(profile, -shift), moved)[0, 1] > 0.97
    assert np.corrcoef(profile, moved)[0, 1] < 0.9


def test_coarse_and_fine_intervals_show_the_same_day() -> None:
    fine = (
        simulate_traffic(60, 28 * DAY, missing_share=0.0).values.reshape(28, 24, 12, 60).sum(axis=2).mean(axis=(0, 2))
    )
    hourly = simulate_traffic(60, 28 * 24, interval_minutes=60, missing_share=0.0).values
    np.testing.assert_allclose(hourly.reshape(28, 24, 60).mean(axis=(0, 2)), fine, rtol=0.1)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_waves_travel_downstream_with_the_delay_of_the_road(quantity: Quantity) -> None:
    traffic = simulate_traffic(40, 4 * WEEK, quantity=quantity, missing_share=0.0)
    residual = traffic.values - slot_means(traffic.values, WEEK)
    upstream, metres, is_chain = incoming_roads(traffic.adjacency)
    lags = np.arange(-15, 16)
    errors, gains = [], []
    for place, sensor in zip(*np.nonzero(is_chain), strict=True):
        before, after = residual[:, upstream[place, sensor]], residual[:, sensor]
        correlation = np.array([lagged_correlation(before, after, lag) for lag in lags.tolist()])
        best = int(lags[correlation.argmax()])
        errors.append(best - round(metres[place, sensor] / 1000))  # 1 km in 5 minutes
        gains.append(correlation.max() - correlation[lags <= 0].max())
    assert len(errors) == 34
    assert np.mean(np.abs(errors) <= 1) > 0.85
    assert np.median(gains) > 0.05


def test_delay_is_a_matter_of_minutes_not_of_steps() -> None:
    traffic = simulate_traffic(40, 28 * 96, interval_minutes=15, missing_share=0.0)
    residual = traffic.values - slot_means(traffic.values, 7 * 96)
    upstream, metres, is_chain = incoming_roads(traffic.adjacency)
    long_roads = [(p, s) for p, s in zip(*np.nonzero(is_chain), strict=True) if metres[p, s] > 5_500]  # 2 or 3 steps
    best = [
        np.argmax([lagged_correlation(residual[:, upstream[p, s]], residual[:, s], lag) for lag in range(7)])
        for p, s in long_roads
    ]
    assert len(best) >= 5
    assert 1.5 < np.mean(best) < 3.5


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_incidents_cut_the_readings_here_and_later_downstream(
    quantity: Quantity, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = simulate_traffic(40, 2 * WEEK, quantity=quantity, missing_share=0.0)
    monkeypatch.setattr("ealinformer.data.simulation.incidents.DAYS_BETWEEN_INCIDENTS", 1e12)
    calm = simulate_traffic(40, 2 * WEEK, quantity=quantity, missing_share=0.0)
    cut = calm.values - busy.values
    assert cut.sum() > 0
    assert (cut > 0.25 * calm.values).mean() > 0.002

    entry = int(np.flatnonzero(busy.adjacency.sum(axis=0) == 0)[0])
    changed = np.flatnonzero(cut[:, entry] > 0)
    assert 3 <= np.diff(np.flatnonzero(np.diff(changed, prepend=-9) > 3), append=len(changed)).max() <= 20  # steps
    below = int(busy.adjacency[[entry]].tocoo().col[0])
    delay = round(float(busy.adjacency[entry, below]) / 1000)
    worst = int(cut[:, entry].argmax())
    assert cut[worst + delay, below] > 0


@settings(max_examples=60, deadline=None)
@given(num_sensors=st.integers(1, 400), seed=st.integers(0, 1000))
def test_roads_join_all_sensors_with_few_roads_each(num_sensors: int, seed: int) -> None:
    network = build_network(num_sensors, np.random.default_rng(seed))
    roads = network.adjacency.tocoo()
    assert connected_components(network.adjacency, directed=False)[0] == 1
    assert np.bincount(roads.row, minlength=num_sensors).max() <= 2
    assert np.bincount(roads.col, minlength=num_sensors).max() <= 2
    assert (roads.row != roads.col).all()
    distance = np.linalg.norm(network.positions[roads.row] - network.positions[roads.col], axis=1)
    np.testing.assert_allclose(roads.data, distance.clip(10), atol=0.06)


def test_large_network_has_three_roads_for_two_sensors_and_takes_linear_memory() -> None:
    tracemalloc.start()
    try:
        network = simulate_network(200_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 1.45 < network.adjacency.nnz / 200_000 <= 1.5
    assert 1_000 < np.median(network.adjacency.data) < 9_000
    assert peak < 500 * 200_000


class Bench:
    """Masked MAE over 12 horizons on the last 20 % of a series, of rules and of ridge regressions on the last hour."""

    def __init__(self, traffic: SimulatedTraffic) -> None:
        self.values = traffic.values.astype(np.float64)
        num_steps = len(self.values)
        self.split = int(0.8 * num_steps)
        slot = np.arange(num_steps) % WEEK
        known = self.values > 0
        means = np.empty((WEEK, self.values.shape[1]))
        for s in range(WEEK):
            rows = np.flatnonzero(slot[: self.split] == s)
            means[s] = self.values[rows].sum(axis=0) / known[rows].sum(axis=0).clip(1)
        self.weekly = means[slot]
        latest = np.maximum.accumulate(np.where(known, np.arange(num_steps)[:, None], 0), axis=0)
        self.filled = np.take_along_axis(self.values, latest, axis=0)  # a missing reading repeats the one before
        linked = (traffic.adjacency + traffic.adjacency.T).tolil()
        self.neighbours = [sorted(row) for row in linked.rows]
        self.train = np.arange(12, self.split - 11, 3)  # a third of the windows fits as well, and sooner
        self.test = np.arange(self.split + 12, num_steps - 11)

    def mae(self, prediction: Array) -> float:
        """MAE of `[windows, 12, N]` where readings are not missing."""
        targets = np.stack([self.values[self.test + h] for h in range(12)], axis=1)
        return float(np.abs(prediction - targets)[targets > 0].mean())

    def last_value(self) -> float:
        return self.mae(np.repeat(self.filled[self.test - 1][:, None], 12, axis=1))

    def weekly_profile(self) -> float:
        return self.mae(np.stack([self.weekly[self.test + h] for h in range(12)], axis=1))

    def ridge(self, with_neighbours: bool) -> float:
        prediction = np.empty((len(self.test), 12, self.values.shape[1]))
        for sensor, neighbours in enumerate(self.neighbours):
            seen = [sensor, *neighbours] if with_neighbours else [sensor]
            train, test = self._windows(self.train, seen), self._windows(self.test, seen)
            for h in range(12):
                prediction[:, h, sensor] = self._predict(train, test, sensor, h)
        return self.mae(prediction)

    def _windows(self, first: NDArray[np.int64], sensors: Sequence[int]) -> Array:
        return np.concatenate([self.filled[first - lag][:, sensors] for lag in range(1, 13)], axis=1)

    def _predict(self, train: Array, test: Array, sensor: int, h: int) -> Array:
        def features(windows: Array, first: NDArray[np.int64]) -> Array:
            return np.column_stack([windows, self.weekly[first + h, sensor], np.ones(len(first))])

        target = self.values[self.train + h, sensor]
        inputs = features(train, self.train)[target > 0]
        normal = inputs.T @ inputs + 10 * np.eye(inputs.shape[1])
        weights = np.linalg.solve(normal, inputs.T @ target[target > 0])
        return np.asarray(features(test, self.test) @ weights)


@pytest.mark.parametrize(
    ("quantity", "seed", "over_weekly", "over_last", "over_own"),
    [("flow", 0, 0.25, 0.15, 0.10), ("flow", 1, 0.25, 0.15, 0.10), ("speed", 0, 0.20, 0.05, 0.05)],
)
def test_neighbours_and_the_last_hour_pay(
    quantity: Quantity, seed: int, over_weekly: float, over_last: float, over_own: float
) -> None:
    """A linear rule that sees neighbours has to win clearly: else the demo could not tell a good model from none."""
    bench = Bench(simulate_traffic(40, 28 * DAY, seed=seed, quantity=quantity))
    best = bench.ridge(with_neighbours=True)
    assert best < (1 - over_weekly) * bench.weekly_profile()
    assert best < (1 - over_last) * bench.last_value()
    assert best < (1 - over_own) * bench.ridge(with_neighbours=False)


def test_memory_of_a_large_network() -> None:
    """20,000 sensors by a day hold 23 MB; blocks of all intermediate arrays may add as much as the bound says."""
    code = (
        "import resource\n"
        "from ealinformer.data.simulation import simulate_traffic\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "traffic = simulate_traffic(20_000, 288)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, traffic.values.shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    kilobytes, shape = done.stdout.split(maxsplit=1)
    unit = 1024 if sys.platform == "darwin" else 1  # ru_maxrss is in bytes there
    assert shape.strip() == "(288, 20000)"
    assert int(kilobytes) / unit < 200_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_sensors": 0}, "num_sensors is 0, expected 1 or more"),
        ({"num_steps": 0}, "num_steps is 0, expected 1 or more"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"quantity": "density"}, "quantity is 'density', expected 'flow' or 'speed'"),
        ({"interval_minutes": 7}, "interval_minutes is 7, expected a divisor of 1440"),
        ({"interval_minutes": 0}, "interval_minutes is 0, expected a divisor of 1440"),
        ({"missing_share": -0.1}, "missing_share is -0.1, expected 0 to 0.5"),
        ({"missing_share": 0.6}, "missing_share is 0.6, expected 0 to 0.5"),
        ({"missing_share": float("nan")}, "missing_share is nan, expected 0 to 0.5"),
        ({"block_steps": 0}, "block_steps is 0, expected 1 or more"),
    ],
)
def test_bad_arguments_are_named_before_the_first_block(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"num_sensors": 4, "num_steps": 4, **change}
    with pytest.raises(InputError) as caught:
        iterate_traffic(**arguments)  # type: ignore[arg-type]
    assert str(caught.value) == message
    if "block_steps" not in change:
        with pytest.raises(InputError):
            simulate_traffic(**arguments)  # type: ignore[arg-type]


def test_raw_files_have_the_published_layout(tmp_path: Path) -> None:
    traffic = simulate_traffic(23, 50)
    write_raw(tmp_path / "raw", "CITY", traffic)
    folder = tmp_path / "raw" / "CITY"
    assert sorted(path.name for path in folder.iterdir()) == ["CITY.csv", "CITY.npz"]
    with np.load(folder / "CITY.npz") as archive:
        assert archive.files == ["data"]
        assert archive["data"].dtype == np.float32
        np.testing.assert_array_equal(archive["data"], traffic.values[:, :, None])
    header, *lines = (folder / "CITY.csv").read_text().splitlines()
    assert header == "from,to,cost"
    roads = np.zeros((23, 23))
    for line in lines:
        source, target, cost = line.split(",")
        roads[int(source), int(target)] = float(cost)
    np.testing.assert_array_equal(roads, traffic.adjacency.toarray())


def test_one_sensor_has_a_graph_without_roads(tmp_path: Path) -> None:
    write_raw(tmp_path, "ONE", simulate_traffic(1, 5))
    assert (tmp_path / "ONE" / "ONE.csv").read_text() == "from,to,cost\n"


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_raw(tmp_path, "CITY", simulate_traffic(5, 5))
    before = (tmp_path / "CITY" / "CITY.npz").read_bytes()

    def half(path: Path, **arrays: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(InputError, match="No space left on device"):
        write_raw(tmp_path, "CITY", simulate_traffic(5, 6))
    assert (tmp_path / "CITY" / "CITY.npz").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "CITY").iterdir()) == ["CITY.csv", "CITY.npz"]


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(InputError, match="raw"):
        write_raw(tmp_path / "raw", "CITY", simulate_traffic(2, 2))


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulate_traffic_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_script_writes_the_series_and_a_config_that_loads(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size, kind = ["--sensors", "9", "--days", "2", "--interval", "15"], ["--quantity", "speed", "--missing", "0"]
    script.main(["TOWN", *size, *kind, "--seed", "3", "--raw-dir", str(tmp_path)])
    with np.load(tmp_path / "TOWN" / "TOWN.npz") as archive:
        expected = simulate_traffic(9, 192, seed=3, quantity="speed", interval_minutes=15, missing_share=0)
        np.testing.assert_array_equal(archive["data"][:, :, 0], expected.values)
    output = capsys.readouterr().out
    assert "simulated" in output
    assert "prepare_dataset.py TOWN" in output

    config = tmp_path / "TOWN.py"
    config.write_text(textwrap.dedent(output.partition("TOWN.py:")[2].partition("and prepare")[0]))
    series = load_config(config).series
    assert (series.name, series.num_sensors, series.interval_minutes) == ("TOWN", 9, 15)
    assert (series.target, series.unit, series.start) == ("speed", "mph", datetime(2024, 1, 1))
    assert (series.raw_file, series.graph_file) == ("TOWN.npz", "TOWN.csv")


def test_script_does_not_replace_files_unasked(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "PEMS08").mkdir()
    (tmp_path / "PEMS08" / "PEMS08.npz").write_bytes(b"measured")
    arguments = ["PEMS08", "--sensors", "3", "--days", "1", "--raw-dir", str(tmp_path)]
    with pytest.raises(InputError, match=r"PEMS08\.npz is there already"):
        script.main(arguments)
    assert (tmp_path / "PEMS08" / "PEMS08.npz").read_bytes() == b"measured"
    script.main([*arguments, "--overwrite"])
    assert (tmp_path / "PEMS08" / "PEMS08.npz").read_bytes() != b"measured"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "NAME"),
        (["../TOWN"], "name"),
        (["TOWN", "--days", "0"], "--days"),
        (["TOWN", "--sensors", "0"], "num_sensors"),
        (["TOWN", "--sensors", "many"], "--sensors"),
        (["TOWN", "--interval", "7"], "interval_minutes"),
        (["TOWN", "--interval", "0"], "interval_minutes"),
        (["TOWN", "--missing", "0.9"], "missing_share"),
        (["TOWN", "--seed", "-1"], "seed"),
        (["TOWN", "--quantity", "density"], "--quantity"),
    ],
)
def test_script_names_what_is_wrong_and_writes_nothing(
    script: ModuleType, tmp_path: Path, arguments: list[str], named: str
) -> None:
    with pytest.raises(InputError, match=named) as caught:
        script.main([*arguments, "--raw-dir", str(tmp_path / "raw")])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "raw").exists()


def test_script_ends_with_status_2_and_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "TOWN", "--interval", "7", "--raw-dir", str(tmp_path / "raw")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: interval_minutes is 7")
    assert done.stderr.count("\n") == 1
