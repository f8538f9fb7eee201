"""Figures of what a train step of whole models costs: its phases, and how near it comes to the machine's ceilings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ealinformer.report.drawing import (
    LABEL_SIZE,
    MODEL_COLOURS,
    MODEL_MARKERS,
    TEXT_SIZE,
    TICK_SIZE,
    dress,
    legend_below,
    new_figure,
    write_png,
)

PHASES = ("data", "forward", "backward", "optimizer")
PHASE_COLOURS = dict(zip(PHASES, ("#000000", "#56B4E9", "#0072B2", "#E69F00"), strict=True))
COLOURS = (*MODEL_COLOURS, "#000000", "#8C8C8C")
CEILING_COLOUR = "#555555"
GIGA = 1e9


def phases_figure(content: Mapping[str, Any], path: str | Path, *, note: str | None = None) -> Path:
    """A panel of bars for every data set's shape: median seconds of a step's phases, one bar a model.

    `content["rows"]` have `dataset_shape`, `num_sensors`, `model`, `status`, `seconds`, `ratio` and the seconds of the
    phases. Returns the path; raises ValueError without a single measurement.
    """
    return write_png(build_phases_figure(content["rows"], note=note), path)


def build_phases_figure(rows: Sequence[Mapping[str, Any]], *, note: str | None = None) -> Figure:
    """The figure of `phases_figure`, not yet written."""
    _require_seconds(rows)
    shapes = list(dict.fromkeys(row["dataset_shape"] for row in rows))
    longest = max(sum(row["dataset_shape"] == shape for row in rows) for shape in shapes)
    figure = new_figure(3.0 + 4.0 * len(shapes), 1.6 + 0.36 * longest, note)
    panels = figure.subplots(1, len(shapes), squeeze=False)[0]
    for place, (shape, axes) in enumerate(zip(shapes, panels, strict=True)):
        shown = [row for row in rows if row["dataset_shape"] == shape]
        _bars(axes, shown)
        dress(axes, "seconds of a step", "")
        axes.grid(visible=False, axis="y")
        axes.set_title(f"{shape}, {shown[0]['num_sensors']:,} sensors", fontsize=TEXT_SIZE, loc="left")
        axes.set_yticks(range(len(shown)), [row["model"] if place == 0 else "" for row in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)  # also where a row has no bar
    legend_below(figure, [Patch(color=colour, label=phase) for phase, colour in PHASE_COLOURS.items()])
    return figure


def roofline_figure(content: Mapping[str, Any], path: str | Path, *, note: str | None = None) -> Path:
    """FLOP/s reached against FLOP per byte under the measured ceilings: a dot for every model at every shape.

    `content` has `ceilings` (`flops_per_second`, `bytes_per_second`) and `rows` with `dataset_shape`, `model`,
    `seconds`, `flops` and `bytes`. Returns the path; raises ValueError without a single measurement.
    """
    return write_png(build_roofline_figure(content["rows"], content["ceilings"], note=note), path)


def build_roofline_figure(
    rows: Sequence[Mapping[str, Any]], ceilings: Mapping[str, float], *, note: str | None = None
) -> Figure:
    """The figure of `roofline_figure`, not yet written."""
    _require_seconds(rows)
    shown = [row for row in rows if row["seconds"] and row["flops"]]
    models = list(dict.fromkeys(row["model"] for row in shown))
    shapes = list(dict.fromkeys(row["dataset_shape"] for row in shown))
    figure = new_figure(9.5, 5.8, note)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_yscale("log")
    for row in shown:
        place = models.index(row["model"])
        axes.plot(
            row["flops"] / row["bytes"],
            row["flops"] / row["seconds"] / GIGA,
            color=COLOURS[place % len(COLOURS)],
            marker=MODEL_MARKERS[shapes.index(row["dataset_shape"]) % len(MODEL_MARKERS)],
            ls="",
            ms=8,
            mec="white",
            mew=0.6,
            zorder=3,
        )
    _draw_ceilings(axes, [row["flops"] / row["bytes"] for row in shown], ceilings)
    dress(axes, "FLOP per byte that operators read and write", "GFLOP/s")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: np.format_float_positional(value, trim="-")))
    handles = [Line2D([], [], color=COLOURS[i % len(COLOURS)], lw=4, label=name) for i, name in enumerate(models)]
    grey: dict[str, Any] = {"color": CEILING_COLOUR, "ls": "", "ms": 8}
    handles += [
        Line2D([], [], **grey, marker=MODEL_MARKERS[i % len(MODEL_MARKERS)], label=f"{name}'s shape")
        for i, name in enumerate(shapes)
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=LABEL_SIZE)
    return figure


def _bars(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    longest = max(row["seconds"] or 0 for row in rows) or 1
    for place, row in enumerate(rows):
        if row["seconds"] is None:
            axes.text(0.01 * longest, place, row["status"], va="center", fontsize=TICK_SIZE, style="italic")
            continue
        left = 0.0
        for phase, colour in PHASE_COLOURS.items():
            width = row[f"{phase}_seconds"]
            axes.barh(place, width, left=left, height=0.72, color=colour)
            left += width
        ratio = "" if row["ratio"] is None else f"  ({row['ratio']:.2f})"
        axes.text(left + 0.01 * longest, place, f"{row['seconds']:.2f} s{ratio}", va="center", fontsize=TICK_SIZE)
    axes.set_xlim(0, 1.35 * longest)


def _draw_ceilings(axes: Axes, intensities: Sequence[float], ceilings: Mapping[str, float]) -> None:
    peak, rate = ceilings["flops_per_second"], ceilings["bytes_per_second"]
    ridge = peak / rate
    low, high = min(*intensities, ridge) / 2, max(*intensities, ridge) * 2
    style: dict[str, Any] = {"color": CEILING_COLOUR, "lw": 1.6, "zorder": 2}
    axes.plot([low, ridge, high], [low * rate / GIGA, peak / GIGA, peak / GIGA], **style)
    text: dict[str, Any] = {"fontsize": LABEL_SIZE, "color": CEILING_COLOUR, "textcoords": "offset points"}
    axes.annotate(f"large product: {peak / GIGA:,.0f} GFLOP/s", (high, peak / GIGA), (0, 5), ha="right", **text)
    middle = (low * ridge) ** 0.5
    axes.annotate(f"large copy: {rate / GIGA:,.0f} GB/s", (middle, middle * rate / GIGA), (-8, 4), ha="right", **text)
    axes.set_xlim(low / 3, high)
    axes.set_ylim(top=1.6 * peak / GIGA)


def _require_seconds(rows: Sequence[Mapping[str, Any]]) -> None:
    if not any(row["seconds"] for row in rows):
        raise ValueError(f"nothing was timed in {len(rows)} rows, expected at least one with seconds")
