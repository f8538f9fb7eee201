"""Road graphs: reading the published forms, and keeping one beside the prepared data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from scipy import sparse

from ealinformer.data.edge_list import EdgeList, check_ids, read_edge_list, read_ids
from ealinformer.data.files import decoding, main_array, npz_keys, read_npy, read_npz
from ealinformer.data.legacy_pickle import read_adjacency_pickle
from ealinformer.errors import InputError
from ealinformer.files import replaced_whole

__all__ = ["Graph", "Weights", "load_graph", "read_graph", "read_ids", "save_graph"]

Weights = Literal["distance", "affinity", "binary"]

SUFFIXES = (".csv", ".npy", ".npz", ".pkl", ".pickle")
_SAVED = ("data", "indices", "indptr", "shape", "weights")


@dataclass(frozen=True, eq=False)
class Graph:
    """A directed graph of N sensors; entry (i, j) of `adjacency` is the weight of the edge i -> j.

    `weights` says what they mean: "distance" (road length or travel cost, 0 is a legal and stored value), "affinity"
    (closeness in (0, 1]) or "binary" (1 for every edge).
    """

    adjacency: sparse.csr_array  # [N, N], float32, canonical; may hold loops i -> i
    weights: Weights

    @property
    def num_edges(self) -> int:
        """Number of distinct edges between two different sensors, each direction for itself; loops do not count."""
        edges = self.adjacency.tocoo()
        return int(np.count_nonzero(edges.row != edges.col))


def read_graph(path: Path, num_sensors: int, *, ids: Sequence[str] | None = None) -> Graph:
    """The graph `[N, N]` of a published file, in the form that the suffix of `path` names.

    `.csv`: an edge list, by sensor number or, where `ids` gives the sensors in column order, by id; its weights are
    distances, or binary without a third column. `.npy`, `.npz` (dense, `scipy.sparse` or `save_graph`), `.pkl`
    (matrix, or `(ids, id_to_index, matrix)`, which is put in the order of `ids`): an adjacency matrix, in which 0 is
    no edge. A matrix is binary when all its weights are 1, an affinity when none is above 1, else distances.

    Raises InputError for a file that is missing, damaged or of an unknown suffix, for another number of sensors, for
    sensors that are not among the N, and for weights that are negative or not finite.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: unknown suffix {path.suffix!r}; expected one of {', '.join(SUFFIXES)}")
    if ids is not None:
        check_ids(path, ids, num_sensors)
    if suffix == ".csv":
        return _from_edges(read_edge_list(path, num_sensors, ids), num_sensors)
    if suffix == ".npz":
        return _read_npz(path, num_sensors)
    if suffix == ".npy":
        return _from_matrix(path, read_npy(path), num_sensors)
    held, matrix = read_adjacency_pickle(path)
    _check_square(path, matrix.shape, num_sensors)
    if held is not None and ids is not None:
        order = _order(path, held, ids)
        matrix = matrix[np.ix_(order, order)]
    return _from_matrix(path, matrix, num_sensors)


def save_graph(graph: Graph, path: Path) -> None:
    """Write `graph` to the `.npz` file `path`, whole or not at all. Raises InputError when it cannot be written."""
    adjacency = graph.adjacency
    # An open file: numpy would put ".npz" behind a name that ends otherwise.
    with replaced_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            data=adjacency.data,
            indices=adjacency.indices,
            indptr=adjacency.indptr,
            shape=np.array(adjacency.shape, dtype=np.int64),
            weights=np.array(graph.weights),
        )


def load_graph(path: Path) -> Graph:
    """Read back what `save_graph` wrote. Raises InputError for a file that is missing, damaged or of other content."""
    missing = set(_SAVED) - set(npz_keys(path))
    if missing:
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; expected a graph written by save_graph")
    data, indices, indptr, shape, weights = (read_npz(path, key) for key in _SAVED)
    kind = str(weights)
    if kind not in get_args(Weights):
        raise InputError(f"{path}: the weights are {kind[:40]!r}; expected one of {', '.join(get_args(Weights))}")
    if shape.shape != (2,) or any(array.dtype.kind != "i" for array in (shape, indices, indptr)):
        raise InputError(f"{path}: shape, indices or indptr are not whole numbers; expected a graph of save_graph")
    _check_square(path, tuple(shape.tolist()), int(shape[0]))
    with decoding(path, "a graph written by save_graph"):
        adjacency = sparse.csr_array((_checked_weights(path, data), indices, indptr), shape=tuple(shape.tolist()))
        _check_layout(path, adjacency)
    return Graph(adjacency, kind)  # type: ignore[arg-type]


def _from_edges(edges: EdgeList, num_sensors: int) -> Graph:
    costs = np.ones(len(edges.sources), np.float32) if edges.costs is None else edges.costs
    ends = edges.sources, edges.destinations
    adjacency = sparse.coo_array((costs, ends), shape=(num_sensors, num_sensors)).tocsr()
    adjacency.sort_indices()
    return Graph(adjacency, "binary" if edges.costs is None else "distance")


def _read_npz(path: Path, num_sensors: int) -> Graph:
    wanted = 8 * num_sensors**2  # a dense matrix of a few roads packs several hundredfold
    keys = npz_keys(path, wanted=wanted)
    if set(_SAVED) <= set(keys):
        graph = load_graph(path)
        _check_square(path, graph.adjacency.shape, num_sensors)
        return graph
    if "format" not in keys:
        return _from_matrix(path, main_array(path, wanted=wanted), num_sensors)
    expected = "a matrix that scipy.sparse.save_npz wrote in csr, csc or coo format"
    with decoding(path, expected):
        matrix = sparse.load_npz(path)
        if matrix.format not in ("csr", "csc", "coo"):
            raise InputError(f"{path}: is a sparse matrix in {matrix.format} format; expected {expected}")
        _check_square(path, matrix.shape, num_sensors)
        if matrix.format != "coo":
            _check_layout(path, matrix)
        adjacency = sparse.csr_array(matrix)
        adjacency.sum_duplicates()
    return _from_sparse(path, adjacency)


def _check_layout(path: Path, matrix: sparse.csr_array | sparse.csc_array) -> None:
    """An index out of range, or rows that end before they begin, would make scipy read and write beyond its arrays."""
    matrix.check_format(full_check=True)  # looks at nothing where the last row says that there are no entries
    if (np.diff(matrix.indptr) < 0).any():
        raise InputError(f"{path}: a row of the sparse matrix ends before it begins; expected rows in order")


def _from_matrix(path: Path, matrix: np.ndarray, num_sensors: int) -> Graph:
    _check_square(path, matrix.shape, num_sensors)
    return _from_sparse(path, sparse.csr_array(_checked_weights(path, matrix)))


def _from_sparse(path: Path, adjacency: sparse.csr_array) -> Graph:
    """The graph of a matrix in which 0 is no edge."""
    data = _checked_weights(path, adjacency.data)
    adjacency = sparse.csr_array((data, adjacency.indices, adjacency.indptr), shape=adjacency.shape)
    adjacency.eliminate_zeros()
    adjacency.sort_indices()
    if adjacency.nnz == 0:
        raise InputError(f"{path}: the adjacency holds only zeros; expected at least one edge")
    if (adjacency.data == 1).all():
        return Graph(adjacency, "binary")
    return Graph(adjacency, "affinity" if adjacency.data.max() <= 1 else "distance")


def _check_square(path: Path, shape: tuple[int, ...], num_sensors: int) -> None:
    if tuple(shape) != (num_sensors, num_sensors):
        raise InputError(f"{path}: the adjacency has shape {list(shape)}; expected {[num_sensors, num_sensors]}")


def _checked_weights(path: Path, weights: np.ndarray) -> np.ndarray:
    """`weights` as float32. Raises InputError for what is not a number, negative or not finite in float32."""
    if weights.dtype.kind not in "fiub":
        raise InputError(f"{path}: the adjacency has dtype {weights.dtype}; expected integers or floats")
    with np.errstate(over="ignore"):
        single = weights.astype(np.float32)
    for wrong, what in ((~np.isfinite(single), "not finite"), (single < 0, "negative")):
        if wrong.any():
            raise InputError(f"{path}: {int(wrong.sum())} weights are {what}; expected numbers that are 0 or more")
    return single


def _order(path: Path, held: list[str], ids: Sequence[str]) -> list[int]:
    """Row of `held` for each of `ids`."""
    row = {name: number for number, name in enumerate(held)}
    unknown = [name for name in ids if name not in row]
    if unknown:
        raise InputError(f"{path}: has no sensor {unknown[0]!r}; expected the same {len(ids)} sensors as the series")
    return [row[name] for name in ids]
