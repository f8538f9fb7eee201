"""Figures: what is drawn where, with which labels, and that a file is whole or absent."""

import itertools
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.dates import num2date
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ealinformer.report import drawing, figures

START = datetime(2016, 8, 19, 12, 0)
UNIT = "vehicles / 5 min"


def history(*rows: tuple[float, float, float | None]) -> list[dict[str, float | None]]:
    return [
        {"epoch": epoch, "train_loss": train, "val_loss": val, "val_MAE": mae}
        for epoch, (train, val, mae) in enumerate(rows, start=1)
    ]


HISTORIES = {
    "ELinFormer": history((20, 21, 22), (15, 16, 17), (14, 15.5, 18)),
    "STAEformer": history((22, 23, 24), (18, 19, 20), (16, 17, 19)),
}


def line(axes: Axes, label: str) -> Line2D:
    (found,) = [drawn for drawn in axes.get_lines() if drawn.get_label() == label]
    return found


def stars(axes: Axes) -> list[tuple[float, float]]:
    return [
        (float(drawn.get_xdata()[0]), float(drawn.get_ydata()[0]))  # type: ignore[index, arg-type]
        for drawn in axes.get_lines()
        if drawn.get_marker() == "*"
    ]


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def assert_png(path: Path, figure: Figure) -> None:
    """A PNG of the figure's size at 120 dots per inch that shows more than paper."""
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = imread(path)
    width, height = figure.get_size_inches()
    assert pixels.shape[:2] == (pytest.approx(120 * height, abs=1), pytest.approx(120 * width, abs=1))
    assert pixels[..., :3].std() > 0.02
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def test_loss_curves_draw_training_dashed_and_validation_solid() -> None:
    figure = figures.build_loss_curves(HISTORIES, loss_unit=UNIT, unit=UNIT, note="simulated series")
    loss, mae = figure.axes
    training, validation = line(loss, "ELinFormer, training"), line(loss, "ELinFormer")
    assert (training.get_linestyle(), validation.get_linestyle()) == ("--", "-")
    np.testing.assert_array_equal(training.get_ydata(), [20, 15, 14])
    np.testing.assert_array_equal(validation.get_ydata(), [21, 16, 15.5])
    np.testing.assert_array_equal(line(mae, "ELinFormer").get_ydata(), [22, 17, 18])
    assert training.get_color() == validation.get_color() == line(mae, "ELinFormer").get_color()
    assert validation.get_color() != line(loss, "STAEformer").get_color()
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", f"loss ({UNIT})")
    assert mae.get_ylabel() == f"validation MAE ({UNIT})"
    assert figure.get_suptitle() == "simulated series"


def test_loss_curves_mark_the_best_epoch() -> None:
    loss, mae = figures.build_loss_curves(HISTORIES).axes
    assert stars(mae) == [(2, 17), (3, 19)]
    assert stars(loss) == [(2, 16), (3, 17)]
    by_loss = figures.build_loss_curves(HISTORIES, best_by="val_loss")
    assert stars(by_loss.axes[0])[0] == (3, 15.5)
    assert legend_texts(by_loss) == ["ELinFormer", "STAEformer", "training", "validation", "best validation loss"]


def test_epochs_without_a_measurement_are_gaps_and_never_best() -> None:
    rows = history((20, 21, None), (15, 16, 17), (14, 15, float("nan")))
    _, mae = figures.build_loss_curves({"ELinFormer": rows}).axes
    np.testing.assert_array_equal(line(mae, "ELinFormer").get_ydata(), [np.nan, 17, np.nan])
    assert stars(mae) == [(2, 17)]


def test_runs_without_any_mae_get_one_panel_and_no_star() -> None:
    figure = figures.build_loss_curves({"STID": [{"epoch": 1, "train_loss": 2.0, "val_loss": 3.0}]})
    assert len(figure.axes) == 1
    assert stars(figure.axes[0]) == []
    assert legend_texts(figure) == ["STID", "training", "validation"]
    assert line(figure.axes[0], "STID").get_marker() == "."  # one epoch is a point, which a line would not show


def test_epochs_are_ticked_at_whole_numbers() -> None:
    loss, _ = figures.build_loss_curves({"STID": HISTORIES["ELinFormer"][:1]}).axes
    assert all(float(tick).is_integer() for tick in loss.get_xticks())


def test_loss_curves_refuse_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="at least one model"):
        figures.build_loss_curves({})
    with pytest.raises(ValueError, match=r"histories\['STID'\] is empty"):
        figures.build_loss_curves({"STID": []})


def windows(count: int = 20) -> tuple[list[datetime], NDArray[np.float64]]:
    """Windows `[W, 12, 4]` whose reading tells its sensor and its time in steps: 1000 n + w + h."""
    times = [START + timedelta(minutes=5 * step) for step in range(count)]
    step = np.arange(count)[:, None, None] + np.arange(12)[None, :, None]
    return times, step + 1000.0 * np.arange(4)


def test_forecast_panels_hold_sensor_by_horizon() -> None:
    times, truth = windows()
    figure = figures.build_forecast_against_truth(
        times, truth, {"ELinFormer": truth + 0.5}, sensors=[3, 1], unit=UNIT, interval_minutes=5
    )
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:3]] == ["15 min ahead", "30 min ahead", "60 min ahead"]
    assert [figure.axes[place].get_ylabel() for place in (0, 3)] == [f"sensor 3\n({UNIT})", f"sensor 1\n({UNIT})"]
    assert {axes.get_xlabel() for axes in figure.axes[3:]} == {"target time"}
    np.testing.assert_array_equal(line(figure.axes[5], "truth").get_ydata(), truth[:, 11, 1])
    np.testing.assert_array_equal(line(figure.axes[1], "ELinFormer").get_ydata(), truth[:, 5, 3] + 0.5)
    assert legend_texts(figure) == ["truth", "ELinFormer"]


def test_truth_is_the_same_curve_in_every_column() -> None:
    """A reading stands at its own time, however long ahead it was forecast."""
    times, truth = windows()
    figure = figures.build_forecast_against_truth(times, truth, {}, sensors=[0], unit=UNIT, interval_minutes=5)
    for axes in figure.axes:
        drawn = line(axes, "truth")
        seconds = (np.asarray(drawn.get_xdata()) - np.datetime64(START)) / np.timedelta64(1, "s")
        np.testing.assert_array_equal(seconds, 300 * np.asarray(drawn.get_ydata()))


def test_truth_is_grey_models_are_not_and_missing_truth_is_a_gap() -> None:
    times, truth = windows()
    truth[5:8, :, 0] = np.nan
    figure = figures.build_forecast_against_truth(
        np.array(times, dtype="datetime64[m]"),
        truth,
        {"a": truth, "b": truth},
        sensors=[0],
        unit=UNIT,
        interval_minutes=5,
    )
    drawn = line(figure.axes[0], "truth")
    assert np.isnan(np.asarray(drawn.get_ydata(), dtype=float)).sum() == 3
    red, green, blue = (int(to_hex(drawn.get_color())[place : place + 2], 16) for place in (1, 3, 5))
    assert red == green == blue
    assert len({line(figure.axes[0], name).get_color() for name in ("truth", "a", "b")}) == 3


def test_the_time_axis_shows_the_day() -> None:
    times, truth = windows(600)
    figure = figures.build_forecast_against_truth(times, truth, {}, sensors=[0], unit=UNIT, interval_minutes=5)
    figure.canvas.draw()
    axes = figure.axes[0]
    shown = [text.get_text() for text in axes.get_xticklabels()] + [axes.xaxis.get_offset_text().get_text()]
    assert any("Aug" in text for text in shown)
    low, high = (num2date(limit).replace(tzinfo=None) for limit in axes.get_xlim())
    assert low < START
    assert high > START + timedelta(minutes=5 * 600)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sensors": [4]}, r"sensors are \[4\], expected indices from 0 to 3"),
        ({"sensors": []}, "at least one sensor"),
        ({"horizons": [0]}, r"horizons are \[0\], expected steps from 1 to 12"),
        ({"horizons": [13]}, r"horizons are \[13\]"),
        ({"forecasts": {"STID": np.zeros((20, 12, 3))}}, r"'STID' has shape \(20, 12, 3\)"),
        ({"times": [START]}, "W = 1"),
    ],
)
def test_windows_that_do_not_fit_are_refused(changed: dict, message: str) -> None:
    times, truth = windows()
    arguments: dict = {"times": times, "truth": truth, "forecasts": {}, "sensors": [0]} | changed
    with pytest.raises(ValueError, match=message):
        figures.build_forecast_against_truth(**arguments, unit=UNIT, interval_minutes=5)


def test_error_curves_stand_at_their_minutes_with_names_and_units() -> None:
    figure = figures.build_error_by_horizon(
        {"last value": [3, 4, 5], "ELinFormer": [1, None, 2]}, metric="MAPE", unit="%", interval_minutes=15
    )
    (axes,) = figure.axes
    np.testing.assert_array_equal(line(axes, "ELinFormer").get_xdata(), [15, 30, 45])
    np.testing.assert_array_equal(line(axes, "ELinFormer").get_ydata(), [1, np.nan, 2])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time ahead (min)", "MAPE (%)")
    assert [text.get_text() for text in axes.texts] == ["ELinFormer", "last value"]
    for text in axes.texts:
        assert text.get_color() == line(axes, text.get_text()).get_color()


def test_simple_forecasts_are_dashed_greys_and_take_no_colour_from_a_model() -> None:
    names = ["last value", "weekly profile", "historical inertia", "ELinFormer", "STID"]
    curves = {name: [place, place + 1.0] for place, name in enumerate(names)}
    (axes,) = figures.build_error_by_horizon(curves, unit=UNIT, interval_minutes=5).axes
    for name in names:
        drawn = line(axes, name)
        is_grey = len({to_hex(drawn.get_color())[place : place + 2] for place in (1, 3, 5)}) == 1
        assert is_grey == (name in names[:3])
        assert (drawn.get_linestyle() == "-") == (name not in names[:3])
    assert [line(axes, name).get_color() for name in names[3:]] == list(drawing.MODEL_COLOURS[:2])
    assert len({line(axes, name).get_color() for name in names}) == 5


def test_a_baseline_of_ones_own_can_be_called_simple() -> None:
    (axes,) = figures.build_error_by_horizon(
        {"ARIMA": [1.0, 2.0], "last value": [2.0, 3.0]}, unit=UNIT, interval_minutes=5, simple=["ARIMA"]
    ).axes
    assert line(axes, "ARIMA").get_color() in figures.SIMPLE_GREYS
    assert line(axes, "last value").get_color() == drawing.MODEL_COLOURS[0]


def test_names_of_equal_curves_do_not_cover_each_other() -> None:
    curves = {f"model {place}": [10.0, 10.0 + 0.001 * place] for place in range(12)} | {"last value": [10.0, 30.0]}
    figure = figures.build_error_by_horizon(curves, unit=UNIT, interval_minutes=5)
    figure.canvas.draw()
    boxes = sorted((super(type(text), text).get_window_extent() for text in figure.axes[0].texts), key=lambda b: b.y0)
    assert len(boxes) == 13
    for below, above in itertools.pairwise(boxes):
        assert above.y0 >= below.y1 - 1
    assert boxes[0].y0 >= 0
    assert max(box.x1 for box in boxes) <= figure.bbox.width


def test_models_that_share_a_colour_differ_in_marker() -> None:
    curves = {f"model {place}": [1.0, 2.0] for place in range(36)}
    (axes,) = figures.build_error_by_horizon(curves, unit=UNIT, interval_minutes=5).axes
    assert len({(drawn.get_color(), drawn.get_marker()) for drawn in axes.get_lines()}) == 36


def test_a_curve_without_one_measurement_gets_no_name() -> None:
    curves: dict[str, list[float | None]] = {"STID": [None, None], "ELinFormer": [1.0, None]}
    (axes,) = figures.build_error_by_horizon(curves, unit=UNIT, interval_minutes=5).axes
    assert [text.get_text() for text in axes.texts] == ["ELinFormer"]
    assert axes.texts[0].xy == (5.0, 1.0)  # type: ignore[attr-defined]


def test_error_curves_refuse_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="at least one model"):
        figures.build_error_by_horizon({}, unit=UNIT, interval_minutes=5)


def test_spread_moves_labels_as_little_as_needed() -> None:
    assert drawing.spread([0.2, 0.5, 0.9], gap=0.1) == pytest.approx([0.2, 0.5, 0.9])
    assert drawing.spread([0.5, 0.5, 0.9], gap=0.1) == pytest.approx([0.45, 0.55, 0.9])
    assert drawing.spread([0.0, 0.0], gap=0.1) == pytest.approx([0.0, 0.1])
    assert drawing.spread([1.0, 1.0], gap=0.1) == pytest.approx([0.9, 1.0])


def test_every_figure_is_written_as_a_png(tmp_path: Path) -> None:
    times, truth = windows()
    forecast = {"sensors": [0, 2], "unit": UNIT, "interval_minutes": 5}
    error = {"unit": UNIT, "interval_minutes": 5}
    loss_path, forecast_path, error_path = (tmp_path / name / "figure.png" for name in ("loss", "forecast", "error"))
    assert figures.loss_curves(HISTORIES, loss_path) == loss_path
    assert figures.forecast_against_truth(times, truth, {"a": truth}, path=forecast_path, **forecast) == forecast_path  # type: ignore[arg-type]
    assert figures.error_by_horizon({"a": [1.0, 2.0]}, str(error_path), **error) == error_path  # type: ignore[arg-type]
    assert_png(loss_path, figures.build_loss_curves(HISTORIES))
    assert_png(forecast_path, figures.build_forecast_against_truth(times, truth, {"a": truth}, **forecast))  # type: ignore[arg-type]
    assert_png(error_path, figures.build_error_by_horizon({"a": [1.0, 2.0]}, **error))  # type: ignore[arg-type]


def test_a_note_changes_the_picture(tmp_path: Path) -> None:
    plain = figures.error_by_horizon({"a": [1.0]}, tmp_path / "a.png", unit=UNIT, interval_minutes=5)
    noted = figures.error_by_horizon(
        {"a": [1.0]}, tmp_path / "b.png", unit=UNIT, interval_minutes=5, note="simulated series"
    )
    assert not np.array_equal(imread(plain), imread(noted))


def test_a_failed_write_leaves_the_old_file_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "loss.png"
    path.write_bytes(b"old")

    def fail_halfway(_figure: Figure, target: Path, **_options: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail_halfway)
    with pytest.raises(OSError, match="disk full"):
        figures.loss_curves(HISTORIES, path)
    assert path.read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["loss.png"]


def test_other_file_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.png"):
        figures.loss_curves(HISTORIES, tmp_path / "loss.pdf")
    assert list(tmp_path.iterdir()) == []


def test_drawing_leaves_matplotlibs_settings_alone(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    figures.loss_curves(HISTORIES, tmp_path / "loss.png", note="simulated series")
    assert dict(matplotlib.rcParams) == before


def test_drawing_needs_no_pyplot(tmp_path: Path) -> None:
    program = (
        "import sys; from ealinformer.report.figures import error_by_horizon;"
        "error_by_horizon({'a': [1.0]}, sys.argv[1], unit='%', interval_minutes=5);"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "error.png")], check=True)
    assert (tmp_path / "error.png").exists()
