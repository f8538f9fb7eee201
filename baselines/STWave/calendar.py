"""The calendar of past and future steps as vectors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.STWave.config import STWaveConfig
from ealinformer.models.windows import slot_of


class CalendarEmbedding(nn.Module):
    """Time of day and day of week, each one-hot and side by side, through two linear maps with a ReLU between."""

    def __init__(self, config: STWaveConfig) -> None:
        super().__init__()
        self.num_time_in_day, self.num_day_in_week = config.num_time_in_day, config.num_day_in_week
        self.output_len = config.output_len
        self.slots = nn.Linear(self.num_time_in_day + self.num_day_in_week, config.hidden_size)
        self.hidden = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, inputs_timestamps: Tensor, targets_timestamps: Tensor | None) -> tuple[Tensor, Tensor]:
        """`[B, L, 2]` and `[B, H, 2]`, in [0, 1) -> `[B, L, 1, D]` and `[B, H, 1, D]`.

        Without the second the calendar goes on from the last step of the first.
        """
        clock, day = self._slots(inputs_timestamps)
        future = (
            self._after(clock[:, -1:], day[:, -1:]) if targets_timestamps is None else self._slots(targets_timestamps)
        )
        clock, day = torch.cat([clock, future[0]], dim=1), torch.cat([day, future[1]], dim=1)
        rows = self.slots.weight.t()  # what a one-hot vector picks
        picked = F.embedding(clock, rows) + F.embedding(day + self.num_time_in_day, rows) + self.slots.bias
        embedded = self.hidden(F.relu(picked)).unsqueeze(2)
        past = inputs_timestamps.shape[1]
        return embedded[:, :past], embedded[:, past:]

    def _slots(self, timestamps: Tensor) -> tuple[Tensor, Tensor]:
        return slot_of(timestamps[..., 0], self.num_time_in_day), slot_of(timestamps[..., 1], self.num_day_in_week)

    def _after(self, clock: Tensor, day: Tensor) -> tuple[Tensor, Tensor]:
        step = clock + torch.arange(1, self.output_len + 1, device=clock.device)
        days = step.div(self.num_time_in_day, rounding_mode="floor")
        return step % self.num_time_in_day, (day + days) % self.num_day_in_week
