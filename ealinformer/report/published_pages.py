"""Pages of published results: all models at a glance, beside what was measured here, and source by source."""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ealinformer.report.comparison import (
    ERROR_COLUMNS,
    ERRORS,
    HEADINGS,
    LEGEND,
    Row,
    best_marks,
    summary_of,
    with_deviation,
)
from ealinformer.report.published import HEADLINE_SOURCE, Collection, Published, headline, read_published
from ealinformer.report.tables import Column, render_table

WIDTH = 120

_BESIDE_COLUMNS = (
    Column("model", "model"),
    *ERROR_COLUMNS,
    Column("source", "source"),
    *(Column(f"our_{error}", f"our {HEADINGS[error]}", ".2f") for error in ERRORS),
    Column("difference", "MAE: our - their", "+.2f"),
    Column("run", "our run"),
)
_SOURCE_COLUMNS = (
    Column("model", "model"),
    Column("horizon", "horizon"),
    *ERROR_COLUMNS,
    Column("kind", "kind"),
    Column("source", "source"),
    Column("note", "note"),
)


def overview_page(datasets: Sequence[str], *, models: Sequence[str]) -> str:
    """The headlines of `models` on data sets: a table for each error.

    InputError as in `read_published`, and so in the other pages.
    """
    collection = read_published()
    found = {model: {dataset: headline(model, dataset) for dataset in datasets} for model in models}
    tables = []
    for error in ERRORS:
        lines: list[dict[str, Any]] = [{"model": model} for model in found]
        for dataset in datasets:
            cells = [found[line["model"]][dataset] for line in lines]
            values = [None if one is None else one.errors[error] for one in cells]
            for line, value, mark in zip(lines, values, best_marks(values), strict=True):
                line[dataset] = None if value is None else f"{mark}{value:.2f}"
        columns = [Column("model", "model"), *(Column(dataset, dataset, ".2f") for dataset in datasets)]
        tables.append(render_table(columns, lines, title=f"published {HEADINGS[error]}, average over 12 horizons"))
    known = [(model, dataset, one) for model, sets in found.items() for dataset, one in sets.items() if one is not None]
    elsewhere = [
        f"{model} on {dataset} {_cited(one, collection)}"
        for model, dataset, one in known
        if one.source != HEADLINE_SOURCE
    ]
    origin = [f"MAE and RMSE are of {HEADLINE_SOURCE} but for {', '.join(elsewhere)}"] if elsewhere else []
    marks = "\n".join([LEGEND, *origin])
    return "\n\n".join([*tables, marks, _legend(collection, [one for _, _, one in known])])


def beside_page(dataset: str, rows: Sequence[Row], *, models: Sequence[str], unit: str) -> str:
    """The headlines of `models` on a data set, and beside them `rows`: runs on its test part, 12 steps in and out.

    What a row's "changed" says stands behind its recipe. Runs of a model in different settings have a line each.
    """
    collection = read_published()
    lines: list[dict[str, Any]] = []
    used: list[Published] = []
    for model in models:
        known = headline(model, dataset)
        theirs: dict[str, Any] = {"model": model, "source": "not published"}
        if known is not None:
            used.append(known)
            theirs |= {**known.errors, "source": _cited(known, collection)}
        elif collection.results.get(model, {}).get(dataset):
            theirs["source"] = "single horizons alone"
        for ours in _variants([row for row in rows if row["model"] == model]) or [{}]:
            measured = {f"our_{error}": with_deviation(ours, error) for error in ERRORS}
            comparable = known is not None and ours.get("MAE") is not None
            difference = ours["MAE"] - theirs["MAE"] if comparable else None
            lines.append({**theirs, **measured, "difference": difference, "run": ours.get("run")})
    title = f"{dataset} ({unit}), average over 12 horizons: published, and measured here"
    return "\n\n".join([render_table(_BESIDE_COLUMNS, lines, title=title), _legend(collection, used)])


def sources_page(dataset: str, *, models: Sequence[str], unit: str) -> str:
    """Every published number of `models` on a data set, with its source."""
    collection = read_published()
    found = [(model, one) for model in models for one in collection.results.get(model, {}).get(dataset, ())]
    lines = [
        {
            "model": model,
            "horizon": "1-12" if one.horizon is None else str(one.horizon),
            **one.errors,
            "kind": one.kind if one.confidence == "seen" else f"{one.kind}, second hand",
            "source": _cited(one, collection),
            "note": _origin(one),
        }
        for model, one in found
    ]
    title = f"{dataset} ({unit}): all that is published, by source"
    legend = _legend(collection, [one for _, one in found])
    return "\n\n".join([render_table(_SOURCE_COLUMNS, lines, title=title), legend])


def _variants(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Summaries of one model's rows, one for each of its settings; `run` names recipe and what else differs."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        settings = {key: value for key, value in row["config"].items() if key not in ("seed", "series")}
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(row)
    chosen = [own[0]["config"]["model_params"] for own in groups.values()]
    found = []
    for own, params in zip(groups.values(), chosen, strict=True):
        summary = summary_of(own)
        differing = [f"{key}={value}" for key, value in params.items() if any(one.get(key) != value for one in chosen)]
        said = [
            str(summary["recipe"]),
            *own[0].get("changed", ()),
            *differing,
            *([summary["note"]] if summary["note"] else []),
        ]
        found.append({**summary, "run": ", ".join(said)})
    return found


def _numbers(collection: Collection) -> Mapping[str, int]:
    return {name: number for number, name in enumerate(collection.sources, start=1)}


def _cited(one: Published, collection: Collection) -> str:
    numbers = _numbers(collection)
    return f"[{numbers[one.source]}]" + (f", MAPE [{numbers[one.mape_source]}]" if one.mape_source else "")


def _origin(one: Published) -> str | None:
    same = [f"the same as {' and '.join(one.taken_from)}"] if one.taken_from else []
    return "; ".join([*([one.note] if one.note else []), *same]) or None


def _legend(collection: Collection, used: Iterable[Published]) -> str:
    """What the numbers in brackets stand for."""
    names = {name for one in used for name in (one.source, one.mape_source)}
    lines = [
        f"[{number}] {name}: {collection.sources[name]}"
        for name, number in _numbers(collection).items()
        if name in names
    ]
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="    ") for line in lines)
