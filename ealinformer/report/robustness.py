"""Tables and figure of a robustness row: errors of models on perturbed windows and with other attentions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from ealinformer.report.drawing import (
    MODEL_COLOURS,
    MODEL_MARKERS,
    TICK_SIZE,
    colour_of,
    dress,
    height_of,
    label_ends,
    legend_below,
    new_figure,
    write_png,
)
from ealinformer.report.tables import Column, render_table

Row = Mapping[str, Any]

SCORES = (
    Column("MAE", "MAE", ".4f"),
    Column("RMSE", "RMSE", ".4f"),
    Column("MAPE", "MAPE %", ".4f"),
    Column("change", "MAE +%", "+.1f"),
)
MODEL = Column("label", "model")
# Parts of a row beside the perturbed inputs: the column that varies, and what is varied.
SWEEPS = {
    "eps": (Column("eps", "eps", "g"), "other eps on the same weights"),
    "swaps": (Column("attention", "attention"), "other attentions on the same weights"),
}
PANELS_A_ROW = 3
PANEL_WIDTH, PANEL_HEIGHT = 5.2, 3.3
BESIDE = 0.14  # between the models at one attention
TRAINED: dict[str, Any] = {"marker": "o", "ms": 12, "mfc": "none", "mew": 1.4, "ls": ""}
GREY = "#555555"


def robustness_tables(row: Row) -> str:
    """All tables of a row, each calling the series simulated where it is; no trailing newline.

    `MAE +%` compares with the same model on clean inputs, or with the attention that it was trained with.
    """
    tables = []
    if row["perturbed"]:
        places = [list(row["perturbations"]), [one["label"] for one in row["checkpoints"]]]
        # The models side by side at every strength.
        rows = sorted(
            row["perturbed"],
            key=lambda r: (places[0].index(r["perturbation"]), r["strength"], places[1].index(r["label"])),
        )
        clean = {r["label"]: r["MAE"] for r in rows if r["strength"] == 0}
        shown = [{**r, "change": _percent(r["MAE"], clean[r["label"]]), "lost": 100 * r["lost_share"]} for r in rows]
        columns = (Column("perturbation", "inputs"), Column("strength", "strength", "g"), MODEL, *SCORES)
        table = render_table([*columns, Column("lost", "lost %", ".1f")], shown, title=_title(row))
        tables.append("\n".join([table, "", *_notes(row)]))
    for part, (column, what) in SWEEPS.items():
        if row[part]:
            trained = {r["label"]: r["MAE"] for r in row[part] if r["trained"]}
            shown = [
                {**r, "change": _percent(r["MAE"], trained[r["label"]]), "as": "trained" if r["trained"] else ""}
                for r in row[part]
            ]
            table = render_table([MODEL, column, *SCORES, Column("as", "")], shown, title=f"{_title(row)}: {what}")
            tables.append(table)
    return "\n\n".join(tables)


def robustness_figure(row: Row, path: str | Path) -> Path:
    """MAE against strength, a panel for each perturbation, for eps and for other attentions, a line for each model.

    Returns the path; raises ValueError for a row without a measurement.
    """
    return write_png(build_robustness_figure(row), path)


def build_robustness_figure(row: Row) -> Figure:
    """The figure of `robustness_figure`, not yet written."""
    panels = [*row["perturbations"], *(part for part in SWEEPS if row[part])]
    if not panels:
        raise ValueError("the row holds no measurement, expected some in perturbed, eps or swaps")
    labels = [one["label"] for one in row["checkpoints"]]
    columns = min(PANELS_A_ROW, len(panels))
    lines = -(-len(panels) // columns)
    figure = new_figure(PANEL_WIDTH * columns, PANEL_HEIGHT * lines + 0.8, _title(row))
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, panel in zip(grid, panels, strict=False):
        draw = {"eps": _draw_eps, "swaps": _draw_swaps}.get(panel, _draw_perturbation)
        draw(axes, row, panel, labels)
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes in grid[: len(panels)]:
        label_ends(figure, axes)
    if any(part in panels for part in SWEEPS):
        ring = Line2D([], [], color=GREY, **TRAINED, label="as trained")
        legend_below(figure, [ring])
    return figure


def _draw_perturbation(axes: Axes, row: Row, panel: str, labels: Sequence[str]) -> None:
    rows = [r for r in row["perturbed"] if r["perturbation"] == panel]
    for place, label in enumerate(labels):
        own = sorted((r for r in rows if r["label"] == label), key=lambda r: r["strength"])
        axes.plot([r["strength"] for r in own], _numbers([r["MAE"] for r in own]), label=label, **_style(place))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    dress(axes, row["perturbations"][panel]["axis"], f"MAE ({row['unit']})")


def _draw_eps(axes: Axes, row: Row, panel: str, labels: Sequence[str]) -> None:
    axes.set_xscale("log")
    for place, label in enumerate(labels):
        own = sorted((r for r in row["eps"] if r["label"] == label), key=lambda r: r["eps"])
        if own:
            _draw_changes(axes, own, [r["eps"] for r in own], label, _style(place))
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    dress(axes, "eps added to theta, on the same weights", "change of MAE (%)")


def _draw_swaps(axes: Axes, row: Row, panel: str, labels: Sequence[str]) -> None:
    """Points without lines: attentions have no order."""
    names = list(dict.fromkeys(r["attention"] for r in row["swaps"]))
    for place, label in enumerate(labels):
        own = sorted((r for r in row["swaps"] if r["label"] == label), key=lambda r: names.index(r["attention"]))
        if own:
            aside = BESIDE * (place - (len(labels) - 1) / 2)
            spots = [names.index(r["attention"]) + aside for r in own]
            _draw_changes(axes, own, spots, label, {**_style(place), "ls": "", "ms": 7})
    axes.set_xticks(range(len(names)), [name.replace("_", "\n") for name in names])
    axes.set_xlim(-0.5, len(names) - 0.5)
    dress(axes, "attention, on the same weights", "change of MAE (%)")
    axes.tick_params(axis="x", labelsize=TICK_SIZE - 1)


def _draw_changes(
    axes: Axes, rows: Sequence[Row], spots: Sequence[float], label: str, style: Mapping[str, Any]
) -> None:
    """Against the error as trained, which has a ring around it."""
    (trained,) = [r["MAE"] for r in rows if r["trained"]]
    changes = [_percent(r["MAE"], trained) for r in rows]
    axes.plot(spots, _numbers(changes), label=label, **style)
    ringed = [spot for spot, r in zip(spots, rows, strict=True) if r["trained"]]
    axes.plot(ringed, [0.0], color=style["color"], zorder=style["zorder"] + 1, label="_trained", **TRAINED)


def _style(place: int) -> dict[str, Any]:
    """Colours repeat; lines that share one differ in marker. Those below are broader, so that each shows its edge."""
    marker = MODEL_MARKERS[(place + place // len(MODEL_COLOURS)) % len(MODEL_MARKERS)]
    style: dict[str, Any] = {"color": colour_of(place), "marker": marker, "zorder": height_of(place)}
    return {**style, "lw": 1.6 + 1.1 * min(place, 3), "ms": 5, "mec": "white", "mew": 0.5}


def _numbers(values: Sequence[float | None]) -> list[float]:
    """None becomes NaN, which matplotlib draws as a gap."""
    return [np.nan if value is None else value for value in values]


def _percent(error: float | None, reference: float | None) -> float | None:
    return 100 * (error / reference - 1) if error is not None and reference else None


def _title(row: Row) -> str:
    simulated = ", SIMULATED series" if row["simulated"] else ""
    return (
        f"{row['dataset']}{simulated}: {row['split']} part, {row['windows']} windows, average over {row['output_len']} "
        "horizons, clean targets"
    )


def _notes(row: Row) -> list[str]:
    """What the words of the first table mean."""
    notes = [f"{name}: {one['meaning']}" for name, one in row["perturbations"].items()]
    held = " or held at 0" if row["held_at_zero"] else ""
    return [
        *notes,
        f"strength: in standard deviations of the training part, {row['training_std']:.2f} {row['unit']}; of missing "
        "and outage, the share",
        f"lost: readings of the inputs that the perturbation made missing{held}",
    ]
