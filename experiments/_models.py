"""The table of models that `train.py --list-models` prints for a series."""

from pathlib import Path
from typing import Any

import torch

from ealinformer.data.validate import split_steps
from ealinformer.errors import InputError
from ealinformer.models import Catalogue, ModelEntry
from ealinformer.report.published import headline
from ealinformer.report.tables import Column, render_table
from ealinformer.training import Experiment
from ealinformer.training.host import config_of
from ealinformer.training.jobs import build_blank
from ealinformer.training.resolve import recipes_of, resolve

COLUMNS = (
    Column("name", "model"),
    Column("paper", "paper"),
    Column("year", "year", "d"),
    Column("kind", "kind"),
    Column("graph", "needs graph"),
    Column("recipes", "recipes"),
    Column("parameters", "parameters", ",d"),
    Column("mae", "published MAE", ".2f"),
)


def list_models(catalogue: Catalogue, experiment: Experiment) -> str:
    """An aligned table of all models: paper, kind, whether a graph is needed, recipes, parameters and published MAE."""
    rows = [_row(name, entry, catalogue, experiment) for name, entry in catalogue.items()]
    series = experiment.series
    simulated = ", simulated series" if series.simulated else ""
    title = f"models on {series.name}{simulated}: {series.num_sensors} sensors, the first recipe is taken"
    return render_table(COLUMNS, rows, title=title)


def _row(name: str, entry: ModelEntry, catalogue: Catalogue, experiment: Experiment) -> dict[str, Any]:
    card = entry.card
    found = headline(name, experiment.series.name)
    paper = (card.venue if card.venue != "arXiv" else "", f"arXiv {card.arxiv}" if card.arxiv else "") if card else ()
    return {
        "name": name,
        "paper": ", ".join(filter(None, paper)) or None,
        "year": card and card.year,
        "kind": card and card.kind,
        "graph": "yes" if entry.needs_graph else "no",
        "recipes": ", ".join(recipes_of(experiment, name, catalogue)),
        "parameters": _parameters(name, entry, catalogue, experiment),
        "mae": None if found is None else found.mae,
    }


def _parameters(name: str, entry: ModelEntry, catalogue: Catalogue, experiment: Experiment) -> int | str | None:
    """As the first recipe has it; None where it depends on how long the series is, and that is not known."""
    run, series = resolve(experiment, model=name, catalogue=catalogue), experiment.series
    num_steps = split_steps(series.num_steps, series.split)["train"] if series.num_steps else None
    try:
        with torch.device("meta"):  # counts without memory
            model = build_blank(entry, config := config_of(run, entry, Path()), num_steps=num_steps or 10**4)
            count = sum(parameter.numel() for parameter in model.parameters())
            if num_steps is None and entry.takes_prior:
                other = build_blank(entry, config, num_steps=10**4 + 1)
                if count != sum(parameter.numel() for parameter in other.parameters()):
                    return None
    except (InputError, ValueError) as error:
        return f"not on this series: {error}"
    return count
