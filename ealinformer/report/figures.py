"""Figures out of results: one PNG each, drawn without pyplot and its global state.

A model keeps its colour as long as it keeps its place in the mapping. `note` is printed above the panels and says what
a reader must know, such as "simulated series".
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from ealinformer.report.drawing import (
    MODEL_COLOURS,
    MODEL_MARKERS,
    TEXT_SIZE,
    TICK_SIZE,
    colour_of,
    dress,
    height_of,
    label_ends,
    legend_below,
    new_figure,
    write_png,
)

SIMPLE_FORECASTS = ("last value", "weekly profile", "historical inertia")

SIMPLE_GREYS = ("#444444", "#686868", "#8A8A8A")
SIMPLE_DASHES = ((0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)))
TRUTH_COLOUR = "#8C8C8C"
LINE_NAMES = {"val_MAE": "validation MAE", "val_loss": "validation loss", "train_loss": "training loss"}


def loss_curves(
    histories: Mapping[str, Sequence[Mapping[str, float | None]]],
    path: str | Path,
    *,
    loss_unit: str | None = None,
    unit: str | None = None,
    best_by: str = "val_MAE",
    note: str | None = None,
) -> Path:
    """Loss (training dashed, validation solid) and validation MAE over epochs, a star at each model's best epoch.

    `histories`: per model one row per epoch with `epoch`, `train_loss`, `val_loss`, `val_MAE`; what an epoch did not
    measure is None or absent, and runs without any MAE get the loss panel alone. `best_by` names the column whose
    minimum is the best epoch, `loss_unit` and `unit` the units of loss and MAE. Returns the path; raises ValueError
    without a model or an epoch.
    """
    return write_png(build_loss_curves(histories, loss_unit=loss_unit, unit=unit, best_by=best_by, note=note), path)


def build_loss_curves(
    histories: Mapping[str, Sequence[Mapping[str, float | None]]],
    *,
    loss_unit: str | None = None,
    unit: str | None = None,
    best_by: str = "val_MAE",
    note: str | None = None,
) -> Figure:
    """The figure of `loss_curves`, not yet written."""
    _require_curves(histories, "histories")
    keys = ["val_loss"]
    if any(np.isfinite(_column(rows, "val_MAE")).any() for rows in histories.values()):
        keys.append("val_MAE")
    figure = new_figure(5.0 * len(keys), 4.2, note)
    panels = dict(zip(keys, figure.subplots(1, len(keys), squeeze=False)[0], strict=True))
    starred = False
    for place, (model, rows) in enumerate(histories.items()):
        epochs, best = _column(rows, "epoch"), _best_row(_column(rows, best_by))
        # A curve of one epoch is a point, and a line alone does not show it.
        style: dict[str, Any] = {
            "color": colour_of(place),
            "zorder": height_of(place),
            "marker": "." * (len(rows) == 1),
        }
        panels["val_loss"].plot(
            epochs, _column(rows, "train_loss"), ls="--", lw=1.3, label=f"{model}, training", **style
        )
        for key, axes in panels.items():
            values = _column(rows, key)
            axes.plot(epochs, values, lw=1.8, label=model, **style)
            if best is not None and np.isfinite(values[best]):
                _star(axes, epochs[best], values[best], colour_of(place))
                starred = True
    for key, axes in panels.items():
        dress(axes, "epoch", _with_unit("loss", loss_unit) if key == "val_loss" else _with_unit("validation MAE", unit))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    handles = [Line2D([], [], color=colour_of(place), lw=2.2, label=model) for place, model in enumerate(histories)]
    handles += [
        Line2D([], [], color="black", ls="--", lw=1.3, label="training"),
        Line2D([], [], color="black", lw=1.8, label="validation"),
    ]
    if starred:
        name = f"best {LINE_NAMES.get(best_by, best_by)}"
        handles.append(Line2D([], [], color="black", ls="", marker="*", ms=11, label=name))
    legend_below(figure, handles)
    return figure


def forecast_against_truth(
    times: Sequence[datetime] | NDArray[np.datetime64],
    truth: ArrayLike,
    forecasts: Mapping[str, ArrayLike],
    *,
    sensors: Sequence[int],
    path: str | Path,
    unit: str,
    interval_minutes: float,
    horizons: Sequence[int] = (3, 6, 12),
    note: str | None = None,
) -> Path:
    """What was forecast a given time ahead against what came: a row of panels per sensor, a column per horizon.

    `truth` and every forecast are windows `[W, H, N]` on the scale of the data, `times` `[W]` the time of the first
    step forecast in each window; `horizons` count steps of `interval_minutes` from 1, `sensors` index N. NaN is a gap.
    Returns the path; raises ValueError on shapes that differ and on sensors or horizons that the windows lack.
    """
    figure = build_forecast_against_truth(
        times,
        truth,
        forecasts,
        sensors=sensors,
        unit=unit,
        interval_minutes=interval_minutes,
        horizons=horizons,
        note=note,
    )
    return write_png(figure, path)


def build_forecast_against_truth(
    times: Sequence[datetime] | NDArray[np.datetime64],
    truth: ArrayLike,
    forecasts: Mapping[str, ArrayLike],
    *,
    sensors: Sequence[int],
    unit: str,
    interval_minutes: float,
    horizons: Sequence[int] = (3, 6, 12),
    note: str | None = None,
) -> Figure:
    """The figure of `forecast_against_truth`, not yet written."""
    first_times = np.asarray(times, dtype="datetime64[s]")
    windows = {"truth": np.asarray(truth)} | {model: np.asarray(values) for model, values in forecasts.items()}
    _check_windows(windows, len(first_times), sensors, horizons)
    figure = new_figure(max(3.6 * len(horizons) + 0.6, 7.0), 2.3 * len(sensors) + 0.7, note)
    panels = figure.subplots(len(sensors), len(horizons), sharex=True, sharey="row", squeeze=False)
    for row, sensor in enumerate(sensors):
        for column, horizon in enumerate(horizons):
            axes = panels[row, column]
            target_times = first_times + np.timedelta64(round((horizon - 1) * interval_minutes * 60), "s")
            for place, (name, values) in enumerate(windows.items()):
                _forecast_line(axes, target_times, values[:, horizon - 1, sensor], name, place - 1)
            if row == 0:
                axes.set_title(f"{horizon * interval_minutes:g} min ahead", fontsize=TEXT_SIZE)
            dress(axes, "", f"sensor {sensor}\n({unit})" if column == 0 else "")
            locator = AutoDateLocator(minticks=3, maxticks=7)
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
            axes.xaxis.get_offset_text().set_fontsize(TICK_SIZE)
    for axes in panels[-1]:
        axes.set_xlabel("target time", fontsize=TEXT_SIZE)
    legend_below(figure, panels[0, 0].get_lines())
    return figure


def error_by_horizon(
    curves: Mapping[str, Sequence[float | None]],
    path: str | Path,
    *,
    metric: str = "MAE",
    unit: str,
    interval_minutes: float,
    simple: Collection[str] = SIMPLE_FORECASTS,
    note: str | None = None,
) -> Path:
    """How the error grows with the time ahead: one curve per model, each named at its right end.

    `curves`: per model the error at steps 1 ... H in `unit`, None where nothing was measured; names in `simple` are
    drawn in dashed greys. Returns the path; raises ValueError without a curve.
    """
    figure = build_error_by_horizon(
        curves, metric=metric, unit=unit, interval_minutes=interval_minutes, simple=simple, note=note
    )
    return write_png(figure, path)


def build_error_by_horizon(
    curves: Mapping[str, Sequence[float | None]],
    *,
    metric: str = "MAE",
    unit: str,
    interval_minutes: float,
    simple: Collection[str] = SIMPLE_FORECASTS,
    note: str | None = None,
) -> Figure:
    """The figure of `error_by_horizon`, not yet written."""
    _require_curves(curves, "curves")
    figure = new_figure(7.4, max(4.4, 0.26 * len(curves) + 1.0), note)
    axes = figure.subplots()
    styles = _curve_styles(list(curves), simple)
    for name, errors in curves.items():
        minutes = interval_minutes * np.arange(1, len(errors) + 1)
        axes.plot(minutes, _numbers(errors), label=name, **styles[name])
    dress(axes, "time ahead (min)", f"{metric} ({unit})")
    steps = max(map(len, curves.values()))
    stride = max(1, -(-steps // 6))
    axes.set_xticks(interval_minutes * np.arange(stride, steps + 1, stride))
    axes.set_xlim(0.4 * interval_minutes, (steps + 0.4) * interval_minutes)
    label_ends(figure, axes)
    return figure


def _with_unit(quantity: str, unit: str | None) -> str:
    return f"{quantity} ({unit})" if unit else quantity


def _require_curves(curves: Mapping[str, Sequence], name: str) -> None:
    if not curves:
        raise ValueError(f"{name} is empty, expected at least one model")
    for model, values in curves.items():
        if not len(values):
            raise ValueError(f"{name}[{model!r}] is empty, expected at least one value")


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    """None becomes NaN, which matplotlib draws as a gap."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _column(rows: Sequence[Mapping[str, float | None]], key: str) -> NDArray[np.float64]:
    return _numbers([row.get(key) for row in rows])


def _best_row(values: NDArray[np.float64]) -> int | None:
    """The first row with the least finite value; None where no epoch was measured."""
    finite = np.where(np.isfinite(values), values, np.inf)
    return int(finite.argmin()) if np.isfinite(finite).any() else None


def _star(axes: Axes, epoch: float, value: float, colour: str) -> None:
    if np.isfinite(value):
        axes.plot([epoch], [value], "*", ms=13, mfc=colour, mec="white", mew=0.8, zorder=5, label="_best epoch")


def _check_windows(
    windows: Mapping[str, NDArray], window_count: int, sensors: Sequence[int], horizons: Sequence[int]
) -> None:
    shape = windows["truth"].shape
    if len(shape) != 3 or shape[0] != window_count:
        raise ValueError(f"truth has shape {shape}, expected [W, H, N] with W = {window_count}, the number of times")
    for name, values in windows.items():
        if values.shape != shape:
            raise ValueError(f"forecast {name!r} has shape {values.shape}, expected that of the truth, {shape}")
    if not sensors or not horizons:
        raise ValueError(f"expected at least one sensor and one horizon, got {sensors} and {horizons}")
    if not all(0 <= sensor < shape[2] for sensor in sensors):
        raise ValueError(f"sensors are {list(sensors)}, expected indices from 0 to {shape[2] - 1}")
    if not all(1 <= horizon <= shape[1] for horizon in horizons):
        raise ValueError(f"horizons are {list(horizons)}, expected steps from 1 to {shape[1]}")


def _forecast_line(axes: Axes, times: NDArray, values: NDArray, name: str, place: int) -> None:
    """The truth (`place` -1) is a broad grey line that the thin lines of the forecasts stay readable on."""
    if place < 0:
        axes.plot(times, values, color=TRUTH_COLOUR, lw=2.8, alpha=0.75, label=name, solid_capstyle="butt")
    else:
        axes.plot(times, values, color=colour_of(place), lw=1.2, zorder=height_of(place), label=name)


def _curve_styles(names: Sequence[str], simple: Collection[str]) -> dict[str, dict[str, Any]]:
    """Line styles by name; models and simple forecasts are counted apart, so that a floor never takes a colour."""
    styles: dict[str, dict[str, Any]] = {}
    models = [name for name in names if name not in simple]
    for place, name in enumerate(models):
        marker = MODEL_MARKERS[(place + place // len(MODEL_COLOURS)) % len(MODEL_MARKERS)]
        styles[name] = {"color": colour_of(place), "lw": 1.9, "marker": marker, "ms": 5, "mec": "white", "mew": 0.5}
        styles[name]["zorder"] = height_of(place)
    for place, name in enumerate(name for name in names if name in simple):
        shade = place % len(SIMPLE_GREYS)
        styles[name] = {"color": SIMPLE_GREYS[shade], "lw": 1.5, "ls": SIMPLE_DASHES[shade], "zorder": 1.5}
    return styles
