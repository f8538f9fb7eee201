"""A prepared series: its description, its splits as memory-mapped arrays, its sensors and its graph."""

import hashlib
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from ealinformer.data.files import check_promise, read_text
from ealinformer.data.graphs import Graph, load_graph
from ealinformer.data.meta import (
    GRAPH_FILE,
    IDS_FILE,
    META_FILE,
    PREPARED_FILES,
    SPLITS,
    Meta,
    Split,
    is_prepared,
    read_meta,
)
from ealinformer.data.spec import MINUTES_PER_DAY, SeriesSpec
from ealinformer.errors import InputError

NUM_CALENDAR_FEATURES = 2
_ALWAYS_THERE = PREPARED_FILES - {META_FILE, GRAPH_FILE, IDS_FILE}


@dataclass(frozen=True)
class PreparedSeries:
    """What `open_prepared` gives; arrays are read from disk as they are used."""

    directory: Path
    meta: Meta

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.meta["name"]

    @property
    def num_sensors(self) -> int:
        """N."""
        return self.meta["num_sensors"]

    @property
    def num_steps(self) -> int:
        """T, over all splits."""
        return self.meta["num_steps"]

    @property
    def interval_minutes(self) -> int:
        """Minutes between two readings."""
        return self.meta["interval_minutes"]

    @property
    def steps_per_day(self) -> int:
        """Number of readings a day, the size of a time-of-day table."""
        return MINUTES_PER_DAY // self.interval_minutes

    @property
    def null_value(self) -> float:
        """What a missing reading looks like; may be NaN."""
        return float(self.meta["null_value"])

    @property
    def start(self) -> datetime:
        """Calendar time of the first row of the training part."""
        return datetime.fromisoformat(self.meta["start"])

    @property
    def checksum(self) -> str:
        """Identity of the data set: sha256 over the names and checksums of its files, as `meta.json` has them."""
        lines = (f"{name} {written['sha256']}\n" for name, written in sorted(self.meta["files"].items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def how_to_prepare_again(self) -> str:
        """The end of a message about a damaged file."""
        # --force, since a file of the right size is otherwise taken for what was written.
        return f"run  {_command(self.directory, self.name)} --force  again"

    def data(self, split: Split) -> np.ndarray:
        """Readings of one split on their own scale, float32 `[T_split, N]`, memory-mapped and read-only."""
        return self._array(split, "data", self.num_sensors)

    def timestamps(self, split: Split) -> np.ndarray:
        """Time of day and day of week of one split, both in [0, 1): float32 `[T_split, 2]`, memory-mapped."""
        return self._array(split, "timestamps", NUM_CALENDAR_FEATURES)

    def sensor_ids(self) -> list[str]:
        """Ids in column order, "0" to "N-1" where the raw files name none."""
        if IDS_FILE not in self.meta["files"]:
            return [str(sensor) for sensor in range(self.num_sensors)]
        path = self.directory / IDS_FILE
        ids = read_text(path, f"{self.num_sensors} sensor ids, one a line").splitlines()
        if len(ids) != self.num_sensors:
            raise InputError(f"{path} names {len(ids)} sensors, expected {self.num_sensors}")
        return ids

    def graph(self) -> Graph | None:
        """The road graph, or None when the series was prepared without one.

        Raises InputError when the file is missing or damaged, or its graph has another number of sensors.
        """
        if not self.meta["graph"]:
            return None
        path = self.directory / GRAPH_FILE
        graph = load_graph(path)
        if graph.adjacency.shape[0] != self.num_sensors:
            raise InputError(f"{path} holds a graph of {graph.adjacency.shape[0]} sensors, expected {self.num_sensors}")
        return graph

    def _array(self, split: Split, what: str, columns: int) -> np.ndarray:
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
        path = self.directory / f"{split}_{what}.npy"
        try:
            with path.open("rb") as file:
                check_promise(path, file, path.stat().st_size, "a .npy file with a numeric array")
            array = np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # numpy reads a damaged header with Python's own parser, which has errors of its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{path} cannot be read as an array: {reason[:200]}") from error
        expected = (self.meta["steps"][split], columns)
        if array.shape != expected or array.dtype != np.float32:
            raise InputError(f"{path} holds {array.dtype} {array.shape}, expected float32 {expected}")
        if not array.flags.c_contiguous:
            raise InputError(
                f"{path} holds its array column by column, expected row by row: {self.how_to_prepare_again}"
            )
        return array


def open_prepared(directory: Path) -> PreparedSeries:
    """Open what `prepare` wrote to `directory`.

    Raises InputError when the series is not prepared, its `meta.json` contradicts itself, or a file is missing,
    truncated or of another shape than `meta.json` says. What is in the files is for `contents.check_contents`.
    """
    if not is_prepared(directory):
        raise InputError(f"{directory} is not prepared: run  {_command(directory, directory.name)}")
    series = PreparedSeries(directory, read_meta(directory))
    contradiction = _contradiction(series.meta)
    if contradiction:
        raise InputError(f"{directory / META_FILE} is damaged: {contradiction}")
    for name, written in series.meta["files"].items():
        path = directory / name
        if not path.is_file():
            raise InputError(f"{path} is missing: {series.how_to_prepare_again}")
        size = os.path.getsize(path)
        if size != written["size"]:
            raise InputError(f"{path} has {size} bytes, expected {written['size']}: {series.how_to_prepare_again}")
    for split in SPLITS:
        series.data(split)
        series.timestamps(split)
    return series


def _contradiction(meta: Meta) -> str | None:
    """What of a description of the right keys and types cannot be; None when all can."""
    try:
        SeriesSpec.model_validate({name: value for name, value in meta.items() if name in SeriesSpec.model_fields})
        datetime.fromisoformat(meta["start"])
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(str(key) for key in first['loc'])}: {first['msg']}"
    except ValueError as error:
        return f"start: {error}"
    steps = meta["steps"]
    if set(steps) != set(SPLITS) or min(steps.values()) < 1 or sum(steps.values()) != meta["num_steps"]:
        return f"steps are {dict(steps)}, expected those of train, val and test, {meta['num_steps']} in all"
    expected = _ALWAYS_THERE | ({GRAPH_FILE} if meta["graph"] else set())
    missing = sorted(expected - set(meta["files"]))
    foreign = sorted(set(meta["files"]) - expected - {IDS_FILE})
    if missing:
        return f"files lacks {missing[0]}"
    return f"files has {foreign[0]!r}, which is no file of this series" if foreign else None


def _command(directory: Path, name: str) -> str:
    elsewhere = "" if directory.parent == Path("datasets") else f" --datasets-dir {directory.parent}"
    return f"python scripts/prepare_dataset.py {name}{elsewhere}"
