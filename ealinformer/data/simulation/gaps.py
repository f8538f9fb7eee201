"""Gaps: where readings are missing."""

import numpy as np
from numpy.typing import NDArray

OUTAGE_SHARE = 0.6  # of the missing readings
OUTAGE_MINUTES = 4 * 60.0


class Gaps:
    """Missing readings: single ones, and outages that begin and end at random."""

    def __init__(
        self,
        num_sensors: int,
        interval_minutes: int,
        share: float,
        single: np.random.Generator,
        outages: np.random.Generator,
    ) -> None:
        self.single_rng, self.outage_rng = single, outages
        in_outage = OUTAGE_SHARE * share
        self.single = (share - in_outage) / (1 - in_outage)
        self.end = 1 / max(1.0, OUTAGE_MINUTES / interval_minutes)
        self.begin = self.end * in_outage / (1 - in_outage)  # keeps in_outage of the sensors in one
        self.out = outages.random(num_sensors, dtype=np.float32) < in_outage

    def advance(self, steps: int) -> NDArray[np.bool_]:
        """Where readings are missing in the next rows, `[steps, N]`."""
        missing = self.single_rng.random((steps, len(self.out)), dtype=np.float32) < self.single
        draws = self.outage_rng.random((steps, len(self.out)), dtype=np.float32)
        for row, draw in zip(missing, draws, strict=True):
            row |= self.out
            self.out = np.where(self.out, draw >= self.end, draw < self.begin)
        return missing
