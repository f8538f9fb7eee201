"""A decouple layer: the estimation gate, the diffusion block, and the inherent block on what is left."""

from torch import Tensor, nn

from baselines.D2STGNN.config import D2STGNNConfig
from baselines.D2STGNN.diffusion import DiffusionBlock
from baselines.D2STGNN.gate import EstimationGate
from baselines.D2STGNN.inherent import InherentBlock


class DecoupleLayer(nn.Module):
    """Layer `number`, from 0, of the decoupled framework (arXiv 2206.09112, section on the framework)."""

    def __init__(self, config: D2STGNNConfig, num_transitions: int, number: int) -> None:
        super().__init__()
        self.gate = EstimationGate(2 * config.time_hidden_size, 2 * config.node_hidden_size, config.gate_hidden_size)
        self.diffusion = DiffusionBlock(config, num_transitions)
        self.inherent = InherentBlock(
            config,
            length=config.input_len - (number + 1) * (config.k_t - 1),
            positions=number < config.num_position_layers,
            is_last=number == config.num_layers - 1,
        )

    def forward(
        self, signal: Tensor, transitions: Tensor, calendar: Tensor, sensors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Explain a part of the signal.

        Args:
            signal: `[B, N, L, D]`, L steps or fewer, the last ones.
            transitions: `[B, N, K N]` of `transition_powers`.
            calendar: embedded time of all steps of the input `[B, L, 2 time_hidden_size]`.
            sensors: embeddings E_u and E_d side by side `[N, 2 node_hidden_size]`.

        Returns:
            the rest of the signal `[B, N, L - k_t + 1, D]`, and the states that the diffusion and the inherent block
            extrapolate, `[B, N, H / gap, D]` each.
        """
        gated = self.gate(signal, calendar[:, -signal.shape[2] :], sensors)
        rest, diffused = self.diffusion(signal, gated, transitions)
        rest, inherent = self.inherent(rest)
        return rest, diffused, inherent
