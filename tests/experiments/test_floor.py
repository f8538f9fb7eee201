"""experiments/floor.py: the simple forecasts of a split, computed here once more the slow way."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

from ealinformer.data.prepared import open_prepared

METRICS = ("MAE", "RMSE", "MAPE")


def rows_of(table: str) -> dict[str, list[float]]:
    """The numbers of a table by the name of their row."""
    body = table.splitlines()[4:]
    return {" ".join(line.split()[:-3]): [float(number) for number in line.split()[-3:]] for line in body}


def score(forecast: np.ndarray, targets: np.ndarray, missing: np.ndarray) -> list[float]:
    errors, truth = (forecast - targets)[~missing], targets[~missing]
    return [np.abs(errors).mean(), np.sqrt(np.square(errors).mean()), 100 * np.abs(errors / truth).mean()]


def windows(rows: np.ndarray, first: int, length: int, count: int) -> np.ndarray:
    return np.stack([rows[start + first : start + first + length] for start in range(count)])


def weekly_mean(series, split: str) -> np.ndarray:
    """The mean training reading of the same sensor at the same time of the week, zeros included `[T_split, N]`."""
    train, when = series.data("train").astype(np.float64), np.round(series.timestamps("train") * [48, 7])
    profile = []
    for stamp in np.round(series.timestamps(split) * [48, 7]):
        same = (when == stamp).all(axis=1)
        profile.append(train[same if same.any() else when[:, 0] == stamp[0]].mean(axis=0))
    return np.array(profile)


@pytest.mark.parametrize(("split", "output_len"), [("test", 4), ("val", 4), ("test", 2), ("val", 9)])
def test_the_table_is_what_a_loop_over_windows_gives(call, town, split: str, output_len: int) -> None:
    done = call("floor", *town.arguments, "--split", split, "--set", f"output_len={output_len}")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[0] == f"TOWN: {split} part, average over {output_len} horizons"
    assert done.out.splitlines()[2].split() == ["forecast", "MAE", "RMSE", "MAPE", "%"]

    series = open_prepared(town.datasets / "TOWN")
    rows = series.data(split).astype(np.float64)
    count = len(rows) - 6 - output_len + 1
    targets = windows(rows, 6, output_len, count)
    forecasts = {
        "last value": windows(rows, 5, 1, count).repeat(output_len, axis=1),
        "weekly profile": windows(weekly_mean(series, split), 6, output_len, count),
    }
    if output_len <= 6:
        forecasts["historical inertia"] = windows(rows, 6 - output_len, output_len, count)
    found = rows_of(done.out)
    assert list(found) == list(forecasts)
    for name, forecast in forecasts.items():
        assert found[name] == pytest.approx(score(forecast, targets, targets == 0), abs=6e-5)


@pytest.mark.parametrize("marker", [-1.0, math.nan])
def test_a_marker_of_missing_readings_is_never_a_forecast(
    call, flow, town_config: str, tmp_path: Path, marker: float
) -> None:
    """The newest reading that is one takes its place, and the profile leaves it out."""
    own = town_config.replace("channel=1", f"null_value=float('{marker}')")
    (tmp_path / "own.py").write_text(own)
    values = flow().astype(np.float32)
    holes = np.random.default_rng(0).random(values.shape) < 0.2
    holes[384:387, 1] = True  # the test part begins with a hole, where the profile steps in
    values[holes] = marker
    np.savez(tmp_path / "town.npz", data=values)
    arguments = ("-c", tmp_path / "own.py", "--datasets-dir", tmp_path / "data")
    assert call("prepare_dataset", *arguments, "--raw-dir", tmp_path).status == 0
    done = call("floor", *arguments)
    assert (done.status, done.err) == (0, "")
    found = rows_of(done.out)
    assert np.isfinite(list(found.values())).all()

    test, missing = values[384:].astype(np.float64), holes[384:]
    newest = test.copy()
    newest[missing] = np.nan
    for step in range(1, len(newest)):
        newest[step] = np.where(np.isnan(newest[step]), newest[step - 1], newest[step])
    targets, gone = windows(test, 6, 4, 87), windows(missing, 6, 4, 87)
    assert not np.isnan(newest[5:]).any()  # every window's last step has a reading before it
    expected = score(windows(newest, 5, 1, 87).repeat(4, axis=1), targets, gone)
    assert found["last value"] == pytest.approx(expected, abs=6e-5)
    # The noise has a standard deviation of 3; a marker among 8 readings of a slot would be off by 20 and more.
    assert found["weekly profile"][0] < 4


def test_a_simulated_series_is_called_so(call, flow, town_config: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(town_config.replace("channel=1", "simulated=True"))
    np.savez(tmp_path / "town.npz", data=flow())
    arguments = ("-c", tmp_path / "own.py", "--datasets-dir", tmp_path / "data")
    call("prepare_dataset", *arguments, "--raw-dir", tmp_path)
    assert call("floor", *arguments).out.startswith("TOWN, simulated series: test part")
    done = call("train", *arguments, "--max-steps", 1, "--output-dir", tmp_path / "run")
    assert "ELinFormer on TOWN, simulated series: test part" in done.err
    done = call("evaluate", *arguments, "--checkpoint", tmp_path / "run" / "best.pt")
    assert done.out.startswith("ELinFormer on TOWN, simulated series: test part")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--split", "all"), "argument --split: invalid choice: 'all'"),
        (("--set", "input_len=0"), "input_len of RunConfig: input should be greater than 0, got 0"),
        (("--set", "input_len=90", "--set", "output_len=7"), "one window of 90 in and 7 out needs 97"),
        (("--set", "outputlen=3"), "unknown key 'outputlen' (did you mean 'output_len'?)"),
        (("--datasets-dir", "nowhere"), "nowhere/TOWN is not prepared"),
        (("--json",), "unrecognized arguments: --json"),
    ],
)
def test_bad_options_are_one_line(refused, town, options: tuple[str, ...], said: str) -> None:
    assert said in refused("floor", *town.arguments, *options)
    assert "arguments are required: -c/--config" in refused("floor")


# Where the words go


def test_a_reader_that_leaves_early_ends_it_in_silence(start, tmp_path: Path) -> None:
    """`... | head -1`"""
    reader, writer = os.pipe()
    os.close(reader)
    process = start("prepare_dataset", "--list", cwd=tmp_path, stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(start, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        process = start("prepare_dataset", "--list", cwd=tmp_path, stdout=full)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (2, "error: No space left on device\n")


def test_closed_streams_are_no_reason_to_fail(start, town, tmp_path: Path) -> None:
    """A daemon may have neither."""
    folder = tmp_path / "run"
    options = {"stdout": None, "stderr": None, "preexec_fn": lambda: (os.close(1), os.close(2))}
    process = start("train", *town.arguments, "--max-steps", 1, "--output-dir", folder, **options)
    assert process.wait(timeout=120) == 0
    assert (folder / "metrics.json").is_file()
