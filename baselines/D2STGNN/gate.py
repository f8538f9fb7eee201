"""The estimation gate: which share of the traffic at a sensor, at a time, comes from its neighbours."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EstimationGate(nn.Module):
    """Lets the diffusion block see a share in (0, 1) of a signal (arXiv 2206.09112, section on the estimation gate).

    The share is sigmoid(MLP(T_D || T_W || E_u || E_d)): it depends on the time and on the sensor, not on the readings.

    Args:
        calendar_size: width of the embedding of a step, time of day and day of week side by side.
        sensor_size: width of the embedding of a sensor, E_u and E_d side by side.
        gate_hidden_size: hidden width of the MLP.
    """

    def __init__(self, calendar_size: int, sensor_size: int, gate_hidden_size: int) -> None:
        super().__init__()
        self.sizes = (calendar_size, sensor_size)
        self.hidden = nn.Linear(calendar_size + sensor_size, gate_hidden_size)
        self.share = nn.Linear(gate_hidden_size, 1)

    def forward(self, signal: Tensor, calendar: Tensor, sensors: Tensor) -> Tensor:
        """Signal `[B, N, L, D]`, steps `[B, L, calendar_size]` and sensors `[N, sensor_size]` -> `[B, N, L, D]`."""
        # Steps and sensors pass the first map by themselves and meet in a sum, not as N L pairs of both.
        of_steps, of_sensors = self.hidden.weight.split(self.sizes, dim=1)
        steps = F.linear(calendar, of_steps, self.hidden.bias)  # [B, L, gate_hidden_size]
        hidden = steps[:, None] + F.linear(sensors, of_sensors)[:, None]
        return signal * torch.sigmoid(self.share(torch.relu(hidden)))
