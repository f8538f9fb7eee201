"""Incidents b_i(t): traffic that breaks down at one sensor for a while."""

import numpy as np

from ealinformer.data.simulation.types import Floats, Quantity
from ealinformer.data.spec import MINUTES_PER_DAY

DAYS_BETWEEN_INCIDENTS = 12.0  # of one sensor
INCIDENT_MINUTES = (20.0, 90.0)
INCIDENT_DEPTH = (0.3, 1.0)


class Incidents:
    """Incidents that begin at a sensor at random, last a while and end."""

    def __init__(self, num_sensors: int, interval_minutes: int, quantity: Quantity, rng: np.random.Generator) -> None:
        self.rng = rng
        self.interval = interval_minutes
        # An incident takes vehicles off the road, and slows down those that stay.
        self.sign = np.float32(-1 if quantity == "flow" else 1)
        self.chance = interval_minutes / (DAYS_BETWEEN_INCIDENTS * MINUTES_PER_DAY)
        self.depth = np.zeros(num_sensors, dtype=np.float32)
        self.remaining = np.zeros(num_sensors, dtype=np.int32)  # steps of an incident

    def advance(self, steps: int) -> Floats:
        """Effect `[steps, N]` on the log demand of the next rows."""
        effect = self.rng.random((steps, len(self.depth)), dtype=np.float32)
        for row in effect:
            row[:] = self._step(row)
        return effect

    def _step(self, draws: Floats) -> Floats:
        """Effect `[N]` of the incidents of one step."""
        np.maximum(self.remaining - 1, 0, out=self.remaining)
        self.depth[self.remaining == 0] = 0
        begun = np.flatnonzero(draws < self.chance)
        if begun.size:
            size = draws[begun] / self.chance  # uniform in 0..1 again: no second draw needed
            self.remaining[begun] = np.ceil(_between(INCIDENT_MINUTES, size) / self.interval)
            self.depth[begun] = _between(INCIDENT_DEPTH, size)
        return self.sign * self.depth


def _between(limits: tuple[float, float], share: Floats) -> Floats:
    return limits[0] + (limits[1] - limits[0]) * share
