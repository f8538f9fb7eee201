"""What `compare.py --table` prints: published numbers, and those of tracked rows and finished runs beside them."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ealinformer.data import PUBLIC
from ealinformer.errors import InputError, suggestion
from ealinformer.models import Catalogue
from ealinformer.report.published import read_published
from ealinformer.report.published_pages import beside_page, overview_page, sources_page
from ealinformer.training import load_config
from ealinformer.training.resolve import recipes_of
from ealinformer.training.runs.folder import read_json, read_row
from ealinformer.training.runs.listing import find_runs

TABLES = {
    "ours": "published numbers, and ours beside them",
    "overview": "the published ones of all data sets at a glance",
    "sources": "all of them, source by source",
}
WINDOW = {"input_len": 12, "output_len": 12}  # of all that is published
CONFIGS = Path(__file__).parents[1] / "configs"
_WITHOUT_EFFECT = {"eval_batch_size", "micro_batch_size", "skip_nonfinite"}  # on what is trained
_KEYS = {"model", "dataset", "split", "average", "complete", "config", "seed", "epochs", "stopped_by", "recipe", "date"}


def published_pages(
    which: str,
    catalogue: Catalogue,
    *,
    config: Path | None,
    models: Sequence[str] | None,
    results: Path,
    runs: Path | None,
) -> str:
    """The pages of one of `TABLES`, of all data sets or of that of a config file.

    Ours are rows of JSON files below `results` and finished runs below `runs`.

    Raises:
        InputError: nothing is published of the data set or of a model, or a file cannot be read.
    """
    collection = read_published()
    datasets: Sequence[str] = collection.datasets
    if config is not None:
        name = load_config(config).series.name
        if name not in datasets:
            raise InputError(f"nothing is published of {name}, only of {', '.join(datasets)}")
        datasets = [name]
    known = list(collection.results)
    for model in models or ():
        if model not in known:
            raise InputError(f"nothing is published of {model!r}{suggestion(model, known)}, only of {', '.join(known)}")
    shown = list(models or known)
    if which == "overview":
        return overview_page(datasets, models=shown)
    if which == "sources":
        return "\n\n\n".join(sources_page(name, models=shown, unit=PUBLIC[name].unit) for name in datasets)
    ours = [row | {"changed": _changed(row, catalogue)} for row in _measured(results, runs)]
    return "\n\n\n".join(
        beside_page(name, [row for row in ours if row["dataset"] == name], models=shown, unit=PUBLIC[name].unit)
        for name in datasets
    )


def _changed(row: dict[str, Any], catalogue: Catalogue) -> list[str]:
    """What a run had otherwise than its recipe: five epochs say little of a recipe of a hundred."""
    file, taken = CONFIGS / f"{row['dataset']}.py", row["config"].get("recipe")
    if not file.is_file() or row["model"] not in catalogue or not isinstance(taken, dict):
        return []
    known = recipes_of(load_config(file), row["model"], catalogue).get(row["recipe"])
    if known is None:
        return []
    expected = known.recipe.model_dump(mode="json")
    return [
        f"{key}={taken[key]} (recipe: {value})"
        for key, value in expected.items()
        if key not in _WITHOUT_EFFECT and taken.get(key, value) != value
    ]


def _measured(results: Path, runs: Path | None) -> Iterator[dict[str, Any]]:
    """Rows that compare with what is published, each run once although it may be both tracked and in its folder."""
    seen = set()
    for row in (*_tracked(results), *_finished(runs)):
        if not (row.keys() >= _KEYS and row["split"] == "test" and row.get("simulated") is False):
            continue
        run = (row["model"], row["dataset"], row["seed"], row["date"], row.get("command"))
        if run not in seen and WINDOW.items() <= row["config"].items():
            seen.add(run)
            yield row


def _tracked(results: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(results.rglob("*.json")):
        content = read_json(file)
        rows = content.get("rows", [content])
        yield from (row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()


def _finished(runs: Path | None) -> Iterator[dict[str, Any]]:
    for folder in sorted(find_runs(runs)) if runs is not None else ():
        with suppress(InputError):  # it has not finished
            yield read_row(folder)
