"""A prepared series: its description, its splits as memory-mapped arrays, its sensors and its graph."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from ealinformer.data.graphs import Graph, load_graph
from ealinformer.data.meta import GRAPH_FILE, IDS_FILE, SPLITS, Meta, Split, is_prepared, read_meta
from ealinformer.data.spec import MINUTES_PER_DAY
from ealinformer.errors import InputError

NUM_CALENDAR_FEATURES = 2


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
        ids = path.read_text(encoding="utf-8").splitlines()
        if len(ids) != self.num_sensors:
            raise InputError(f"{path} names {len(ids)} sensors, expected {self.num_sensors}")
        return ids

    def graph(self) -> Graph | None:
        """The road graph, or None when the series was prepared without one."""
        return load_graph(self.directory / GRAPH_FILE) if self.meta["graph"] else None

    def _array(self, split: Split, what: str, columns: int) -> np.ndarray:
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")
        path = self.directory / f"{split}_{what}.npy"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path} cannot be read as an array: {str(error).splitlines()[0]}") from error
        expected = (self.meta["steps"][split], columns)
        if array.shape != expected or array.dtype != np.float32:
            raise InputError(f"{path} holds {array.dtype} {array.shape}, expected float32 {expected}")
        return array


def open_prepared(directory: Path) -> PreparedSeries:
    """Open what `prepare` wrote to `directory`.

    Raises InputError when the series is not prepared, or a file is missing, truncated or of another shape than
    `meta.json` says.
    """
    if not is_prepared(directory):
        elsewhere = "" if directory.parent == Path("datasets") else f" --datasets-dir {directory.parent}"
        raise InputError(
            f"{directory} is not prepared: run  python scripts/prepare_dataset.py {directory.name}{elsewhere}"
        )
    series = PreparedSeries(directory, read_meta(directory))
    again = f"run  python scripts/prepare_dataset.py {series.name}  again"
    for name, written in series.meta["files"].items():
        path = directory / name
        if not path.is_file():
            raise InputError(f"{path} is missing: {again}")
        size = os.path.getsize(path)
        if size != written["size"]:
            raise InputError(f"{path} has {size} bytes, expected {written['size']}: {again}")
    for split in SPLITS:
        series.data(split)
        series.timestamps(split)
    return series
