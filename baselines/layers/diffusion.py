"""Diffusion convolution and the recurrent cell built on it (DCRNN, arXiv 1707.01926, sections 2.2 and 2.3).

A signal is handed in sensors first, `[N, ..., D]`, so that one matrix product moves it along the graph whatever stands
behind the sensors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def diffusion_powers(supports: Sequence[Tensor], max_diffusion_step: int) -> Tensor:
    """Powers 1 ... K of S transition matrices `[N, N]`, one below the other: `[S * K * N, N]`.

    Each power starts from its own matrix, as equation 2 has it, and gradients pass to the matrices.

    Raises:
        ValueError: there is no matrix, or K is not positive.
    """
    if not supports or max_diffusion_step < 1:
        raise ValueError(f"a matrix and a step are expected, got {len(supports)} and {max_diffusion_step}")
    powers = []
    for support in supports:
        power = support
        powers.append(power)
        for _ in range(max_diffusion_step - 1):
            power = support @ power
            powers.append(power)
    return torch.cat(powers)


def diffuse(signal: Tensor, powers: Tensor) -> Tensor:
    """`[N, ..., D]` -> `[N, ..., (1 + S * K) * D]`: the signal, and what each of the powers makes of it.

    Row i of a power weighs the sensors that a walk from i comes to.
    """
    moved = powers @ signal.flatten(1)
    return torch.cat([signal, *moved.view(-1, *signal.shape).unbind()], dim=-1)


class DiffusionGRUCell(nn.Module):
    """A GRU cell whose products are diffusion convolutions (section 2.3).

    It takes what `diffuse` made of its input and of its state, so that a state that is also the next layer's input is
    moved along the graph once. `num_terms` is 1 + S * K. Weights are Xavier-normal over input and state together, the
    biases of the gates start at 1, that of the candidate at 0.
    """

    def __init__(self, input_size: int, hidden_size: int, num_terms: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        # Columns: reset gate, update gate, candidate.
        self.input_weight = nn.Parameter(torch.empty(num_terms * input_size, 3 * hidden_size))
        self.gate_weight = nn.Parameter(torch.empty(num_terms * hidden_size, 2 * hidden_size))
        self.candidate_weight = nn.Parameter(torch.empty(num_terms * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(3 * hidden_size))
        rows = num_terms * (input_size + hidden_size)
        gates, candidate = ((2 / (rows + columns * hidden_size)) ** 0.5 for columns in (2, 1))
        with torch.no_grad():
            self.input_weight[:, : 2 * hidden_size].normal_(std=gates)
            self.input_weight[:, 2 * hidden_size :].normal_(std=candidate)
            self.gate_weight.normal_(std=gates)
            self.candidate_weight.normal_(std=candidate)
            self.bias[: 2 * hidden_size] = 1

    def project(self, diffused_input: Tensor) -> Tensor:
        """Input `[..., M * Din]` of one or of all steps -> what it adds to gates and candidate, `[..., 3 * D]`."""
        return diffused_input @ self.input_weight + self.bias

    def forward(self, projected: Tensor, hidden: Tensor, diffused_hidden: Tensor, powers: Tensor) -> Tensor:
        """Projected input `[N, B, 3 * D]`, state `[N, B, D]` and `[N, B, M * D]` -> the next state `[N, B, D]`."""
        for_gates, for_candidate = projected.split([2 * self.hidden_size, self.hidden_size], dim=-1)
        reset, update = torch.sigmoid(for_gates + diffused_hidden @ self.gate_weight).chunk(2, dim=-1)
        candidate = torch.tanh(for_candidate + diffuse(reset * hidden, powers) @ self.candidate_weight)
        return torch.lerp(candidate, hidden, update)
