"""PDFormer's input (arXiv 2301.07945, section "Data Embedding Layer"): what is read, when, and where on the road."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.PDFormer.config import PDFormerConfig
from ealinformer.models.windows import slot_of

LONGEST_WAVE = 10_000.0  # arXiv 1706.03762, section 3.5


class DataEmbedding(nn.Module):
    """The sum of a linear map of the reading, the step's place in the window, minute, week day and the sensor's place.

    A sensor's place on the graph is a linear map of its entries in the eigenvectors of the Laplacian `[N, E]`. Their
    signs mean nothing, so each is flipped at random in training.
    """

    eigenvectors: Tensor
    positions: Tensor

    def __init__(self, config: PDFormerConfig, eigenvectors: Tensor) -> None:
        super().__init__()
        width = config.hidden_size
        self.value = nn.Linear(1, width)
        self.minute_in_day = nn.Embedding(config.num_minute_in_day, width)
        self.day_in_week = nn.Embedding(config.num_day_in_week, width)
        self.place = nn.Linear(eigenvectors.shape[1], width)
        self.register_buffer("eigenvectors", eigenvectors, persistent=False)
        self.register_buffer("positions", sinusoids(config.input_len, width), persistent=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, inputs: Tensor, timestamps: Tensor) -> Tensor:
        """`[B, L, N]` readings and `[B, L, 2]` time of day and day of week in [0, 1) -> `[B, L, N, D]`."""
        minute = slot_of(timestamps[..., 0], self.minute_in_day.num_embeddings)
        day = slot_of(timestamps[..., 1], self.day_in_week.num_embeddings)
        of_step = self.minute_in_day(minute) + self.day_in_week(day) + (self.positions + self.value.bias)
        of_sensor = self.place(self._signed_eigenvectors())
        of_reading = F.linear(inputs.unsqueeze(-1), self.value.weight)
        return self.dropout(of_reading + (of_step.unsqueeze(2) + of_sensor))

    def _signed_eigenvectors(self) -> Tensor:
        if not self.training:
            return self.eigenvectors
        heads_up = torch.rand(self.eigenvectors.shape[1], device=self.eigenvectors.device) < 0.5
        return torch.where(heads_up, self.eigenvectors, -self.eigenvectors)


def sinusoids(length: int, width: int) -> Tensor:
    """Sines in the even and cosines in the odd columns of `[length, width]` (arXiv 1706.03762, section 3.5)."""
    dtype = torch.get_default_dtype()
    step = torch.arange(length, dtype=dtype)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2, dtype=dtype) * (-math.log(LONGEST_WAVE) / width))
    waves = torch.stack([torch.sin(step * frequency), torch.cos(step * frequency)], dim=-1)
    return waves.flatten(1)[:, :width]
