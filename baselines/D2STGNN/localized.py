"""The spatial-temporal localised convolution: traffic of the last k_t steps spreads along graphs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def transition_powers(transitions: Sequence[Tensor], order: int) -> Tensor:
    """Powers 1 ... order of each matrix, without their diagonals, side by side.

    A sensor's own past belongs to the inherent block, so no walk may end where it began (arXiv 2206.09112, definition
    of the localised transition matrix). The powers are those of the whole matrix: a walk may pass its start.

    Args:
        transitions: `[B, N, N]` or `[1, N, N]` each.
        order: highest power k_s.

    Returns:
        `[B, N, K N]` with K = order * the number of matrices: all powers of the first one, of the second, and so on.
    """
    powers = []
    for transition in transitions:
        power = transition
        powers.append(power)
        for _ in range(order - 1):
            power = power @ transition
            powers.append(power)
    batch, sensors = max(power.shape[0] for power in powers), powers[0].shape[-1]
    joined = torch.stack([power.expand(batch, -1, -1) for power in powers], dim=2)  # [B, N, K, N]
    diagonal = torch.eye(sensors, dtype=torch.bool, device=joined.device)
    return joined.masked_fill(diagonal[:, None], 0).flatten(2)


class LocalizedConvolution(nn.Module):
    """Diffusion of `k_t` steps into one (arXiv 2206.09112, section on the diffusion block).

    The k_t steps of a window pass relu(X W) together and give k_t feature matrices X_j `[N, D]`. The k-th localised
    transition matrix is P^k without its diagonal, k_t times side by side, on the X_j one below the other: that is P^k
    times their sum, which is what is computed. Its results, for all P and k, and the mean of the X_j pass a linear map.

    Args:
        hidden_size: width D.
        k_t: steps of a window.
        num_transitions: K, the number of matrices and powers.
        dropout: rate, of the result.
    """

    def __init__(self, hidden_size: int, k_t: int, num_transitions: int, dropout: float) -> None:
        super().__init__()
        self.k_t = k_t
        self.num_transitions = num_transitions
        self.local = nn.Linear(k_t * hidden_size, k_t * hidden_size, bias=False)
        self.mix = nn.Linear((1 + num_transitions) * hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.unused_norm = nn.BatchNorm2d(hidden_size)  # in the reference's count, in no formula

    def forward(self, signal: Tensor, transitions: Tensor) -> Tensor:
        """Signal `[B, N, L, D]` and transitions `[B, N, K N]` -> `[B, N, L - k_t + 1, D]`."""
        width = signal.shape[-1]
        windows = signal.flatten(2).unfold(2, self.k_t * width, width)  # [B, N, L - k_t + 1, k_t D]
        total = torch.relu(self.local(windows)).unflatten(-1, (self.k_t, width)).sum(dim=-2)
        # The linear map goes first, so that one product with all matrices also adds their results up.
        of_mean, of_spread = self.mix.weight.split([width, self.num_transitions * width], dim=1)
        own = F.linear(total, of_mean / self.k_t, self.mix.bias)
        of_spread = of_spread.unflatten(1, (self.num_transitions, width)).transpose(0, 1).flatten(0, 1)  # [K D, D]
        spread = F.linear(total, of_spread).unflatten(-1, (self.num_transitions, width))
        spread = spread.permute(0, 3, 1, 2, 4).flatten(3).flatten(1, 2)  # [B, K N, (L - k_t + 1) D]
        mixed = torch.baddbmm(own.flatten(2), transitions, spread)
        return self.dropout(mixed.unflatten(2, own.shape[2:]))
