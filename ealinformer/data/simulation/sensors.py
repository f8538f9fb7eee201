"""Sensors: the flow or speed that is read at a demand q_i(t), with the noise of the reading."""

import numpy as np
from numpy.typing import NDArray

from ealinformer.data.simulation.types import Floats

FLOW_LIMIT_PER_MINUTE = 120  # 600 vehicles in 5 minutes
FLOW_AT_CAPACITY_PER_MINUTE = (38.0, 74.0)  # of a corridor
FLOW_NOISE = 1.0
SPEED_LIMITS = (5.0, 75.0)  # mph
SPEED_NOISE = 1.2
JAM_ONSET, JAM_WIDTH = (0.85, 1.15), 0.12  # share of capacity at which a sensor's speed breaks down; how sharply


class FlowSensors:
    """Vehicle counts per interval."""

    def __init__(self, interval_minutes: int, corridor: NDArray[np.int64], rng: np.random.Generator) -> None:
        road = rng.uniform(*FLOW_AT_CAPACITY_PER_MINUTE, corridor[-1] + 1)[corridor]
        self.size = (interval_minutes * road * rng.uniform(0.85, 1.15, len(corridor))).astype(np.float32)
        self.limit = interval_minutes * FLOW_LIMIT_PER_MINUTE

    def measure(self, demand: Floats, rng: np.random.Generator) -> Floats:
        """Readings `[steps, N]` of demand `[steps, N]`, which is used up."""
        demand *= self.size
        noise = rng.standard_normal(demand.shape, dtype=np.float32)
        noise *= np.sqrt(demand)
        noise *= FLOW_NOISE
        demand += noise
        # At least one vehicle: zero means a missing reading.
        return np.clip(np.rint(demand, out=demand), 1, self.limit, out=demand)


class SpeedSensors:
    """Mean speeds in mph."""

    def __init__(self, corridor: NDArray[np.int64], rng: np.random.Generator) -> None:
        num_sensors, num_corridors = len(corridor), corridor[-1] + 1
        self.free = (rng.uniform(60, 68, num_corridors)[corridor] + rng.normal(0, 1.5, num_sensors)).astype(np.float32)
        self.jam = rng.uniform(10, 25, num_sensors).astype(np.float32)
        self.onset = rng.uniform(*JAM_ONSET, num_sensors).astype(np.float32)

    def measure(self, demand: Floats, rng: np.random.Generator) -> Floats:
        """Readings `[steps, N]` of demand `[steps, N]`, which is used up."""
        demand -= self.onset
        demand /= 2 * JAM_WIDTH
        np.tanh(demand, out=demand)  # sigmoid(x) = (1 + tanh(x / 2)) / 2, which does not overflow
        demand += 1
        demand *= 0.5 * (self.jam - self.free)
        demand += self.free
        noise = rng.standard_normal(demand.shape, dtype=np.float32)
        noise *= SPEED_NOISE
        demand += noise
        demand *= 10
        np.rint(demand, out=demand)
        demand /= 10
        return np.clip(demand, *SPEED_LIMITS, out=demand)
