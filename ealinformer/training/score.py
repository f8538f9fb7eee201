"""What an epoch or a split has shown so far: metrics and mean loss, summed up on the device."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ealinformer.training.distributed.groups import sum_in_place
from ealinformer.training.metrics import MetricSums


@dataclass
class Score:
    """Metrics and mean loss over a split, summed up batch by batch so that no step waits for the device."""

    sums: MetricSums
    loss_sum: Tensor
    weight: Tensor
    predictions: list[Tensor] = field(default_factory=list)

    @classmethod
    def zeros(cls, output_len: int, device: torch.device | str = "cpu") -> "Score":
        zero = torch.zeros((), dtype=torch.float64, device=device)
        return cls(MetricSums.zeros(output_len, device), zero, zero.clone())

    @property
    def loss(self) -> float:
        """Mean loss so far; reading it waits for the device."""
        return float(self.loss_sum / self.weight) if float(self.weight) else math.nan

    def add(self, prediction: Tensor, targets: Tensor, mask: Tensor, loss: Tensor, weight: Tensor) -> None:
        """Add a batch `[B, H, N]` on the original scale and its mean loss, which counts `weight` `[]` readings."""
        self.sums.update(prediction.detach(), targets, mask)
        self.loss_sum += loss.detach().double() * weight
        self.weight += weight

    def over_ranks(self) -> "Score":
        """The same over all processes of a distributed run, as a score of its own; predictions stay where they are."""
        state = {name: tensor.clone() for name, tensor in self.state().items()}
        sum_in_place(*state.values())
        return Score.from_state(state)

    def state(self) -> dict[str, Tensor]:
        """The running sums by name, for a checkpoint."""
        return {**vars(self.sums), "loss_sum": self.loss_sum, "weight": self.weight}

    @classmethod
    def from_state(cls, state: dict[str, Tensor], device: torch.device | str | None = None) -> "Score":
        """The score whose `state()` that was."""
        moved = {name: tensor.clone() if device is None else tensor.to(device) for name, tensor in state.items()}
        loss_sum, weight = moved.pop("loss_sum"), moved.pop("weight")
        return cls(MetricSums(**moved), loss_sum, weight)


def shares_of_readings(weights: Sequence[Tensor], world_size: int) -> tuple[list[Tensor], Tensor]:
    """Readings `[]` in the parts of this rank's batch -> what their mean losses are scaled by, and all readings.

    The gradient of a step is that of the mean over all readings, whatever number of them each part and each rank has;
    torch adds up the gradients of parts, and averages those of ranks.
    """
    readings = torch.stack(list(weights)).sum()
    sum_in_place(readings)
    readings = readings.clamp(min=1)
    return [weight * world_size / readings for weight in weights], readings


def mean_over_ranks(losses: Sequence[Tensor], weights: Sequence[Tensor], readings: Tensor) -> Tensor:
    """Mean losses over `weights` readings of this rank's parts -> the mean over all `readings` of all ranks."""
    total = torch.stack([loss.detach().double() * weight for loss, weight in zip(losses, weights, strict=True)]).sum()
    sum_in_place(total)
    return total / readings
