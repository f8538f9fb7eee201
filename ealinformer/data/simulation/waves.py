"""Waves d_i(t): disturbances of log demand that enter at sensors and travel along the roads."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ealinformer.data.simulation.incidents import Incidents
from ealinformer.data.simulation.network import incoming_roads
from ealinformer.data.simulation.types import Floats

WAVE_METRES_PER_MINUTE = 200.0  # 12 km/h: a 5 km road delays a wave by 25 minutes, five steps of 5 minutes
FADE_MINUTES = 30.0
CHAIN_WEIGHT, RAMP_WEIGHT = 0.72, 0.22  # sum below 1, so that waves die out on roads that form a loop
SINGLE_WEIGHT = 0.92
ENTRY_SPREAD, INSIDE_SPREAD = 0.30, 0.10  # of the local disturbance, as a share of demand


class Waves:
    """Disturbances of log demand that enter at sensors and travel along the roads."""

    def __init__(
        self,
        adjacency: csr_array,
        interval_minutes: int,
        incidents: Incidents,
        rng: np.random.Generator,
    ) -> None:
        num_sensors = adjacency.shape[0]
        self.incidents = incidents
        self.rng = rng
        self.upstream, metres, is_chain = incoming_roads(adjacency)
        self.weight = _road_weights(metres, is_chain)
        self.delay = np.rint(metres / (WAVE_METRES_PER_MINUTE * interval_minutes)).astype(np.int64).clip(1)
        self.history = np.zeros((int(self.delay.max(initial=1)) + 1, num_sensors), dtype=np.float32)
        self.step = 0

        self.gain = np.float32(1 - np.exp(-interval_minutes / FADE_MINUTES))
        is_entry = ~self.weight.any(axis=0)
        spread = np.where(is_entry, ENTRY_SPREAD, INSIDE_SPREAD) / _twice_smoothed_spread(float(self.gain))
        self.spread = spread.astype(np.float32)
        self.once = np.zeros(num_sensors, dtype=np.float32)
        self.twice = np.zeros(num_sensors, dtype=np.float32)

    def advance(self, steps: int) -> Floats:
        """The next `steps` rows of the field `[steps, N]`."""
        field = self.rng.standard_normal((steps, len(self.spread)), dtype=np.float32)
        for row, incidents in zip(field, self.incidents.advance(steps), strict=True):
            self.once += self.gain * (row - self.once)
            self.twice += self.gain * (self.once - self.twice)
            np.multiply(self.twice, self.spread, out=row)
            row += incidents
            for upstream, weight, delay in zip(self.upstream, self.weight, self.delay, strict=True):
                row += weight * self.history[(self.step - delay) % len(self.history), upstream]
            self.history[self.step % len(self.history)] = row
            self.step += 1
        return field


def _twice_smoothed_spread(gain: float) -> float:
    """Standard deviation of white noise after two passes of x += gain * (input - x)."""
    keep = 1 - gain
    return float(np.sqrt(gain**4 * (1 + keep**2) / (1 - keep**2) ** 3))


def _road_weights(metres: Floats, is_chain: NDArray[np.bool_]) -> Floats:
    """How much of a wave each road hands on, `[most roads into a sensor, N]`; 0 where there is no road."""
    is_road = metres > 0
    weight = np.where(is_chain, CHAIN_WEIGHT, RAMP_WEIGHT)
    weight = np.where(is_road.sum(axis=0) == 1, SINGLE_WEIGHT, weight)
    return np.where(is_road, weight, 0).astype(np.float32)
