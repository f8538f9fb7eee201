"""Every reader of this project that a file from elsewhere may reach, with what is damaged for it."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from ealinformer.analysis.perturbed_scores import KeptScores
from ealinformer.data.checksums import digest
from ealinformer.data.contents import check_contents
from ealinformer.data.graphs import Graph, load_graph, read_graph
from ealinformer.data.graphs import read_ids as read_sensor_ids
from ealinformer.data.meta import META_FILE, SPLITS
from ealinformer.data.prepare import prepare
from ealinformer.data.prepared import open_prepared
from ealinformer.data.readers import read_series
from ealinformer.errors import InputError
from ealinformer.training.checkpoints.checkpoint import LAST, check_fits, load_checkpoint, newest_checkpoint
from ealinformer.training.config import Experiment, RunConfig, describe
from ealinformer.training.predictions import read_predictions
from ealinformer.training.resolve import resolve
from ealinformer.training.runs.details import run_details
from ealinformer.training.runs.folder import CONFIG, HISTORY, METRICS, STATUS, read_row
from experiments.table import read_rows
from tests.fuzz import containers, hostile, mutate, seeds
from tests.fuzz.mutate import Mutation


@dataclass(frozen=True)
class Target:
    """One reader.

    `seeds(folder)` gives whole files and leaves what has to stand beside them in the folder; `hostile()` gives files
    made to hurt, which are tried as they are. `read(path)` reads a file of that name and checks what it got.
    """

    name: str
    file: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    mutations: tuple[Mutation, ...]
    hostile: Callable[[], list[bytes]] = list


def series(path: Path) -> None:
    """A raw series, and whether its parts agree."""
    read = read_series(path)
    assert read.values.dtype in (np.float32, np.float64)
    assert read.values.ndim == 2
    assert read.values.size
    assert read.sensor_ids is None or len(set(read.sensor_ids)) == read.values.shape[1]
    assert read.times is None or (read.times.dtype == "datetime64[ns]" and len(read.times) == len(read.values))


def _check_graph(graph: Graph) -> None:
    assert graph.adjacency.shape == (seeds.NUM_SENSORS, seeds.NUM_SENSORS)
    assert graph.adjacency.dtype == np.float32
    graph.adjacency.check_format(full_check=True)
    assert np.isfinite(graph.adjacency.data).all()
    assert (graph.adjacency.data >= 0).all()
    assert graph.num_edges <= seeds.NUM_SENSORS**2


def graph_by_number(path: Path) -> None:
    """A published graph of numbered sensors."""
    _check_graph(read_graph(path, seeds.NUM_SENSORS))


def graph_by_id(path: Path) -> None:
    """A published graph of named sensors."""
    _check_graph(read_graph(path, seeds.NUM_SENSORS, ids=seeds.IDS))


def graph_pkl(path: Path) -> None:
    """A pickled graph, by number: the ids of the seeds differ."""
    _check_graph(read_graph(path, seeds.NUM_SENSORS))


def saved_graph(path: Path) -> None:
    """A graph that this project wrote; it may be of any size."""
    graph = load_graph(path)
    graph.adjacency.check_format(full_check=True)


def sensor_ids(path: Path) -> None:
    """A list of ids, of any length."""
    read = read_sensor_ids(path)
    assert read
    assert all(read)


def raw_to_prepared(path: Path) -> None:
    """The way from a raw series to a prepared folder, with all checks between."""
    folder = prepare(seeds.SPEC, path.parent, path.parent / "datasets", force=True, report=lambda line: None)
    open_prepared(folder)


def prepared(path: Path) -> None:
    """A prepared folder and all that it offers."""
    data = open_prepared(path.parent)
    rows = sum(float(data.data(split).sum()) + float(data.timestamps(split).sum()) for split in SPLITS)
    assert data.sensor_ids()
    assert isinstance(rows, float)
    assert data.steps_per_day > 0
    _ = data.start, data.null_value, data.graph()


def contents(path: Path) -> None:
    """A prepared folder whose `meta.json` vouches for the damaged file, read to the end."""
    meta = json.loads((path.parent / META_FILE).read_text())
    made = digest(path)
    meta["files"][path.name] = {"sha256": made.sha256, "size": made.size}
    (path.parent / META_FILE).write_text(json.dumps(meta))
    check_contents(open_prepared(path.parent))


def checkpoint(path: Path) -> None:
    """A checkpoint, and the newest of a folder in which the one before it is whole."""
    found = newest_checkpoint(path.parent)
    assert found is not None
    run, state = load_checkpoint(path)
    check_fits(path, run, run)
    assert all(isinstance(weight, torch.Tensor) for weight in state["model"].values())


def row_of_run(path: Path) -> None:
    """What a run's folder says it measured, as `record.py` writes it."""
    with suppress(InputError):
        json.dumps(run_details(path.parent))
    json.dumps(read_row(path.parent))


def rows_of_table(path: Path) -> None:
    """Rows of results/."""
    assert isinstance(read_rows(path), list)


def kept(path: Path) -> None:
    """Scores of an interrupted measurement, and those of it that are looked up."""
    scores = KeptScores(path, {"split": "test"}).scores
    assert isinstance(scores, dict)


def predictions(path: Path) -> None:
    """Saved forecasts."""
    assert all(isinstance(array, np.ndarray) for array in read_predictions(path).values())


def set_words(path: Path) -> None:
    """Words behind `--set`, one a line, each alone and all together."""
    words = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    for chosen in [words, *([word] for word in words[:20])]:
        try:
            RunConfig.model_validate_json(resolve(seeds.EXPERIMENT, settings=chosen).model_dump_json())
        except InputError:
            if chosen is words[0] or len(words) == 1:
                raise


def values_of_config(path: Path) -> None:
    """The fields of an experiment as a config file would give them, turned into a run."""
    try:
        fields = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise InputError("no values of a config") from None
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise InputError("no keywords")
    try:
        experiment = Experiment(**fields)
    except ValidationError as error:
        raise InputError(describe(error)) from error
    run = resolve(experiment)
    again = RunConfig.model_validate_json(run.model_dump_json())
    assert again.model_dump_json() == run.model_dump_json()


_TEXT, _JSON = (mutate.text, mutate.text, mutate.bytes_), (mutate.json_, mutate.json_, mutate.json_, mutate.bytes_)
_NPY = mutate.npy, containers.values, mutate.bytes_
_ZIP = containers.zip_, containers.zip_, mutate.bytes_

TARGETS = (
    Target("series .npz", "town.npz", seeds.series_npz, series, _ZIP, hostile.npz),
    Target("series .npy", "town.npy", seeds.series_npy, series, _NPY, hostile.npy),
    Target("series .csv", "town.csv", seeds.series_csv, series, _TEXT, hostile.csv),
    Target(
        "series .parquet",
        "town.parquet",
        seeds.series_parquet,
        series,
        (containers.parquet, mutate.bytes_),
        hostile.parquet,
    ),
    Target("series .h5", "town.h5", seeds.series_hdf5, series, (containers.hdf5, mutate.bytes_), hostile.hdf5),
    Target("edges by number", "graph.csv", seeds.edges, graph_by_number, _TEXT, hostile.edges),
    Target("edges by id", "graph.csv", seeds.edges_by_id, graph_by_id, _TEXT, hostile.edges),
    Target("graph .npy", "graph.npy", seeds.graph_npy, graph_by_number, _NPY, hostile.npy),
    Target("graph .npz", "graph.npz", seeds.graph_npz, graph_by_number, _ZIP, hostile.npz),
    Target("graph .pkl", "graph.pkl", seeds.graph_pkl, graph_pkl, (containers.pickle_, mutate.bytes_), hostile.pickles),
    Target("saved graph", "graph.npz", seeds.saved_graph, saved_graph, _ZIP, hostile.saved_graph),
    Target("sensor ids", "ids.txt", seeds.ids, sensor_ids, _TEXT, hostile.ids),
    Target("raw to prepared", "town.csv", seeds.raw_town, raw_to_prepared, _TEXT),
    Target("prepared meta.json", "meta.json", seeds.prepared_file("meta.json"), prepared, _JSON, hostile.json_),
    Target("prepared array", "val_data.npy", seeds.prepared_file("val_data.npy"), prepared, _NPY, hostile.npy),
    Target("prepared graph", "graph.npz", seeds.prepared_file("graph.npz"), prepared, _ZIP, hostile.saved_graph),
    Target("contents array", "val_data.npy", seeds.prepared_file("val_data.npy"), contents, _NPY, hostile.npy),
    Target(
        "contents times", "val_timestamps.npy", seeds.prepared_file("val_timestamps.npy"), contents, _NPY, hostile.npy
    ),
    Target("contents graph", "graph.npz", seeds.prepared_file("graph.npz"), contents, _ZIP, hostile.saved_graph),
    Target("contents ids", "sensor_ids.txt", seeds.prepared_file("sensor_ids.txt"), contents, _TEXT, hostile.ids),
    Target("prepared ids", "sensor_ids.txt", seeds.prepared_file("sensor_ids.txt"), prepared, _TEXT, hostile.ids),
    Target("run config.json", CONFIG, seeds.run_file(CONFIG), row_of_run, _JSON, hostile.json_),
    Target("run run.json", STATUS, seeds.run_file(STATUS), row_of_run, _JSON, hostile.json_),
    Target("run metrics.json", METRICS, seeds.run_file(METRICS), row_of_run, _JSON, hostile.json_),
    Target("run history.csv", HISTORY, seeds.run_file(HISTORY), row_of_run, _TEXT, hostile.csv),
    Target("rows of results", "row.json", seeds.rows, rows_of_table, _JSON, hostile.json_),
    Target("kept scores", "scores.json", seeds.kept_scores, kept, _JSON, hostile.json_),
    Target("predictions", "predictions.npz", seeds.predictions, predictions, _ZIP, hostile.npz),
    Target("checkpoint", LAST, seeds.checkpoint, checkpoint, (*[containers.sealed] * 3, mutate.bytes_)),
    Target("--set", "words.settings", seeds.settings, set_words, _TEXT, hostile.settings),
    Target("config values", "values.settings", seeds.config_values, values_of_config, _JSON, hostile.json_),
)
BY_NAME = {target.name: target for target in TARGETS}
