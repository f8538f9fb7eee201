"""Figures of an attention analysis: entropy deficit and theta of every estimator against softmax's, and its errors."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter
from numpy.typing import NDArray

from ealinformer.report.drawing import (
    NOTE_SIZE,
    TEXT_SIZE,
    TICK_SIZE,
    colour_of,
    dress,
    legend_below,
    new_figure,
    write_png,
)

Rows = Sequence[Mapping[str, Any]]

EXACT = "exact"
ESTIMATORS = ("taylor", "taylor_uncentred", "second_order", "gaussian", "finite_size", "skewed")
# Colours as in the figures of docs/method.md; exact is black and stands apart.
COLOURS = ("skewed", "taylor_uncentred", "finite_size", "gaussian", "second_order", "taylor")
VARYING = (EXACT, "skewed", "finite_size", "gaussian", "taylor_uncentred")
# Its theta runs away, and would press the others together.
CUT_OFF = "taylor_uncentred"
CONSTANT = {"second_order": 1.0, "taylor": 0.5**0.5}
BEST = "best theta"
DENSITY = "cividis"
BINS = 60
SMALLEST_DEFICIT = 1e-4  # nats; less is as good as none
LIMIT_COLOUR = "#D55E00"
# Ticks within a decade, for an axis of up to so many times its smallest value.
TICKS_WITHIN = ((5, (1, 1.2, 1.4, 1.7, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)), (60, (1, 2, 5)), (2000, (1, 3)))


def deficit_figure(
    calls: Mapping[str, Sequence[Mapping[str, Any]]], path: str | Path, *, note: str | None = None
) -> Path:
    """Density of queries over softmax's entropy deficit and what an estimator says: a row an axis, a panel each.

    `calls`: by axis, for each layer `num_keys` and `deficits`, by estimator the D of every query in nats. What is
    beyond a panel is drawn at its border. Returns the path; raises ValueError without a layer.
    """
    return write_png(build_deficit_figure(calls, note=note), path)


def build_deficit_figure(calls: Mapping[str, Sequence[Mapping[str, Any]]], *, note: str | None = None) -> Figure:
    """The figure of `deficit_figure`, not yet written."""
    _require(calls)
    figure = new_figure(2.45 * len(ESTIMATORS) + 0.6, 2.6 * len(calls) + 0.9, note)
    grid = figure.subplots(len(calls), len(ESTIMATORS), sharex="row", sharey="row", squeeze=False)
    for row, (axis, layers) in enumerate(calls.items()):
        exact = _joined(layers, EXACT)
        # A single key has no entropy to lose, but an axis needs a length.
        limits = sorted({math.log(max(2, layer["num_keys"])) for layer in layers})
        edges = _edges(exact, limits[-1])
        for name, axes in zip(ESTIMATORS, grid[row], strict=True):
            _density(axes, exact, _joined(layers, name), edges)
            for limit in limits:
                axes.axhline(limit, color=LIMIT_COLOUR, lw=1.0, ls=(0, (4, 3)), zorder=2.5)
            if row == 0:
                axes.set_title(name, fontsize=TEXT_SIZE, loc="left")
            bottom, left = row == len(calls) - 1, name == ESTIMATORS[0]
            dress(axes, "exact D (nats)" if bottom else "", f"{axis}\nestimated D (nats)" if left else "")
    colours = colormaps[DENSITY]
    legend_below(
        figure,
        [
            Line2D([], [], color="black", lw=1.0, label="as softmax has it"),
            Line2D([], [], color=LIMIT_COLOUR, lw=1.0, ls=(0, (4, 3)), label="log N, the largest D there is"),
            Line2D([], [], color=colours(1.0), marker="s", ls="", ms=8, label="many queries"),
            Line2D([], [], color=colours(0.0), marker="s", ls="", ms=8, label="one"),
            Line2D([], [], ls="", label="what is beyond a panel is at its border"),
        ],
    )
    return figure


def theta_figure(heads: Rows, path: str | Path, *, note: str | None = None) -> Path:
    """Theta by layer and head: median and 10 to 90 % of the queries, a panel an axis, softmax's own in black.

    What `taylor_uncentred` has beyond the others is cut off, and a triangle stands for a median that is.
    `heads` are rows with `axis`, `layer`, `head` and `estimators`, by name with `theta` (`p10`, `median`, `p90`).
    Returns the path; raises ValueError without a row.
    """
    return write_png(build_theta_figure(heads, note=note), path)


def build_theta_figure(heads: Rows, *, note: str | None = None) -> Figure:
    """The figure of `theta_figure`, not yet written."""
    _require(heads)
    by_axis = _by_axis(heads)
    widest = max(len(rows) for rows in by_axis.values())
    figure = new_figure(max(7.5, 0.85 * widest + 1.6), 3.4 * len(by_axis) + 0.7, note)
    for axes, (axis, rows) in zip(figure.subplots(len(by_axis), 1, squeeze=False)[:, 0], by_axis.items(), strict=True):
        axes.set_yscale("log")
        axes.set_ylim(*_theta_range(rows))
        for place, name in enumerate(VARYING):
            offset = (place - (len(VARYING) - 1) / 2) * 0.16
            _theta_bars(axes, np.arange(len(rows)) + offset, [row["estimators"][name]["theta"] for row in rows], name)
        for name, theta in CONSTANT.items():
            axes.axhline(theta, color=_colour(name), lw=1.3, ls=(0, (5, 2)), zorder=1.5)
        for first in range(1, len(rows)):
            if rows[first]["layer"] != rows[first - 1]["layer"]:
                axes.axvline(first - 0.5, color="#BBBBBB", lw=0.8)
        dress(axes, "", f"{axis}: theta")
        axes.grid(visible=False, axis="x")
        axes.set_xlim(-0.6, len(rows) - 0.4)
        axes.xaxis.set_major_locator(FixedLocator(list(range(len(rows)))))
        axes.set_xticklabels([f"layer {row['layer']}\nhead {row['head']}" for row in rows], fontsize=TICK_SIZE - 1)
        _plain_log_ticks(axes.yaxis)
    handles = [Line2D([], [], color=_colour(name), lw=4, label=_shown(name)) for name in VARYING]
    handles += [Line2D([], [], color=_colour(n), lw=1.3, ls=(0, (5, 2)), label=n) for n in CONSTANT]
    handles.append(Line2D([], [], color=_colour(CUT_OFF), marker="v", ms=6, ls="", label="median below the panel"))
    legend_below(figure, handles)
    return figure


def error_figure(heads: Rows, path: str | Path, *, note: str | None = None) -> Path:
    """Three panels: output error, L1 distance of the weights and negative weights; a dot a head, a bar their mean.

    `heads` are rows with `axis`, `softmax` (`smallest_error_of_variation`) and `estimators`, by name with
    `output_error_of_variation`, `l1_to_softmax` and `negative_share`. Returns the path; raises ValueError without a
    row.
    """
    return write_png(build_error_figure(heads, note=note), path)


def build_error_figure(heads: Rows, *, note: str | None = None) -> Figure:
    """The figure of `error_figure`, not yet written."""
    _require(heads)
    names = [*ESTIMATORS, EXACT, BEST]
    figure = new_figure(13.0, 4.9, note)
    output, distance, negative = figure.subplots(1, 3, sharey=True)
    output.set_xscale("log")
    distance.set_xscale("log")
    for place, (axis, rows) in enumerate(_by_axis(heads).items()):
        errors = {name: [row["estimators"][name]["output_error_of_variation"] for row in rows] for name in names[:-1]}
        errors[BEST] = [row["softmax"]["smallest_error_of_variation"] for row in rows]
        _dots(output, errors, names, place, axis)
        for axes, key in ((distance, "l1_to_softmax"), (negative, "negative_share")):
            _dots(axes, {n: [row["estimators"][n][key] for row in rows] for n in names[:-1]}, names, place, axis)
    output.axvline(1, color="#777777", lw=1.0, ls=(0, (4, 3)), zorder=1)
    dress(output, "error of the output / its variation around mean(v)", "")
    dress(distance, "L1 distance of the weights to softmax's", "")
    dress(negative, "keys with a negative weight", "")
    negative.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    negative.set_xlim(left=0)
    for axes in (output, distance):
        _plain_log_ticks(axes.xaxis)
    output.invert_yaxis()  # as in the table
    output.set_yticks(range(len(names)), [_shown(name) for name in names])
    output.tick_params(axis="y", labelsize=TEXT_SIZE)
    handles = [
        Line2D([], [], color=colour_of(place), marker="o", ls="", ms=6, label=f"{axis}: a head")
        for place, axis in enumerate(_by_axis(heads))
    ]
    handles += [
        Line2D([], [], color="black", marker="|", ls="", ms=12, mew=2.2, label="mean"),
        Line2D([], [], color="#777777", lw=1.0, ls=(0, (4, 3)), label="error of mean(v) alone"),
    ]
    legend_below(figure, handles)
    return figure


def _density(axes: Axes, exact: NDArray[Any], estimated: NDArray[Any], edges: NDArray[Any]) -> None:
    low, high = edges[0], edges[-1]
    counts, _, _ = np.histogram2d(np.clip(exact, low, high), np.clip(estimated, low, high), bins=(edges, edges))
    shown = np.ma.masked_equal(counts.T, 0)
    axes.pcolormesh(edges, edges, shown, cmap=DENSITY, norm=LogNorm(1, max(2, counts.max())), rasterized=True, zorder=2)
    axes.plot(edges[[0, -1]], edges[[0, -1]], color="black", lw=1.0, zorder=3)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())  # hundreds of them take seconds
    # Either way: half of the queries are nearer than this.
    off = np.exp(np.median(np.abs(np.log(np.maximum(estimated, low) / np.maximum(exact, low)))))
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    style: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "fontsize": NOTE_SIZE - 1, "bbox": box}
    axes.text(0.97, 0.05, f"median error ×{off:.2f}", zorder=4, **style)


def _edges(exact: NDArray[Any], limit: float) -> NDArray[np.float64]:
    """Logarithmic bins from nearly the smallest exact D to a little above log N."""
    low = max(float(np.quantile(exact, 0.001)), SMALLEST_DEFICIT)
    return np.geomspace(min(low, limit / 10), 3 * limit, BINS + 1)


def _theta_bars(axes: Axes, xs: NDArray[Any], thetas: Rows, name: str) -> None:
    low, middle, high = (np.array([theta[key] for theta in thetas]) for key in ("p10", "median", "p90"))
    colour, bottom = _colour(name), axes.get_ylim()[0]
    axes.vlines(xs, low, high, color=colour, lw=5.0 if name == EXACT else 4.0, alpha=0.5)
    inside = middle > bottom
    axes.plot(xs[inside], middle[inside], color=colour, marker="_", ms=9, mew=2.2, ls="", zorder=3)
    if not inside.all():
        ends = np.full((~inside).sum(), bottom * 1.03)
        axes.plot(xs[~inside], ends, color=colour, marker="v", ms=6, ls="", zorder=3, clip_on=False)


def _theta_range(rows: Rows) -> tuple[float, float]:
    shown = [row["estimators"][name]["theta"] for row in rows for name in VARYING if name != CUT_OFF]
    low = min(*CONSTANT.values(), *(theta["p10"] for theta in shown))
    high = max(*CONSTANT.values(), *(theta["p90"] for theta in shown))
    return low / 1.25, high * 1.12


def _dots(
    axes: Axes, values: Mapping[str, Sequence[float | None]], names: Sequence[str], place: int, axis: str
) -> None:
    """A dot for each head and a bar for their mean; axes stand one above the other around an estimator's line."""
    smallest = np.nextafter(0, 1) if axes.get_xscale() == "log" else 0
    for line, name in enumerate(names):
        found = [value for value in values.get(name, ()) if value is not None and value >= smallest]
        if found:
            height = line + 0.34 * (place % 2) - 0.17
            style: dict[str, Any] = {"color": colour_of(place), "ls": ""}
            axes.plot(found, [height] * len(found), marker="o", ms=4.5, alpha=0.45, mew=0, label=axis, **style)
            axes.plot(np.mean(found), height, marker="|", ms=13, mew=2.4, zorder=3, label=f"_{axis}", **style)


def _joined(layers: Sequence[Mapping[str, Any]], name: str) -> NDArray[Any]:
    return np.concatenate([np.asarray(layer["deficits"][name]) for layer in layers])


def _by_axis(heads: Rows) -> dict[str, list[Mapping[str, Any]]]:
    return {axis: [row for row in heads if row["axis"] == axis] for axis in dict.fromkeys(row["axis"] for row in heads)}


def _colour(name: str) -> str:
    return "#000000" if name == EXACT else colour_of(COLOURS.index(name))


def _shown(name: str) -> str:
    return "exact (softmax)" if name == EXACT else name


def _plain_log_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers, as many as have room."""
    low, high = axis.get_view_interval()
    within = next((digits for ratio, digits in TICKS_WITHIN if high / low <= ratio), (1,))
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    axis.set_major_locator(FixedLocator([digit * 10.0**decade for decade in decades for digit in within]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _require(rows: Any) -> None:
    if not rows:
        raise ValueError("an analysis needs at least one layer, got none")
