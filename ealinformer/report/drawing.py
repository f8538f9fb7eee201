"""What all figures share: canvas, colours, axes, and names at the ends of curves. No pyplot, no global state.

Colours are Okabe and Ito's, safe for colour-blind readers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ealinformer.files import replaced

DPI = 120
MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MODEL_MARKERS = ("o", "s", "^", "D", "v", "P")
TEXT_SIZE, LABEL_SIZE, NOTE_SIZE, TICK_SIZE = 11, 10.5, 10.5, 9.5


def new_figure(width: float, height: float, note: str | None) -> Figure:
    """A canvas of its own instead of pyplot's: nothing outside the figure changes, and no display is needed."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if note:
        figure.suptitle(note, x=0.01, ha="left", fontsize=NOTE_SIZE, style="italic", color="#333333")
    return figure


def write_png(figure: Figure, path: str | Path) -> Path:
    """Write it whole or not at all, and make its folder; returns the path. ValueError unless it ends in .png."""
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ValueError(f"{target}: figures are written as PNG, expected a name that ends in .png")
    target.parent.mkdir(parents=True, exist_ok=True)
    with replaced(target) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI)
    return target


def dress(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Labels with units, a pale grid behind the curves, no frame above and on the right."""
    axes.set_xlabel(xlabel, fontsize=TEXT_SIZE)
    axes.set_ylabel(ylabel, fontsize=TEXT_SIZE)
    axes.tick_params(labelsize=TICK_SIZE)
    axes.grid(color="#E6E6E6", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """One legend for all panels, below them."""
    columns = min(len(handles), int(figure.get_figwidth() / 1.6))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=TEXT_SIZE - 1)


def colour_of(place: int) -> str:
    """The colour of the model at a place; they repeat, where another mark has to tell models apart."""
    return MODEL_COLOURS[place % len(MODEL_COLOURS)]


def height_of(place: int) -> float:
    """Drawing order: the first model named is the one to be seen, so it lies on top."""
    return 3.0 - 0.01 * place


def label_ends(figure: Figure, axes: Axes) -> None:
    """Name every curve beside its last value, pushed apart where two names would cover each other.

    Works on linear and logarithmic axes. Lines whose label begins with `_` are matplotlib's way to have no name.
    """
    axes.set_ylim(axes.get_ylim())  # the labels must not move the axis that they are placed on
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = []
    for line in axes.get_lines():
        xs, ys = (np.asarray(values, dtype=np.float64) for values in line.get_data())
        measured = np.flatnonzero(np.isfinite(ys))
        if len(measured) and not str(line.get_label()).startswith("_"):
            end = (float(xs[measured[-1]]), float(ys[measured[-1]]))
            ends.append((float(to_axes.transform(end)[1]), end, line))
    ends.sort(key=lambda end: end[0])
    grid = axes.get_gridspec()
    # Axis height, about: titles and ticks take the rest.
    points = 72 * figure.get_figheight() * 0.8 / (grid.nrows if grid is not None else 1)
    heights = spread([height for height, _, _ in ends], gap=1.35 * LABEL_SIZE / points)
    for (_, end, line), height in zip(ends, heights, strict=True):
        leader = {
            "arrowstyle": "-",
            "color": line.get_color(),
            "lw": 0.6,
            "relpos": (0, 0.5),
            "shrinkA": 1,
            "shrinkB": 4,
        }
        axes.annotate(
            str(line.get_label()),
            xy=end,
            xytext=(1.03, height),
            textcoords="axes fraction",
            color=line.get_color(),
            fontsize=LABEL_SIZE,
            va="center",
            arrowprops=leader,
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move rising `heights` (0 to 1) as little as needed for neighbours to stand `gap` apart.

    They stay between 0 and 1 where that has room for them all. Neighbours that meet form one block
    around the mean of what they want, and blocks merge until none meet.
    """
    blocks: list[list[float]] = []  # each holds what its members want, less their offset in the block
    for place, height in enumerate(heights):
        blocks.append([height - place * gap])
        while len(blocks) > 1 and np.mean(blocks[-2]) >= np.mean(blocks[-1]):
            met = blocks.pop()
            blocks[-1] += met
    highest = 1 - (len(heights) - 1) * gap
    wanted = [float(np.mean(block)) for block in blocks for _ in block]
    return [max(min(base, highest), 0.0) + place * gap for place, base in enumerate(wanted)]
