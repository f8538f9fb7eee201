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

from ealinformer.data.simulation.network import RoadNetwork
from ealinformer.data.simulation.traffic import SimulatedTraffic, iterate_traffic, simulate_network, simulate_traffic
from ealinformer.data.simulation.types import Quantity
from ealinformer.data.simulation.write import write_raw

__all__ = [
    "Quantity",
    "RoadNetwork",
    "SimulatedTraffic",
    "iterate_traffic",
    "simulate_network",
    "simulate_traffic",
    "write_raw",
]
