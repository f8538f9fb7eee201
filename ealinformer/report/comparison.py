"""Tables of models that were trained side by side: errors, seconds, memory, and what became of each of them.

A row is what `read_row` of a run says: model, seed, errors, seconds, memory, config, machine. Rows of one model that
differ in their seeds alone become one line with their mean and, behind ±, their standard deviation.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ealinformer.report.tables import Column, render_table

ERRORS = ("MAE", "RMSE", "MAPE")
HEADINGS = {"MAE": "MAE", "RMSE": "RMSE", "MAPE": "MAPE %"}
ERROR_COLUMNS = tuple(Column(error, HEADINGS[error], ".2f") for error in ERRORS)
LEGEND = "** best, * second best"
SHORT = 100  # characters of a reason in a table; the JSON file has all of it

Row = Mapping[str, Any]

_COSTS = ("parameters", "seconds_per_epoch", "peak_memory_mib")
_COLUMNS = (
    Column("model", "model"),
    *ERROR_COLUMNS,
    Column("parameters", "parameters", ",.0f"),
    Column("seconds_per_epoch", "s/epoch", ",.1f"),
    Column("peak_memory_mib", "peak MiB", ",.0f"),
    Column("epochs", "epochs", "s"),
    Column("recipe", "recipe"),
)
_NOTE = Column("note", "note")


def comparison_page(rows: Sequence[Row], failures: Sequence[Row], *, models: Sequence[str], title: str) -> str:
    """A line for each of `models`, in their order, then what the marks mean and where it was measured.

    `failures` have `model`, `seed` and `reason`: a model all of whose runs failed has that in place of numbers.
    """
    found = {one["model"]: one for one in summaries(rows)}
    lines: list[dict[str, Any]] = []
    for model in models:
        line = found.get(model, {"model": model})
        failed = [f"seed {one['seed']}: {one['reason']}" for one in failures if one["model"] == model]
        said = "; ".join([*([line["note"]] if line.get("note") else []), *failed])
        lines.append({**line, "note": (said if len(said) <= SHORT else f"{said[: SHORT - 4]} ...") or None})
    for error in ERRORS:
        texts = [with_deviation(line, error) for line in lines]
        marks = best_marks([line.get(error) for line in lines])
        for line, text, mark in zip(lines, texts, marks, strict=True):
            line[error] = None if text is None else f"{mark}{text}"
    columns = [*_COLUMNS, _NOTE] if any(line["note"] for line in lines) else _COLUMNS
    below = [*([LEGEND] if len(found) > 1 else []), *measured_on(rows)]
    return "\n".join([render_table(columns, lines, title=title), *([""] if below else []), *below])


def summaries(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One for each model, in the order in which models come: see `summary_of`."""
    by_model: dict[str, list[Row]] = {}
    for row in rows:
        by_model.setdefault(row["model"], []).append(row)
    return [summary_of(own) for own in by_model.values()]


def summary_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Means over the rows of one model, None where one of them has no number, and what a reader must know of them."""
    first = rows[0]
    values = {error: [row["average"][error] for row in rows] for error in ERRORS}
    values |= {cost: [row.get(cost) for row in rows] for cost in _COSTS}
    epochs = sorted({row["epochs"] for row in rows})
    incomplete = sorted({str(row["stopped_by"]) for row in rows if not row["complete"]})
    seeds = {row["seed"] for row in rows}
    said = [f"{len(rows)} {'seeds' if len(seeds) == len(rows) else 'runs'}"] if len(rows) > 1 else []
    said += [f"INCOMPLETE: {', '.join(incomplete)}"] if incomplete else []
    said += ["resumed with other code or on another machine"] if any("resumed" in row for row in rows) else []
    return {
        "model": first["model"],
        **{key: _mean(found) for key, found in values.items()},
        **{f"{error}_deviation": _deviation(values[error]) for error in ERRORS},
        "epochs": str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]}-{epochs[-1]}",
        "recipe": first["recipe"],
        "note": ", ".join(said) or None,
    }


def best_marks(values: Sequence[float | None]) -> list[str]:
    """`**` for the lowest value and `*` for the second lowest, as printed: what prints alike shares a mark.

    Nothing is marked unless there are two to compare.
    """
    printed = [None if value is None else float(format(value, ".2f")) for value in values]
    known = [value for value in printed if value is not None]
    ranks = dict(zip(sorted(set(known)), ("**", "*"), strict=False)) if len(known) > 1 else {}
    return ["" if value is None else ranks.get(value, "") for value in printed]


def with_deviation(summary: Mapping[str, Any], error: str) -> str | None:
    """`19.59`, or `19.59 ± 0.03` where there are several seeds."""
    value, deviation = summary.get(error), summary.get(f"{error}_deviation")
    if value is None:
        return None
    return f"{value:.2f}" if deviation is None else f"{value:.2f} ± {deviation:.2f}"


def measured_on(rows: Sequence[Row]) -> list[str]:
    """Where seconds and memory were measured: a line, or one for each place and that they do not compare."""
    models_at: dict[str, list[str]] = {}
    for row in rows:
        models_at.setdefault(_place(row), []).append(row["model"])
    if len(models_at) < 2:
        return [f"measured on {place}" for place in models_at]
    return [
        "measured in different places: seconds and MiB do NOT compare",
        *(f"  {', '.join(dict.fromkeys(models))}: {place}" for place, models in models_at.items()),
    ]


def _place(row: Row) -> str:
    machine = row["machine"]
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)} on {machine['cores']} cores"
    devices = ", ".join(machine["gpus"]) or "no GPU"
    return f"{machine['cpu']}, {threads}, {devices}; torch {row['versions']['torch']}; MiB are {row['peak_memory_of']}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def _deviation(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if 1 < len(known) == len(values) else None
