"""Error of models against the seconds of an epoch, memory as the size of the point: what accuracy costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from ealinformer.report.comparison import summaries
from ealinformer.report.drawing import LABEL_SIZE, colour_of, dress, legend_below, new_figure, write_png

SMALLEST, LARGEST = 5.0, 22.0  # diameters of points, in points
LEGEND_COLOUR = "#8C8C8C"
# Where a name may stand beside its point: alignments, and the directions that it is moved away in.
PLACES: tuple[tuple[str, str, int, int], ...] = (
    ("left", "center", 1, 0),
    ("right", "center", -1, 0),
    ("center", "bottom", 0, 1),
    ("center", "top", 0, -1),
    ("left", "bottom", 1, 1),
    ("left", "top", 1, -1),
    ("right", "bottom", -1, 1),
    ("right", "top", -1, -1),
)


def comparison_figure(
    rows: Sequence[Mapping[str, Any]], path: str | Path, *, unit: str, note: str | None = None
) -> Path:
    """A point for every model: mean MAE over its seeds against seconds per epoch on a logarithmic axis.

    `rows` are those of `comparison_page`; what has no MAE or no seconds is left out, and of unknown memory a point is
    the smallest. `unit` is that of the MAE. Returns the path; raises ValueError without a single point.
    """
    return write_png(build_comparison_figure(rows, unit=unit, note=note), path)


def build_comparison_figure(rows: Sequence[Mapping[str, Any]], *, unit: str, note: str | None = None) -> Figure:
    """The figure of `comparison_figure`, not yet written."""
    shown = drawable(rows)
    if not shown:
        raise ValueError(f"nothing to draw in {len(rows)} rows, expected one with MAE and seconds_per_epoch")
    figure = new_figure(8.4, 5.6, note)
    axes = figure.subplots()
    axes.set_xscale("log")
    most = max(one["peak_memory_mib"] or 0 for one in shown)
    for place, one in enumerate(shown):
        axes.plot(
            one["seconds_per_epoch"],
            one["MAE"],
            ls="",
            marker="o",
            ms=_diameter(one["peak_memory_mib"], most),
            color=colour_of(place),
            mec="white",
            mew=0.8,
            alpha=0.9,
            zorder=3,
            label=one["model"],
        )
    dress(axes, "seconds per epoch", f"MAE ({unit})")
    axes.margins(x=0.2, y=0.15)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: np.format_float_positional(value, trim="-")))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if most:
        legend_below(figure, _sizes(most))
    _name_points(figure, axes, shown, most)
    return figure


def drawable(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The summaries that have a point: those with a MAE and seconds per epoch."""
    return [one for one in summaries(rows) if one["MAE"] is not None and one["seconds_per_epoch"]]


def _diameter(mib: float | None, most: float) -> float:
    """The area of a point is in proportion to its memory, down to a size that can still be seen."""
    return max(SMALLEST, LARGEST * ((mib or 0) / most) ** 0.5) if most else SMALLEST


def _sizes(most: float) -> list[Line2D]:
    grey: dict[str, Any] = {"color": LEGEND_COLOUR, "ls": "", "marker": "o", "mec": "white"}
    return [
        Line2D([], [], ms=_diameter(share * most, most), label=f"peak memory {share * most:,.0f} MiB", **grey)
        for share in (1, 1 / 4)
    ]


def _name_points(figure: Figure, axes: Axes, shown: Sequence[Mapping[str, Any]], most: float) -> None:
    """Name each point where its name covers least of what is drawn already, the points themselves first."""
    figure.draw_without_rendering()  # the layout decides where points lie in pixels
    points = [axes.transData.transform((one["seconds_per_epoch"], one["MAE"])) for one in shown]
    radii = [_diameter(one["peak_memory_mib"], most) / 2 for one in shown]
    pixel = figure.dpi / 72
    taken = [Bbox([point - r * pixel, point + r * pixel]) for point, r in zip(points, radii, strict=True)]
    frame = axes.get_window_extent()
    for place, one in enumerate(shown):
        tried = []
        for horizontal, vertical, right, up in PLACES:
            away = (radii[place] + 3) / (1 if 0 in (right, up) else 2**0.5)
            name = axes.annotate(
                one["model"],
                xy=(one["seconds_per_epoch"], one["MAE"]),
                xytext=(away * right, away * up),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=LABEL_SIZE,
                color=colour_of(place),
            )
            tried.append((_covered(name, taken, frame), name))
        best = min(tried, key=lambda one: one[0])[1]  # of equals the first
        for _, name in tried:
            if name is not best:
                name.remove()
        taken.append(best.get_window_extent())


def _covered(name: Annotation, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Square pixels that a name would cover of others, and of what is outside the axes."""
    box = name.get_window_extent()
    inside = Bbox.intersection(box, frame)
    outside = box.width * box.height - (0 if inside is None else inside.width * inside.height)
    met = [Bbox.intersection(box, other) for other in taken]
    return outside + sum(one.width * one.height for one in met if one is not None)
