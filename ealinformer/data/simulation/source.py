"""The rows of a simulated series, made one after another from demand, waves, sensors and gaps."""

from datetime import datetime

import numpy as np

from ealinformer.data.simulation.demand import DailyDemand, Profile
from ealinformer.data.simulation.gaps import Gaps
from ealinformer.data.simulation.incidents import Incidents
from ealinformer.data.simulation.network import build_network
from ealinformer.data.simulation.sensors import FlowSensors, SpeedSensors
from ealinformer.data.simulation.types import Floats, Quantity
from ealinformer.data.simulation.waves import Waves
from ealinformer.data.spec import MINUTES_PER_DAY

WARM_UP_MINUTES = 6 * 60  # the waves are let run this long before the first row


class TrafficSource:
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
        streams = random_streams(seed)
        network = build_network(num_sensors, streams["network"])
        self.interval = interval_minutes
        self.next_step = 0
        # A reading stands for its whole interval, so demand is taken in the middle of it.
        self.first_minute = start.weekday() * MINUTES_PER_DAY + start.hour * 60 + start.minute + interval_minutes // 2
        self.profile = Profile(network.corridor, streams["sensors"])
        self.sensors: FlowSensors | SpeedSensors
        if quantity == "flow":
            self.sensors = FlowSensors(interval_minutes, network.corridor, streams["sensors"])
        else:
            self.sensors = SpeedSensors(network.corridor, streams["sensors"])
        self.days = DailyDemand(network.corridor, streams["days"])
        incidents = Incidents(num_sensors, interval_minutes, quantity, streams["incidents"])
        self.waves = Waves(network.adjacency, interval_minutes, incidents, streams["local"])
        self.readings = streams["readings"]
        self.gaps = Gaps(num_sensors, interval_minutes, missing_share, streams["single"], streams["outages"])
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


def random_streams(seed: int) -> dict[str, np.random.Generator]:
    """One generator for each thing drawn: each is read row by row, so blocks of any size see the same numbers."""
    names = ("network", "sensors", "days", "local", "incidents", "readings", "single", "outages")
    return dict(zip(names, map(np.random.default_rng, np.random.SeedSequence(seed).spawn(len(names))), strict=True))
