"""Simulated road networks: one-way corridors on a jittered grid, with ramps where two of them cross.

`g` corridors run east-west and `g` north-south, every other one the opposite way, each with `2g` sensors or a few more,
so that two sensors lie between neighbouring crossings. A crossing has two ramps, each from the last sensor before it on
one corridor to the first sensor after it on the other. This gives N roads on small networks and 1.5 N on large ones, at
most two into and two out of a sensor, in O(N) time and memory. A road points the way that traffic goes; its value is
the straight distance in metres.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

SENSOR_SPACING = 5_000.0  # metres between neighbours on a corridor, before jitter
ALONG_JITTER = 0.35  # share of the spacing by which a sensor moves along its corridor: neighbours never change places
ACROSS_JITTER = 0.15  # share of the spacing by which it moves aside: corridors bend a little
SHORTEST_ROAD = 10.0  # metres
FEWEST_FOR_CROSSING = 8  # smaller networks are one corridor


@dataclass(frozen=True)
class RoadNetwork:
    """Directed roads between N sensors."""

    adjacency: csr_array  # float64 [N, N], metres from row to column
    positions: NDArray[np.float64]  # [N, 2], metres east and north
    corridor: NDArray[np.int64]  # [N], number of the corridor that a sensor lies on, in order of travel


def build_network(num_sensors: int, rng: np.random.Generator) -> RoadNetwork:
    """A network of `num_sensors` >= 1 sensors; sensors of a corridor are consecutive, in the direction of travel."""
    # Rounded down, so that a corridor has two sensors of its own for each of its crossings.
    across = max(1, int(np.sqrt(num_sensors / 4)))
    num_corridors = 2 * across if num_sensors >= FEWEST_FOR_CROSSING else 1
    lengths = np.full(num_corridors, num_sensors // num_corridors, dtype=np.int64)
    lengths[: num_sensors % num_corridors] += 1
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    corridor = np.repeat(np.arange(num_corridors), lengths)
    rank = np.arange(num_sensors) - first[corridor]

    extent = SENSOR_SPACING * num_sensors / num_corridors
    positions = _place(corridor, rank, lengths, across, extent, rng)
    chain = np.flatnonzero(corridor[:-1] == corridor[1:])
    sources, targets = [chain], [chain + 1]
    if num_corridors > 1:
        for ramp_sources, ramp_targets in _ramps(first, lengths, across):
            sources.append(ramp_sources)
            targets.append(ramp_targets)
    source, target = np.concatenate(sources), np.concatenate(targets)
    metres = np.linalg.norm(positions[source] - positions[target], axis=1).round(1).clip(SHORTEST_ROAD)
    adjacency = csr_array((metres, (source, target)), shape=(num_sensors, num_sensors))
    return RoadNetwork(adjacency, positions, corridor)


def incoming_roads(
    adjacency: csr_array,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Roads into each sensor, `[most roads into a sensor, N]`: from where, metres, whether on the same corridor.

    A place without a road has 0 metres.
    """
    num_sensors = adjacency.shape[0]
    roads = adjacency.tocoo()
    order = np.argsort(roads.col, kind="stable")
    source, target, metres = roads.row[order], roads.col[order], roads.data[order]
    count = np.bincount(target, minlength=num_sensors)
    place = np.arange(len(target)) - (np.cumsum(count) - count)[target]
    shape = (int(count.max(initial=0)), num_sensors)
    upstream, length, is_chain = np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    upstream[place, target] = source
    length[place, target] = metres
    is_chain[place, target] = (
        target - source == 1
    )  # sensors of a corridor are numbered in order; ramps never join i, i+1
    return upstream, length, is_chain


def _is_reversed(corridor: NDArray[np.int64]) -> NDArray[np.bool_]:
    return corridor // 2 % 2 == 1


def _place(
    corridor: NDArray[np.int64],
    rank: NDArray[np.int64],
    lengths: NDArray[np.int64],
    across: int,
    extent: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Positions `[N, 2]` in metres; even corridors run along the first axis, odd ones along the second."""
    spacing = extent / lengths[corridor]
    along = (rank + 0.5 + rng.uniform(-ALONG_JITTER, ALONG_JITTER, len(rank))) * spacing
    along = np.where(_is_reversed(corridor), extent - along, along)
    aside = (corridor // 2 + 0.5) * extent / across + rng.uniform(-ACROSS_JITTER, ACROSS_JITTER, len(rank)) * spacing
    runs_east_west = (corridor % 2 == 0)[:, None]
    return np.where(runs_east_west, np.stack([along, aside], axis=1), np.stack([aside, along], axis=1))


def _ramps(
    first: NDArray[np.int64], lengths: NDArray[np.int64], across: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Ramps of all crossings as (source, target) sensors: east-west to north-south, and back."""
    column, row = (grid.ravel() for grid in np.meshgrid(np.arange(across), np.arange(across)))
    east_west, north_south = 2 * row, 2 * column + 1

    def around(corridor: NDArray[np.int64], crossing: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Last sensor before and first sensor after the place (crossing + 1/2) / across of a corridor."""
        travelled = np.where(_is_reversed(corridor), across - 1 - crossing, crossing)
        after = first[corridor] + (2 * travelled + 1) * lengths[corridor] // (2 * across)
        return after - 1, after

    before_east_west, after_east_west = around(east_west, column)
    before_north_south, after_north_south = around(north_south, row)
    return [(before_east_west, after_north_south), (before_north_south, after_east_west)]
