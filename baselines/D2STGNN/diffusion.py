"""The diffusion block: what neighbours bring, explained in the past and extrapolated into the future."""

import torch
from torch import Tensor, nn

from baselines.D2STGNN.config import D2STGNNConfig, num_states
from baselines.D2STGNN.decomposition import ResidualDecomposition
from baselines.D2STGNN.localized import LocalizedConvolution


class DiffusionBlock(nn.Module):
    """Localised convolution, residual and extrapolated states (arXiv 2206.09112, section on the diffusion block).

    Args:
        config: of the model.
        num_transitions: how many matrices, powers included, traffic spreads along.
    """

    def __init__(self, config: D2STGNNConfig, num_transitions: int) -> None:
        super().__init__()
        self.num_states = num_states(config)
        self.convolution = LocalizedConvolution(config.hidden_size, config.k_t, num_transitions, config.dropout)
        self.decomposition = ResidualDecomposition(config.hidden_size)

    def forward(self, signal: Tensor, gated: Tensor, transitions: Tensor) -> tuple[Tensor, Tensor]:
        """Take diffusion off a signal.

        Args:
            signal: `[B, N, L, D]`.
            gated: the share of it that the estimation gate lets through, `[B, N, L, D]`.
            transitions: `[B, N, K N]` of `transition_powers`.

        Returns:
            the rest of the signal `[B, N, L - k_t + 1, D]` and the extrapolated states `[B, N, H / gap, D]`.
        """
        hidden = self.convolution(gated, transitions)
        return self.decomposition(signal, hidden), self._extrapolate(gated, hidden[:, :, -1:], transitions)

    def _extrapolate(self, gated: Tensor, state: Tensor, transitions: Tensor) -> Tensor:
        """The last hidden state and those that follow: each is the diffusion of the k_t steps before it."""
        states = [state]
        past = gated.shape[2] - (self.convolution.k_t - 1)
        window = torch.cat([gated[:, :, past:], state], dim=2)  # [B, N, k_t, D]
        while len(states) < self.num_states:
            states.append(self.convolution(window, transitions))
            window = torch.cat([window[:, :, 1:], states[-1]], dim=2)
        return torch.cat(states, dim=2)
