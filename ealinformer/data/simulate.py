"""Simulated traffic: flow or speed on simulated roads, for a demo and for measurements by shape.

Nothing here is measured, so an error on it says nothing about real roads. What is simulated, for sensor i at step t on
day k (e are independent draws of N(0, 1)):

    p_i(t) = night level + bumps: on weekdays a plateau, a morning and an evening peak, at the weekend a single one;
             height, time and width differ by sensor, a high morning peak goes with a low evening peak
    u_i(k) = log demand of the day, of the city and of the corridor, each an AR(1) over days
    l_i(t) = e smoothed twice with exp(-t / FADE_MINUTES), scaled to variance 1
    b_i(t) = depth while an incident of 20 to 90 minutes lasts (deeper if longer), else 0
    d_i(t) = s_i l_i(t) -+ b_i(t) + sum over roads j -> i of w_ji d_j(t - delay_ji), waves that go the way of the
             traffic; delay_ji = distance / WAVE_METRES_PER_MINUTE, a step at least; s_i is large where no road leads
             in; an incident lowers flow (-) and raises the load that sets speed (+)
    q_i(t) = p_i(t) exp(u_i(k) + d_i(t)), demand as a share of capacity
    flow   = round(size_i q_i + FLOW_NOISE sqrt(size_i q_i) e), at least 1 and at most 120 vehicles a minute
    speed  = free_i + (jam_i - free_i) sigmoid((q_i - onset_i) / JAM_WIDTH) + SPEED_NOISE e, within 5 to 75 mph

and 0 where a reading is missing: single ones at random, and outages of a sensor that last four hours on average. Left
out are queues that grow against the traffic, conservation of vehicles, holidays and correlated faults.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from ealinformer.data.network import RoadNetwork, build_network, incoming_roads
from ealinformer.data.spec import MINUTES_PER_DAY
from ealinformer.errors import InputError
from ealinformer.files import replaced_whole, write_text

Quantity: TypeAlias = Literal["flow", "speed"]
Floats: TypeAlias = NDArray[np.float32]

FLOW_LIMIT_PER_MINUTE = 120  # 600 vehicles in 5 minutes
FLOW_AT_CAPACITY_PER_MINUTE = (38.0, 74.0)  # of a corridor
FLOW_NOISE = 1.0
SPEED_LIMITS = (5.0, 75.0)  # mph
SPEED_NOISE = 1.2
JAM_ONSET, JAM_WIDTH = (0.85, 1.15), 0.12  # share of capacity at which a sensor's speed breaks down; how sharply
MOST_MISSING = 0.5

WAVE_METRES_PER_MINUTE = 200.0  # 12 km/h: a 5 km road delays a wave by 25 minutes, five steps of 5 minutes
FADE_MINUTES = 30.0
WARM_UP_MINUTES = 6 * 60  # the waves are let run this long before the first row
CHAIN_WEIGHT, RAMP_WEIGHT = 0.72, 0.22  # sum below 1, so that waves die out on roads that form a loop
SINGLE_WEIGHT = 0.92
ENTRY_SPREAD, INSIDE_SPREAD = 0.30, 0.10  # of the local disturbance, as a share of demand
WEEKDAY_SIZES = (0.96, 0.99, 1.0, 1.01, 1.06, 1.0, 0.86)  # of demand, Monday first
DAY_PERSISTENCE = 0.5
CITY_DAY_SPREAD, CORRIDOR_DAY_SPREAD = 0.06, 0.06
DAYS_BETWEEN_INCIDENTS = 12.0  # of one sensor
INCIDENT_MINUTES = (20.0, 90.0)
INCIDENT_DEPTH = (0.3, 1.0)
OUTAGE_SHARE = 0.6  # of the missing readings
OUTAGE_MINUTES = 4 * 60.0

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
    source = _TrafficSource(num_sensors, seed, quantity, interval_minutes, start, missing_share)
    return (source.read(min(block_steps, num_steps - row)) for row in range(0, num_steps, block_steps))


def simulate_network(num_sensors: int, *, seed: int = 0) -> RoadNetwork:
    """The roads below `simulate_traffic` and `iterate_traffic` with this seed."""
    _at_least("num_sensors", num_sensors, 1)
    _at_least("seed", seed, 0)
    return build_network(num_sensors, _streams(seed)["network"])


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


def _streams(seed: int) -> dict[str, np.random.Generator]:
    """One generator for each thing drawn: each is read row by row, so blocks of any size see the same numbers."""
    names = ("network", "sensors", "days", "local", "incidents", "readings", "single", "outages")
    return dict(zip(names, map(np.random.default_rng, np.random.SeedSequence(seed).spawn(len(names))), strict=True))


class _TrafficSource:
    """Reads consecutive rows of one simulated series."""

    def __init__(
        self,
        num_sensors: int,
        seed: int,
        quantity: Quantity,
        interval_minutes: int,
        start: datetime,
        missing_share: float,
    ) -> None:
        streams = _streams(seed)
        network = build_network(num_sensors, streams["network"])
        self.interval = interval_minutes
        self.next_step = 0
        # A reading stands for its whole interval, so demand is taken in the middle of it.
        self.first_minute = start.weekday() * MINUTES_PER_DAY + start.hour * 60 + start.minute + interval_minutes // 2
        self.profile = _Profile(network.corridor, streams["sensors"])
        self.sensors: _FlowSensors | _SpeedSensors
        if quantity == "flow":
            self.sensors = _FlowSensors(interval_minutes, network.corridor, streams["sensors"])
        else:
            self.sensors = _SpeedSensors(network.corridor, streams["sensors"])
        self.days = _DailyDemand(network.corridor, streams["days"])
        self.waves = _Waves(network.adjacency, interval_minutes, quantity, streams["local"], streams["incidents"])
        self.readings = streams["readings"]
        self.gaps = _Gaps(num_sensors, interval_minutes, missing_share, streams["single"], streams["outages"])
        for _ in range(0, WARM_UP_MINUTES, interval_minutes):
            self.waves.advance(1)

    def read(self, steps: int) -> Floats:
        """The next `steps` rows `[steps, N]`."""
        minute = self.first_minute + self.interval * np.arange(self.next_step, self.next_step + steps)
        self.next_step += steps
        demand = self.waves.advance(steps)
        demand += self.days.at(minute // MINUTES_PER_DAY)
        np.exp(demand, out=demand)
        demand *= self.profile.at(minute)
        values = self.sensors.measure(demand, self.readings)
        values[self.gaps.advance(steps)] = 0
        return values


class _Profile:
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


class _DailyDemand:
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


class _Waves:
    """Disturbances of log demand that enter at sensors and travel along the roads."""

    def __init__(
        self,
        adjacency: csr_array,
        interval_minutes: int,
        quantity: Quantity,
        local: np.random.Generator,
        incidents: np.random.Generator,
    ) -> None:
        num_sensors = adjacency.shape[0]
        self.local_rng, self.incident_rng = local, incidents
        self.interval = interval_minutes
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

        # An incident takes vehicles off the road, and slows down those that stay.
        self.incident_sign = np.float32(-1 if quantity == "flow" else 1)
        self.incident_chance = interval_minutes / (DAYS_BETWEEN_INCIDENTS * MINUTES_PER_DAY)
        self.depth = np.zeros(num_sensors, dtype=np.float32)
        self.remaining = np.zeros(num_sensors, dtype=np.int32)  # steps of an incident

    def advance(self, steps: int) -> Floats:
        """The next `steps` rows of the field `[steps, N]`."""
        field = self.local_rng.standard_normal((steps, len(self.spread)), dtype=np.float32)
        onset = self.incident_rng.random((steps, len(self.spread)), dtype=np.float32)
        for row, draws in zip(field, onset, strict=True):
            self.once += self.gain * (row - self.once)
            self.twice += self.gain * (self.once - self.twice)
            np.multiply(self.twice, self.spread, out=row)
            row += self._incidents(draws)
            for upstream, weight, delay in zip(self.upstream, self.weight, self.delay, strict=True):
                row += weight * self.history[(self.step - delay) % len(self.history), upstream]
            self.history[self.step % len(self.history)] = row
            self.step += 1
        return field

    def _incidents(self, draws: Floats) -> Floats:
        """Effect `[N]` of the incidents of this step on the field."""
        np.maximum(self.remaining - 1, 0, out=self.remaining)
        self.depth[self.remaining == 0] = 0
        begun = np.flatnonzero(draws < self.incident_chance)
        if begun.size:
            size = draws[begun] / self.incident_chance  # uniform in 0..1 again: no second draw needed
            self.remaining[begun] = np.ceil(_between(INCIDENT_MINUTES, size) / self.interval)
            self.depth[begun] = _between(INCIDENT_DEPTH, size)
        return self.incident_sign * self.depth


def _between(limits: tuple[float, float], share: Floats) -> Floats:
    return limits[0] + (limits[1] - limits[0]) * share


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


class _FlowSensors:
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


class _SpeedSensors:
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


class _Gaps:
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


def write_raw(directory: Path, name: str, traffic: SimulatedTraffic) -> None:
    """Write `<directory>/<name>/<name>.npz` (`data`, float32 `[T, N, 1]`) and `<name>.csv` (`from,to,cost`, metres).

    Each file appears whole or not at all. Raises InputError when the directory cannot be written to.
    """
    folder = directory / name
    roads = traffic.adjacency.tocoo()
    lines = ["from,to,cost", *(f"{i},{j},{cost}" for i, j, cost in zip(roads.row, roads.col, roads.data, strict=True))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    with replaced_whole(folder / f"{name}.npz") as temporary:
        np.savez_compressed(temporary, data=traffic.values[:, :, None])
    write_text(folder / f"{name}.csv", "\n".join(lines) + "\n")
