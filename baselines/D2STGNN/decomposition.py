"""Residual decomposition: what a block has explained is taken off the signal before the next one sees it."""

import torch
from torch import Tensor, nn


class ResidualDecomposition(nn.Module):
    """LayerNorm(signal - relu(backcast)), the backcast a linear map of a block's hidden states (arXiv 2206.09112)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.backcast = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, signal: Tensor, hidden: Tensor) -> Tensor:
        """`[B, N, L, D]`, both; the hidden states may be fewer, and are then those of the signal's last steps."""
        return self.norm(signal[:, :, -hidden.shape[2] :] - torch.relu(self.backcast(hidden)))
