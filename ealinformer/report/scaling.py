"""Time and memory against N in one log-log figure, in which a line ends where memory or patience did."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ealinformer.report.drawing import (
    LABEL_SIZE,
    MODEL_COLOURS,
    MODEL_MARKERS,
    TEXT_SIZE,
    TICK_SIZE,
    dress,
    height_of,
    label_ends,
    legend_below,
    new_figure,
    write_png,
)

MIB = 1024**2
COLOURS = (*MODEL_COLOURS, "#000000")
END_OF_MEMORY: dict[str, Any] = {"marker": "X", "ms": 11, "mec": "black", "mew": 0.9, "ls": ""}
END_OF_TIME: dict[str, Any] = {"marker": "|", "ms": 17, "mew": 2.4, "ls": ""}
LIMIT_COLOUR = "#555555"
# Room of a name at the end of a line, in pixels.
NAME_WIDTH, NAME_HEIGHT = 160, 26
# Lengths nearer than this on the axis would write over each other.
LEAST_TICK_RATIO = 1.7


def scaling_figure(
    rows: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    memory_limit: int | None = None,
    fits: Sequence[Mapping[str, Any]] | None = None,
    note: str | None = None,
) -> Path:
    """A row of panels for every pass (forward, forward and backward): median time and peak memory against N.

    `rows` have `attention`, `pass`, `length`, `status`, `seconds` and `memory_bytes`, the last two None where nothing
    was measured; all are of one batch, head size and so on. `memory_limit`: bytes, drawn across the memory.
    `fits`: of whole models, have `attention`, `pass`, `time_exponent` and `memory_exponent`, which stand behind the
    names. Returns the path; raises ValueError without a single measurement.
    """
    return write_png(build_scaling_figure(rows, memory_limit=memory_limit, fits=fits, note=note), path)


def build_scaling_figure(
    rows: Sequence[Mapping[str, Any]],
    *,
    memory_limit: int | None = None,
    fits: Sequence[Mapping[str, Any]] | None = None,
    note: str | None = None,
) -> Figure:
    """The figure of `scaling_figure`, not yet written."""
    if not any(row["memory_bytes"] for row in rows):
        raise ValueError(f"nothing was measured in {len(rows)} rows, expected at least one with memory_bytes")
    names = list(dict.fromkeys(row["attention"] for row in rows))
    passes = list(dict.fromkeys(row["pass"] for row in rows))
    figure = new_figure(13.0 if fits is None else 15.0, max(4.6, 0.27 * len(names) + 1.6) * len(passes), note)
    grid = figure.subplots(len(passes), 2, squeeze=False)
    for kind, (time_axes, memory_axes) in zip(passes, grid, strict=True):
        shown = [row for row in rows if row["pass"] == kind]
        over = "peak memory (MiB)" if fits is not None else "peak memory over q, k, v (MiB)"
        _panel(time_axes, shown, names, "seconds", 1e3, "median time of a pass (ms)")
        _panel(memory_axes, shown, names, "memory_bytes", 1 / MIB, over)
        for axes, exponent in ((time_axes, "time_exponent"), (memory_axes, "memory_exponent")):
            _add_exponents(axes, [fit for fit in fits or () if fit["pass"] == kind], exponent)
        if memory_limit is not None:
            _draw_limit(memory_axes, memory_limit / MIB)
        for axes in (time_axes, memory_axes):
            axes.set_title(kind, fontsize=TEXT_SIZE, loc="left")
            _tick_lengths(axes, sorted({row["length"] for row in shown}))
            if fits is None:  # whole models are few, and their names long
                _name_early_ends(axes)
            label_ends(figure, axes)
    legend_below(figure, _ends_legend({row["status"] for row in rows}))
    return figure


def _panel(
    axes: Axes, rows: Sequence[Mapping[str, Any]], names: Sequence[str], key: str, factor: float, label: str
) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for place, name in enumerate(names):
        own = sorted((row for row in rows if row["attention"] == name), key=lambda row: row["length"])
        points = [(row["length"], row[key] * factor) for row in own if row[key]]  # 0 bytes have no logarithm
        if not points:
            continue
        lengths, values = zip(*points, strict=True)
        axes.plot(lengths, values, label=name, **_style(place))
        end = _end_mark({row["status"] for row in own})
        if end is not None:
            style = {**_style(place), "mec": _style(place)["color"], **end, "zorder": height_of(place) + 1}
            axes.plot(lengths[-1:], values[-1:], label="_end", **style)
    dress(axes, "number of sensors N", label)


def _add_exponents(axes: Axes, fits: Sequence[Mapping[str, Any]], key: str) -> None:
    known = {fit["attention"]: fit[key] for fit in fits}
    for line in axes.get_lines():
        if known.get(line.get_label()) is not None:
            line.set_label(f"{line.get_label()}: $N^{{{known[line.get_label()]:.2f}}}$")


def _name_early_ends(axes: Axes) -> None:
    """Name lines that end early at their ends, as far as names have room: from the margin, leaders cross all others."""
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    last = max(np.max(line.get_xdata()) for line in lines)
    named: list[tuple[float, float]] = []
    for line in lines:
        end = (float(np.asarray(line.get_xdata())[-1]), float(np.asarray(line.get_ydata())[-1]))
        x, y = axes.transData.transform(end)
        if end[0] == last or any(abs(x - a) < NAME_WIDTH and abs(y - b) < NAME_HEIGHT for a, b in named):
            continue
        named.append((x, y))
        style: dict[str, Any] = {"color": line.get_color(), "fontsize": LABEL_SIZE, "ha": "right", "va": "bottom"}
        axes.annotate(str(line.get_label()), xy=end, xytext=(-8, 3), textcoords="offset points", zorder=5, **style)
        line.set_label("_" + str(line.get_label()))  # the margin names the others


def _style(place: int) -> dict[str, Any]:
    """Colours repeat; lines that share one differ in marker and dash."""
    again = place // len(COLOURS)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MODEL_MARKERS[(place + again) % len(MODEL_MARKERS)],
        "ls": ("-", "--", ":")[again % 3],
        "lw": 1.8,
        "ms": 5,
        "mec": "white",
        "mew": 0.5,
        "zorder": height_of(place),
    }


def _end_mark(statuses: set[str]) -> dict[str, Any] | None:
    if "out of memory" in statuses:
        return END_OF_MEMORY
    return END_OF_TIME if "too slow" in statuses else None


def _draw_limit(axes: Axes, mib: float) -> None:
    low, high = axes.get_ylim()
    axes.axhline(mib, color=LIMIT_COLOUR, lw=1.0, ls=(0, (4, 3)), zorder=1, label="_limit")
    axes.set_ylim(low, max(high, 2 * mib))
    axes.annotate(
        f"limit {mib / 1024:.3g} GiB",
        xy=(0.01, mib),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        fontsize=LABEL_SIZE - 1,
        color=LIMIT_COLOUR,
    )


def _tick_lengths(axes: Axes, lengths: Sequence[int]) -> None:
    """Ticks at what was measured, from the largest down, as far as their labels have room."""
    ticks: list[int] = []
    for length in reversed(lengths):
        if not ticks or ticks[-1] / length >= LEAST_TICK_RATIO:
            ticks.append(length)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value):,}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: np.format_float_positional(value, trim="-")))
    axes.tick_params(axis="x", labelsize=TICK_SIZE - 1, rotation=30)


def _ends_legend(statuses: set[str]) -> list[Line2D]:
    grey: dict[str, Any] = {"color": LIMIT_COLOUR}
    handles = [Line2D([], [], **grey, lw=1.8, marker="o", ms=5, label="measured; names stand where lines end")]
    if "out of memory" in statuses:
        handles.append(Line2D([], [], **grey, **END_OF_MEMORY, label="the next N ran out of memory"))
    if "too slow" in statuses:
        handles.append(Line2D([], [], **grey, **END_OF_TIME, label="the next N would take too long"))
    return handles
