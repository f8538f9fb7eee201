"""Demand: p_i(t), the profile of each sensor over the day and week, and u_i(k), its size on each day."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ealinformer.data.simulation.types import Floats
from ealinformer.data.spec import MINUTES_PER_DAY

WEEKDAY_SIZES = (0.96, 0.99, 1.0, 1.01, 1.06, 1.0, 0.86)  # of demand, Monday first
DAY_PERSISTENCE = 0.5
CITY_DAY_SPREAD, CORRIDOR_DAY_SPREAD = 0.06, 0.06


class Profile:
    """Demand over the day and week of each sensor, as a share of its capacity."""

    def __init__(self, corridor: NDArray[np.int64], rng: np.random.Generator) -> None:
        num_sensors, num_corridors = len(corridor), corridor[-1] + 1

        def around(mean: float, spread: float) -> Floats:
            return (mean + spread * rng.standard_normal(num_sensors)).astype(np.float32)

        def within(low: float, high: float) -> Floats:
            return rng.uniform(low, high, num_sensors).astype(np.float32)

        # Sensors of a corridor are alike: who drives into town on it in the morning leaves by another one at night.
        into_town = (rng.uniform(0, 1, num_corridors)[corridor] + around(0, 0.12)).clip(0, 1).astype(np.float32)
        self.weekday = [
            _Bump(around(13.8 * 60, 15), within(360, 400), around(0.46, 0.05), power=4),
            _Bump(around(7.75 * 60, 20), within(55, 90), 0.60 * into_town),
            _Bump(around(17.3 * 60, 25), within(75, 125), 0.60 - 0.50 * into_town),
        ]
        self.weekend = [_Bump(around(14.5 * 60, 30), within(240, 300), around(0.50, 0.08))]
        self.night = within(0.08, 0.16)

    def at(self, minute: NDArray[np.int64]) -> Floats:
        """Profile `[steps, N]` at minutes counted from a Monday's midnight."""
        weekday = minute // MINUTES_PER_DAY % 7
        of_day = (minute % MINUTES_PER_DAY).astype(np.float32)
        profile = np.empty((len(minute), len(self.night)), dtype=np.float32)
        for rows, bumps in ((weekday < 5, self.weekday), (weekday >= 5, self.weekend)):
            if rows.any():
                profile[rows] = self.night + sum(bump.at(of_day[rows]) for bump in bumps)
        profile *= np.array(WEEKDAY_SIZES, dtype=np.float32)[weekday][:, None]
        return profile


@dataclass(frozen=True)
class _Bump:
    """height * exp(-|(minute - centre) / width|^power / 2) for each sensor."""

    centre: Floats  # [N], minute of the day
    width: Floats  # [N], minutes
    height: Floats  # [N]
    power: Literal[2, 4] = 2

    def at(self, of_day: Floats) -> Floats:
        """Values `[steps, N]` at minutes of the day."""
        exponent = of_day[:, None] - self.centre
        exponent /= self.width
        exponent *= exponent
        if self.power == 4:
            exponent *= exponent
        exponent *= -0.5
        bump = np.exp(exponent, out=exponent)
        bump *= self.height
        return bump


class DailyDemand:
    """Log demand of each day: an AR(1) over days for the city and one for each corridor."""

    def __init__(self, corridor: NDArray[np.int64], rng: np.random.Generator) -> None:
        self.corridor = corridor
        self.rng = rng
        self.day = -1
        self.level = np.zeros(corridor[-1] + 2)  # city first, in units of its spread

    def at(self, day: NDArray[np.int64]) -> Floats:
        """Log demand `[steps, N]` of steps on ascending days."""
        days, position = np.unique(day, return_inverse=True)
        return np.stack([self._advance(int(number)) for number in days])[position]

    def _advance(self, day: int) -> Floats:
        if self.day < 0:
            self.day, self.level = day, self.rng.standard_normal(len(self.level))
        while self.day < day:
            fresh = np.sqrt(1 - DAY_PERSISTENCE**2) * self.rng.standard_normal(len(self.level))
            self.day, self.level = self.day + 1, DAY_PERSISTENCE * self.level + fresh
        demand = CITY_DAY_SPREAD * self.level[0] + CORRIDOR_DAY_SPREAD * self.level[1:]
        return demand[self.corridor].astype(np.float32)
