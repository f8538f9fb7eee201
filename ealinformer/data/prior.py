"""What a model may know of its sensors before it is trained: a graph, and the training part of the series.

Some published models need both when they are built: transition matrices of the road graph, similarities of the
training series. A `SensorPrior` hands them out; nothing in it has seen a reading of the validation or test part.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ealinformer.data.adjacency import BUILT, ROAD, as_adjacency, file_graph, road_graph
from ealinformer.data.checksums import digest
from ealinformer.data.files import check_promise, decoding, main_array, require_file
from ealinformer.errors import InputError
from ealinformer.files import replaced_whole
from ealinformer.graphs.similarity import correlation_graph, nearest_neighbour_graph

__all__ = ["BUILT", "ROAD", "ArrayPrior", "BlankPrior", "FolderPrior", "SensorPrior", "as_adjacency", "open_prior"]

DERIVED = "derived"  # folder of what took long to compute
TRAIN_FILES = ("train_data.npy", "train_timestamps.npy")


class SensorPrior(ABC):
    """Graph and training part of N sensors; these arrays are read-only."""

    num_sensors: int

    @abstractmethod
    def adjacency(self) -> np.ndarray:
        """Weights `[N, N]`, float32: (i, j) is the edge i -> j, 0 where there is none."""

    @abstractmethod
    def readings(self) -> np.ndarray:
        """The training part `[T, N]`, float32, on the scale of the series, missing readings as they are."""

    @abstractmethod
    def timestamps(self) -> np.ndarray:
        """Time of day and day of week of its rows `[T, 2]`, float32, in [0, 1)."""

    def derived(
        self, name: str, shape: tuple[int, ...], compute: Callable[[], np.ndarray], **parameters: Any
    ) -> np.ndarray:
        """What `compute` makes of this prior, an array of `shape`; `parameters` tell two such arrays apart.

        It may be kept, so that whoever changes what `compute` does changes the name as well. Raises ValueError where
        `compute` gives another shape.
        """
        found = compute()
        if found.shape != shape:
            raise ValueError(f"{name} has shape {found.shape}, expected {shape}")
        return found


@dataclass(frozen=True, eq=False)
class ArrayPrior(SensorPrior):
    """A prior of arrays at hand; what is None is not known, and a model that asks for it is told so."""

    num_sensors: int
    weights: np.ndarray | None = None  # [N, N]
    series: np.ndarray | None = None  # [T, N]
    calendar: np.ndarray | None = None  # [T, 2]

    def adjacency(self) -> np.ndarray:
        return _known(self.weights, "adjacency", (self.num_sensors, self.num_sensors))

    def readings(self) -> np.ndarray:
        return _known(self.series, "readings", (None, self.num_sensors))

    def timestamps(self) -> np.ndarray:
        return _known(self.calendar, "timestamps", (None, 2))


@dataclass(frozen=True)
class BlankPrior(SensorPrior):
    """Zeros of the right shapes, for counting parameters and checking sizes: nothing is read or computed."""

    num_sensors: int
    num_steps: int = 1  # T of the training part

    def adjacency(self) -> np.ndarray:
        return np.broadcast_to(np.float32(0), (self.num_sensors, self.num_sensors))

    def readings(self) -> np.ndarray:
        return np.broadcast_to(np.float32(0), (self.num_steps, self.num_sensors))

    def timestamps(self) -> np.ndarray:
        return np.broadcast_to(np.float32(0), (self.num_steps, 2))

    def derived(
        self, name: str, shape: tuple[int, ...], compute: Callable[[], np.ndarray], **parameters: Any
    ) -> np.ndarray:
        return np.zeros(shape, np.float32)


@dataclass(frozen=True)
class FolderPrior(SensorPrior):
    """The prior of a folder in BasicTS's layout, such as datasets/PEMS08.

    `graph`: "road" is the folder's own, "correlation", "knn" and "none" are built from its training part, anything else
    is a file that `read_graph` takes. What `derived` computes is kept in the folder, under the checksum of all that it
    was made of, and read back the next time.
    """

    directory: Path
    num_sensors: int
    graph: str = ROAD

    def adjacency(self) -> np.ndarray:
        """Raises InputError where there is no such graph, or it is of another size."""
        return self._adjacency

    def readings(self) -> np.ndarray:
        """Raises InputError where the file is missing, damaged or of another size."""
        path = self.directory / TRAIN_FILES[0]
        array = _read(path)
        if array.ndim == 3:  # some versions of BasicTS keep features in a third axis, the reading first
            array = array[..., 0]
        return _checked(path, array, None, self.num_sensors)

    def timestamps(self) -> np.ndarray:
        """Raises InputError where one of the files is missing, damaged or of another size."""
        path = self.directory / TRAIN_FILES[1]
        return _checked(path, _read(path), len(self.readings()), 2)

    def derived(
        self, name: str, shape: tuple[int, ...], compute: Callable[[], np.ndarray], **parameters: Any
    ) -> np.ndarray:
        """Raises InputError where it cannot be kept, and where a file that it is made of is missing."""
        made_of = [name, repr(shape), repr(sorted(parameters.items())), self._checksum]
        key = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
        path = self.directory / DERIVED / f"{name}-{key}.npz"  # a zip knows checksums of what it holds
        if path.is_file():
            with suppress(InputError):  # made anew, which mends it
                kept = main_array(path, wanted=8 * math.prod(shape))
                if kept.shape == shape:
                    return kept
        try:
            path.parent.mkdir(exist_ok=True)  # what cannot be kept is known before minutes of work
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        found = super().derived(name, shape, compute, **parameters)
        with replaced_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, data=found)
        return found

    @cached_property
    def _adjacency(self) -> np.ndarray:
        n = self.num_sensors
        if self.graph == "none":
            return _read_only(np.zeros((n, n), np.float32))
        if self.graph == "correlation":
            return _read_only(correlation_graph(self.readings()))
        if self.graph == "knn":
            return _read_only(nearest_neighbour_graph(self.readings()))
        graph = road_graph(self.directory, n) if self.graph == ROAD else file_graph(self.graph, n)
        return _read_only(as_adjacency(graph))

    @cached_property
    def _checksum(self) -> str:
        """Of the training part, and of the graph whatever it was made by."""
        parts = [hashlib.sha256(np.ascontiguousarray(self.adjacency()).tobytes()).hexdigest()]
        for path in (self.directory / name for name in TRAIN_FILES):
            try:
                parts.append(digest(path).sha256)
            except OSError as error:
                raise InputError(f"{path} cannot be read: {error.strerror}") from error
        return " ".join(parts)


def open_prior(data_dir: str, graph: str, num_sensors: int) -> SensorPrior:
    """The prior that a model's config names.

    Raises:
        ValueError: there is no folder, and no file with a graph either.
        InputError: there is no folder, and the file with a graph is missing, damaged or of another size.
    """
    if data_dir:
        return FolderPrior(Path(data_dir), num_sensors, graph)
    if graph in (ROAD, *BUILT):
        raise ValueError(
            "this model has to know its sensors: data_dir, a folder such as datasets/PEMS08, is expected, or a prior"
        )
    return ArrayPrior(num_sensors, weights=as_adjacency(file_graph(graph, num_sensors)))


def _known(array: np.ndarray | None, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    if array is None:
        raise ValueError(f"this model needs {name} of its sensors, which are not given")
    if len(array.shape) != len(shape) or any(n is not None and n != m for n, m in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("T" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} has shape {array.shape}, expected [{wanted}]")
    return _read_only(np.asarray(array, np.float32).view())


def _read(path: Path) -> np.ndarray:
    """The array of a .npy file, read from disk as it is used."""
    expected = "a .npy file with a numeric array"
    size = require_file(path, expected)
    with decoding(path, expected):
        with path.open("rb") as file:
            check_promise(path, file, size, expected)
        return np.lib.format.open_memmap(path, mode="r")


def _checked(path: Path, array: np.ndarray, rows: int | None, columns: int) -> np.ndarray:
    """`array` in float32, where it has this size."""
    if array.ndim != 2 or array.shape[1] != columns or rows not in (None, len(array)):
        wanted = "T" if rows is None else rows
        raise InputError(f"{path}: the array has shape {list(array.shape)}; expected [{wanted}, {columns}]")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: the array has dtype {array.dtype}; expected integers or floats")
    return array if array.dtype == np.float32 else _read_only(array.astype(np.float32))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
