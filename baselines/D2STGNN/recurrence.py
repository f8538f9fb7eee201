"""A GRU whose input products are made for all steps at once, and whose state can be carried on from any step."""

import torch
from torch import Tensor, nn


class GRU(nn.Module):
    """Gated recurrent unit (arXiv 1406.1078), with the reset gate on the state's product, as torch's own has it.

    torch's module would break a compiled model into a piece before and a piece after it; the numbers are the same.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.from_input = nn.Linear(hidden_size, 3 * hidden_size)  # reset and update gate, candidate
        self.from_state = nn.Linear(hidden_size, 3 * hidden_size)

    def forward(self, steps: Tensor, state: Tensor | None = None) -> Tensor:
        """Steps `[S, L, D]` and the state before them `[S, D]`, zeros when None -> the states `[S, L, D]`."""
        width = steps.shape[-1]
        products = self.from_input(steps)
        if state is None:
            state = products.new_zeros(len(steps), width)
        states = []
        for gates, candidate in zip(
            products[..., : 2 * width].unbind(1), products[..., 2 * width :].unbind(1), strict=True
        ):
            of_state = self.from_state(state)
            reset, keep = torch.sigmoid(gates + of_state[:, : 2 * width]).chunk(2, dim=-1)
            candidate = torch.tanh(torch.addcmul(candidate, reset, of_state[:, 2 * width :]))
            state = torch.addcmul(candidate, keep, state - candidate)
            states.append(state)
        return torch.stack(states, dim=1)
