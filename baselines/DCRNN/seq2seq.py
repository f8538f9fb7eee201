"""DCRNN's encoder and decoder over the powers of transition matrices; GTS runs them on a graph that it learns."""

from typing import Any

import torch
from torch import Tensor, nn

from baselines.layers.diffusion import DiffusionGRUCell, diffuse
from baselines.layers.scheduled_sampling import truth_mask

# Of each layer: its state `[N, B, D]`, and what diffusion makes of it `[N, B, M * D]`.
States = list[tuple[Tensor, Tensor]]


class DiffusionGRU(nn.Module):
    """Stacked cells that go one step at a time."""

    cells: Any  # a ModuleList of DiffusionGRUCell

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, num_terms: int) -> None:
        super().__init__()
        sizes = [input_size] + [hidden_size] * (num_layers - 1)
        self.cells = nn.ModuleList(DiffusionGRUCell(size, hidden_size, num_terms) for size in sizes)

    def project(self, inputs: Tensor, powers: Tensor) -> Tensor:
        """Inputs `[N, ..., Din]` of one step or of all -> `[N, ..., 3 * D]`, as the first cell takes them."""
        return self.cells[0].project(diffuse(inputs, powers))

    def forward(self, projected: Tensor, states: States, powers: Tensor) -> States:
        """One step: the projected input `[N, B, 3 * D]` and the states before it -> the states after it."""
        after: States = []
        for cell, (hidden, diffused) in zip(self.cells, states, strict=True):
            if after:
                projected = cell.project(after[-1][1])
            hidden = cell(projected, hidden, diffused, powers)
            after.append((hidden, diffuse(hidden, powers)))
        return after


class DiffusionSeq2Seq(nn.Module):
    """Encoder and decoder of DCRNN (arXiv 1707.01926, section 2.3, figure 2).

    The encoder reads readings and time of day, the decoder starts from zeros and reads readings alone.
    """

    def __init__(self, hidden_size: int, num_layers: int, num_terms: int, output_len: int, cl_decay_steps: int) -> None:
        super().__init__()
        self.hidden_size, self.num_terms = hidden_size, num_terms
        self.output_len, self.cl_decay_steps = output_len, cl_decay_steps
        self.encoder = DiffusionGRU(2, hidden_size, num_layers, num_terms)
        self.decoder = DiffusionGRU(1, hidden_size, num_layers, num_terms)
        self.output_proj = nn.Linear(hidden_size, 1)

    def forward(self, inputs: Tensor, powers: Tensor, targets: Tensor | None, step: int | Tensor) -> Tensor:
        """Channels `[B, L, N, 2]` -> `[B, H, N]`.

        `targets` `[B, H, N]` are for scheduled sampling at training step `step`; without them the decoder reads its own
        forecasts alone.
        """
        states = self._encode(inputs, powers)
        truth = None
        if targets is not None:
            truth = truth_mask(self.output_len, step, self.cl_decay_steps, inputs.device)
        forecasts: list[Tensor] = []
        reading = states[0][0].new_zeros(states[0][0].shape[:2])  # [N, B]
        for i in range(self.output_len):
            states = self.decoder(self.decoder.project(reading.unsqueeze(-1), powers), states, powers)
            reading = self.output_proj(states[-1][0]).squeeze(-1)
            forecasts.append(reading)
            if targets is not None and truth is not None:
                reading = torch.where(truth[i], targets[:, i].T, reading)
        return torch.stack(forecasts, dim=1).permute(2, 1, 0)

    def _encode(self, inputs: Tensor, powers: Tensor) -> States:
        projected = self.encoder.project(inputs.permute(2, 1, 0, 3), powers)  # [N, L, B, 3 * D]
        hidden = projected.new_zeros(*projected[:, 0].shape[:2], self.hidden_size)
        diffused = hidden.new_zeros(*hidden.shape[:2], self.num_terms * self.hidden_size)
        states: States = [(hidden, diffused) for _ in self.encoder.cells]
        for step in projected.unbind(1):
            states = self.encoder(step, states, powers)
        return states
