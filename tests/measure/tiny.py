"""Models of a blink for the tests of what measures models; importable by the processes that measure."""

import torch
from torch import Tensor, nn


class Mixing(nn.Module):
    """`[B, L, N]` -> `[B, L, N]` by one product over the sensors; keeps the dtype that products were in."""

    def __init__(self, num_sensors: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_sensors, num_sensors) / num_sensors**0.5)
        self.seen: torch.dtype | None = None

    def forward(self, inputs: Tensor, timestamps: Tensor) -> Tensor:
        mixed = inputs @ self.weight
        self.seen = mixed.dtype
        return mixed


class Scaling(nn.Module):
    """A weight for each sensor: linear in N."""

    def __init__(self, num_sensors: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_sensors))

    def forward(self, inputs: Tensor, timestamps: Tensor) -> Tensor:
        return inputs * self.weight


class Greedy(Scaling):
    """Asks for 2 PiB when there are many sensors."""

    def forward(self, inputs: Tensor, timestamps: Tensor) -> Tensor:
        if inputs.shape[-1] > 16:
            torch.empty(2**49)
        return super().forward(inputs, timestamps)


class Broken(Scaling):
    """Takes no batch."""

    def forward(self, inputs: Tensor, timestamps: Tensor) -> Tensor:
        raise ValueError("no such sensor")


MODELS = {"mixing": Mixing, "scaling": Scaling, "greedy": Greedy, "broken": Broken}


def build(name: str, num_sensors: int) -> nn.Module:
    """A model by its name."""
    return MODELS[name](num_sensors)
