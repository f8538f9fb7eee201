"""What a model is handed: windows of z-scored readings, and the calendar of their steps."""

import torch
from torch import Tensor

# k / 1440 in float32 times 1440 may come out below k; a hundredth of a slot is more than that, up to one slot a second.
SLOT_TOLERANCE = 0.01


def check_windows(inputs: Tensor, inputs_timestamps: Tensor | None, input_len: int, num_features: int) -> None:
    """Raises ValueError where `inputs` are not `[B, L, N]`, or the timestamps not `[B, L, 2]` of the same windows."""
    if inputs.shape[1:] != (input_len, num_features):
        raise ValueError(f"inputs [B, {input_len}, {num_features}] are expected, got {tuple(inputs.shape)}")
    if inputs_timestamps is None:
        return
    if inputs_timestamps.shape[:-1] != inputs.shape[:-1] or inputs_timestamps.shape[-1] < 2:
        raise ValueError(
            f"inputs_timestamps [{inputs.shape[0]}, {input_len}, 2] are expected, got {tuple(inputs_timestamps.shape)}"
        )


def slot_of(fraction: Tensor, count: int) -> Tensor:
    """The number of the slot, of `count` in a day or a week, for a fraction of it in [0, 1): whole numbers."""
    return (fraction * count + SLOT_TOLERANCE).floor().long() % count


def with_time_of_day(inputs: Tensor, inputs_timestamps: Tensor) -> Tensor:
    """Readings `[B, L, N]` and timestamps `[B, L, 2]` -> `[B, L, N, 2]`: the reading, and its time of day in [0, 1)."""
    clock = inputs_timestamps[..., :1].to(inputs.dtype)
    return torch.stack([inputs, clock.expand_as(inputs)], dim=-1)
