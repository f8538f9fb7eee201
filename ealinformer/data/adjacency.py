"""The graph that a model is told to take, as a matrix."""

from pathlib import Path

import numpy as np

from ealinformer.data.graphs import Graph, load_graph, read_graph
from ealinformer.data.meta import GRAPH_FILE
from ealinformer.errors import InputError, suggestion

ROAD = "road"
BUILT = ("correlation", "knn", "none")  # from the training part


def as_adjacency(graph: Graph) -> np.ndarray:
    """The weights `[N, N]` that models take from a graph, as BasicTS prepares them.

    Affinities are taken as they are. Of distances and of binary graphs the edges alone count, each both ways: 1, and no
    loops.
    """
    if graph.weights == "affinity":
        return graph.adjacency.toarray().astype(np.float32)
    edges = graph.adjacency.tocoo()  # a distance of 0 is an edge
    linked = np.zeros(graph.adjacency.shape, np.float32)
    linked[edges.row, edges.col] = linked[edges.col, edges.row] = 1
    np.fill_diagonal(linked, 0)
    return linked


def road_graph(directory: Path, num_sensors: int) -> Graph:
    """The graph that a prepared folder holds. Raises InputError where there is none, or one of another size."""
    path = directory / GRAPH_FILE
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder; expected a prepared series, such as datasets/PEMS08")
    if not path.is_file():
        raise InputError(
            f"{directory} was prepared without a road graph: --graph correlation, knn or none builds one "
            "from the training part, --graph FILE reads one"
        )
    graph = load_graph(path)
    if graph.adjacency.shape[0] != num_sensors:
        raise InputError(f"{path} holds a graph of {graph.adjacency.shape[0]} sensors, the model has {num_sensors}")
    return graph


def file_graph(name: str, num_sensors: int) -> Graph:
    """The graph of the file `name`. Raises InputError where it is missing, damaged or of another size."""
    path = Path(name)
    if not path.is_file() and not path.suffix:
        hint = suggestion(name, (ROAD, *BUILT))
        raise InputError(f"graph {name!r} is none of {', '.join((ROAD, *BUILT))}, and no file{hint}")
    return read_graph(path, num_sensors)
