"""What others have published of the models of arXiv 2511.03190 Table 3: errors, and where each number stands.

The numbers are those of results/published.json, which says of itself how it was made.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ealinformer.errors import InputError

PUBLISHED = Path(__file__).parents[2] / "results" / "published.json"
HEADLINE_SOURCE = "arXiv 2511.03190 Table 3"
# The first is believed most: a model's own authors, then one protocol for all, then what was copied or trained again.
KINDS = ("paper", "authors", "benchmark", "compilation", "quoted", "rerun")
CONFIDENCES = ("seen", "second_hand")


@dataclass(frozen=True)
class Published:
    """One published result of 12 steps in and 12 out, in the unit of the series; MAPE in percent.

    `horizon` None: the average over all 12. `taken_from` of a number of Table 3: where the same one stands otherwise.
    `mape_source` is there where the MAPE stands elsewhere than MAE and RMSE.
    """

    horizon: int | None
    mae: float
    rmse: float
    mape: float | None
    source: str
    kind: str
    confidence: str
    note: str | None = None
    taken_from: tuple[str, ...] = ()
    mape_source: str | None = None

    @property
    def errors(self) -> dict[str, float | None]:
        """As the rows of results name them."""
        return {"MAE": self.mae, "RMSE": self.rmse, "MAPE": self.mape}


@dataclass(frozen=True)
class Collection:
    """All that is published: results by model and data set, and what each source is."""

    results: dict[str, dict[str, tuple[Published, ...]]]
    sources: dict[str, str]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets, in the order of the paper's tables."""
        return tuple(dict.fromkeys(dataset for sets in self.results.values() for dataset in sets))


def published(model: str, dataset: str, path: Path = PUBLISHED) -> tuple[Published, ...]:
    """All results of a model on a data set, none where nothing is published; InputError as in `read_published`."""
    return read_published(path).results.get(model, {}).get(dataset, ())


def headline(model: str, dataset: str, path: Path = PUBLISHED) -> Published | None:
    """The average over 12 horizons that a table shows: that of arXiv 2511.03190 Table 3, else the best sourced one.

    Table 3 has no MAPE: it is taken from a source with the same MAE and RMSE. None where no average is published.
    InputError as in `read_published`.
    """
    averages = [one for one in published(model, dataset, path) if one.horizon is None]
    if not averages:
        return None
    chosen = next((one for one in averages if one.source == HEADLINE_SOURCE), min(averages, key=_doubt))
    if chosen.mape is not None:
        return chosen
    same = [one for one in averages if (one.mae, one.rmse) == (chosen.mae, chosen.rmse) and one.mape is not None]
    if not same:
        return chosen
    known = min(same, key=_doubt)
    return replace(chosen, mape=known.mape, mape_source=known.source)


def _doubt(one: Published) -> tuple[int, int]:
    return KINDS.index(one.kind), CONFIDENCES.index(one.confidence)


@lru_cache(maxsize=4)
def read_published(path: Path = PUBLISHED) -> Collection:
    """Read the file once.

    Raises:
        InputError: it is not there or damaged, or holds what is no published result.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        sources = {str(name): str(what) for name, what in content["sources"].items()}
        results = {
            model: {dataset: tuple(_entry(one, sources) for one in entries) for dataset, entries in sets.items()}
            for model, sets in content["published"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds no published results: {type(error).__name__} {error}") from error
    return Collection(results, sources)


def _entry(one: dict[str, Any], sources: dict[str, str]) -> Published:
    known = ((one["source"], tuple(sources)), (one["kind"], KINDS), (one["confidence"], CONFIDENCES))
    for word, words in known:
        if word not in words:
            raise ValueError(f"{word!r} is none of {', '.join(words)}")
    return Published(
        horizon=one["horizon"],
        mae=float(one["MAE"]),
        rmse=float(one["RMSE"]),
        mape=None if one["MAPE"] is None else float(one["MAPE"]),
        source=one["source"],
        kind=one["kind"],
        confidence=one["confidence"],
        note=one.get("note"),
        taken_from=tuple(one.get("from", ())),
    )
