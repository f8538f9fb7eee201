"""The calendar of the horizons, where nobody tells it."""

import torch
from torch import Tensor

from ealinformer.models.windows import slot_of


def continued(timestamps: Tensor, horizon: int, num_time_in_day: int, num_day_in_week: int) -> Tensor:
    """Time of day and day of week `[B, H, 2]` of the H steps after those of `timestamps` `[B, L, 2]`, all in [0, 1)."""
    last = timestamps[:, -1]
    now = slot_of(last[:, 1], num_day_in_week) * num_time_in_day + slot_of(last[:, 0], num_time_in_day)
    after = now.unsqueeze(1) + torch.arange(1, horizon + 1, device=timestamps.device)
    day, slot = after // num_time_in_day % num_day_in_week, after % num_time_in_day
    exact = timestamps.dtype
    return torch.stack([slot.to(exact) / num_time_in_day, day.to(exact) / num_day_in_week], dim=-1)
