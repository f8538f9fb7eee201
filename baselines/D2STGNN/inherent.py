"""The inherent block: what a sensor's own past explains, near steps through a GRU and far ones through attention."""

import torch
from torch import Tensor, nn

from baselines.D2STGNN.attention import TemporalAttention, sinusoids
from baselines.D2STGNN.config import D2STGNNConfig, num_states
from baselines.D2STGNN.decomposition import ResidualDecomposition
from baselines.D2STGNN.recurrence import GRU


class InherentBlock(nn.Module):
    """GRU, self-attention, residual and extrapolated states (arXiv 2206.09112, section on the inherent block).

    Args:
        config: of the model.
        length: steps L of its signal.
        positions: whether the attention is told the steps' positions.
        is_last: whether no block follows: then the residual is not computed. Its weights are in the reference's count
            all the same, and here they are called unused.
    """

    positions: Tensor | None

    def __init__(self, config: D2STGNNConfig, length: int, *, positions: bool, is_last: bool) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_states = num_states(config)
        self.is_last = is_last
        self.gru = GRU(width)
        self.dropout = nn.Dropout(config.dropout)
        self.attention = TemporalAttention(width, config.n_heads, config.dropout)
        if is_last:
            self.unused_decomposition = ResidualDecomposition(width)
        else:
            self.decomposition = ResidualDecomposition(width)
        table = sinusoids(length + self.num_states - 1, width) if positions else None
        self.register_buffer("positions", table, persistent=False)

    def forward(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Signal `[B, N, L, D]` -> the rest of it `[B, N, L, D]` and the extrapolated states `[B, N, H / gap, D]`.

        The last block gives its signal back as the rest.
        """
        sensors = signal.shape[:2]
        recurrent = self.gru(signal.flatten(0, 1))
        query, key, value = self.attention.project(self._placed(recurrent, 0))
        hidden = self.attention(query, key, value)  # [B N, L, D]
        states = self._extrapolate(hidden[:, -1:], recurrent, key, value).unflatten(0, sensors)
        rest = signal if self.is_last else self.decomposition(signal, hidden.unflatten(0, sensors))
        return rest, states

    def _extrapolate(self, state: Tensor, recurrent: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Each state goes through the GRU, which gives the step that follows; that one attends to all before it."""
        states = [state]
        while len(states) < self.num_states:
            recurrent = self.gru(states[-1], recurrent[:, -1])
            query, new_key, new_value = self.attention.project(self._placed(recurrent, key.shape[2]))
            key, value = torch.cat([key, new_key], dim=2), torch.cat([value, new_value], dim=2)
            states.append(self.attention(query, key, value))
        return torch.cat(states, dim=1)

    def _placed(self, recurrent: Tensor, start: int) -> Tensor:
        """Steps `[B N, L, D]` as the attention sees them, the first of them at position `start`."""
        recurrent = self.dropout(recurrent)
        if self.positions is None:
            return recurrent
        return recurrent + self.positions[start : start + recurrent.shape[1]]
