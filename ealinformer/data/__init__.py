"""Data: public sources, raw readers, preparation, road graphs, simulated series."""

from ealinformer.data.graphs import Graph, load_graph, read_graph, read_ids, save_graph
from ealinformer.data.prepare import prepare
from ealinformer.data.prepared import PreparedSeries, open_prepared
from ealinformer.data.readers import RawSeries, read_series
from ealinformer.data.simulation import SimulatedTraffic, iterate_traffic, simulate_traffic, write_raw
from ealinformer.data.sources import PUBLIC
from ealinformer.data.spec import SeriesSpec, Source
from ealinformer.data.timestamps import calendar_features

__all__ = [
    "PUBLIC",
    "Graph",
    "PreparedSeries",
    "RawSeries",
    "SeriesSpec",
    "SimulatedTraffic",
    "Source",
    "calendar_features",
    "iterate_traffic",
    "load_graph",
    "open_prepared",
    "prepare",
    "read_graph",
    "read_ids",
    "read_series",
    "save_graph",
    "simulate_traffic",
    "write_raw",
]
