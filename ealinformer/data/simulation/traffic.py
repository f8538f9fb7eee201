"""Simulated series as a whole or in blocks, and the roads below them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from scipy.sparse import csr_array

from ealinformer.data.simulation.network import RoadNetwork, build_network
from ealinformer.data.simulation.source import TrafficSource, random_streams
from ealinformer.data.simulation.types import Floats, Quantity
from ealinformer.data.spec import MINUTES_PER_DAY
from ealinformer.errors import InputError

MOST_MISSING = 0.5
READINGS_PER_BLOCK = 2_000_000  # bounds the memory of the intermediate arrays


@dataclass(frozen=True)
class SimulatedTraffic:
    """A simulated series and its roads."""

    values: Floats  # [T, N], vehicles per interval or mph; 0 is a missing reading
    adjacency: csr_array  # float64 [N, N], metres from row to column


def simulate_traffic(
    num_sensors: int,
    num_steps: int,
    *,
    seed: int = 0,
    quantity: Quantity = "flow",
    interval_minutes: int = 5,
    start: datetime = datetime(2024, 1, 1),
    missing_share: float = 0.01,
) -> SimulatedTraffic:
    """Simulate T = `num_steps` readings of N = `num_sensors` sensors; the same arguments give the same series.

    A longer series with the same seed begins with the shorter one. Raises InputError on arguments out of range.
    """
    blocks = iterate_traffic(
        num_sensors,
        num_steps,
        seed=seed,
        quantity=quantity,
        interval_minutes=interval_minutes,
        start=start,
        missing_share=missing_share,
    )
    values = np.empty((num_steps, num_sensors), dtype=np.float32)
    row = 0
    for block in blocks:
        values[row : row + len(block)] = block
        row += len(block)
    return SimulatedTraffic(values, simulate_network(num_sensors, seed=seed).adjacency)


def iterate_traffic(
    num_sensors: int,
    num_steps: int,
    *,
    seed: int = 0,
    quantity: Quantity = "flow",
    interval_minutes: int = 5,
    start: datetime = datetime(2024, 1, 1),
    missing_share: float = 0.01,
    block_steps: int | None = None,
) -> Iterator[Floats]:
    """The rows of `simulate_traffic` in blocks `[block_steps, N]`, for series larger than memory.

    The last block may be shorter; the values do not depend on `block_steps`. Raises InputError as `simulate_traffic`.
    """
    _check(num_sensors, num_steps, seed, quantity, interval_minutes, missing_share)
    if block_steps is None:
        block_steps = max(1, READINGS_PER_BLOCK // num_sensors)
    _at_least("block_steps", block_steps, 1)
    source = TrafficSource(num_sensors, seed, quantity, interval_minutes, start, missing_share)
    return (source.read(min(block_steps, num_steps - row)) for row in range(0, num_steps, block_steps))


def simulate_network(num_sensors: int, *, seed: int = 0) -> RoadNetwork:
    """The roads below `simulate_traffic` and `iterate_traffic` with this seed."""
    _at_least("num_sensors", num_sensors, 1)
    _at_least("seed", seed, 0)
    return build_network(num_sensors, random_streams(seed)["network"])


def _check(
    num_sensors: int, num_steps: int, seed: int, quantity: str, interval_minutes: int, missing_share: float
) -> None:
    _at_least("num_sensors", num_sensors, 1)
    _at_least("num_steps", num_steps, 1)
    _at_least("seed", seed, 0)
    if quantity not in ("flow", "speed"):
        raise InputError(f"quantity is {quantity!r}, expected 'flow' or 'speed'")
    if interval_minutes < 1 or MINUTES_PER_DAY % interval_minutes:
        raise InputError(f"interval_minutes is {interval_minutes}, expected a divisor of {MINUTES_PER_DAY}")
    if not 0 <= missing_share <= MOST_MISSING:
        raise InputError(f"missing_share is {missing_share}, expected 0 to {MOST_MISSING}")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name} is {value}, expected {least} or more")
