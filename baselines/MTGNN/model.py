"""MTGNN."""

import torch.nn.functional as F
from torch import Tensor, nn

from baselines.layers.gated_temporal import GatedTemporalConvolution
from baselines.MTGNN.config import KERNEL_SIZES, MTGNNConfig, check_config, dilations, receptive_field
from baselines.MTGNN.graph import GraphLearner
from baselines.MTGNN.mix_hop import MixHop, propagation_matrix
from ealinformer.models.windows import check_windows, with_time_of_day


class MTGNNLayer(nn.Module):
    """Dilated inception along time, mix-hop propagation along both directions of the graph, and a norm.

    Args:
        steps: T, of the input.
    """

    def __init__(self, config: MTGNNConfig, dilation: int, steps: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.temporal = GatedTemporalConvolution(width, width, KERNEL_SIZES, dilation)
        self.dropout = nn.Dropout(config.dropout)
        left = steps - self.temporal.reach
        self.skip = nn.Linear(left * width, config.skip_size)
        self.outgoing = MixHop(width, config.propagation_depth, config.retain_ratio)
        self.incoming = MixHop(width, config.propagation_depth, config.retain_ratio)
        self.norm = nn.LayerNorm((config.num_features, left, width))
        self.unused_residual = nn.Linear(width, width)  # the published counts have it: what the authors' code holds

    def forward(self, x: Tensor, outgoing: Tensor, incoming: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, N, T, D]` and two matrices `[N, N]` -> `[B, N, T', D]`, and what is skipped `[B, N, .]`."""
        gated = self.dropout(self.temporal(x.movedim(-1, 1)).movedim(1, -1))
        mixed = self.outgoing(gated, outgoing) + self.incoming(gated, incoming)
        return self.norm(mixed + x[:, :, -gated.shape[2] :]), self.skip(gated.flatten(2))


class MTGNN(nn.Module):
    """Forecasts `[B, L, N]` -> `[B, H, N]`; time quadratic in the number of sensors N.

    Raises:
        ValueError: a size in the config cannot be.
    """

    def __init__(self, config: MTGNNConfig) -> None:
        super().__init__()
        check_config(config)
        self.input_len, self.num_features = config.input_len, config.num_features
        steps = max(config.input_len, receptive_field(config))
        self.padding = steps - config.input_len
        width = config.hidden_size

        self.graph = GraphLearner(
            config.num_features, config.node_embedding_size, config.num_neighbors, config.saturation, config.tie_noise
        )
        self.start = nn.Linear(2, width)
        self.dropout = nn.Dropout(config.dropout)
        self.first_skip = nn.Linear(2 * steps, config.skip_size)
        self.layers = nn.ModuleList()
        for dilation in dilations(config):
            self.layers.append(MTGNNLayer(config, dilation, steps))
            steps -= (max(KERNEL_SIZES) - 1) * dilation
        self.last_skip = nn.Linear(steps * width, config.skip_size)
        self.hidden = nn.Linear(config.skip_size, config.end_size)
        self.output = nn.Linear(config.end_size, config.output_len)

    def forward(self, inputs: Tensor, inputs_timestamps: Tensor) -> Tensor:
        """Z-scored readings `[B, L, N]` and their calendar `[B, L, 2]` -> z-scored forecast `[B, H, N]`."""
        check_windows(inputs, inputs_timestamps, self.input_len, self.num_features)
        graph = self.graph()
        outgoing, incoming = propagation_matrix(graph), propagation_matrix(graph.T)
        readings = with_time_of_day(inputs, inputs_timestamps).transpose(1, 2)
        readings = F.pad(readings, (0, 0, self.padding, 0))  # [B, N, T, 2]

        skip = self.first_skip(self.dropout(readings).flatten(2))
        x = self.start(readings)
        for layer in self.layers:
            x, skipped = layer(x, outgoing, incoming)
            skip = skip + skipped
        skip = skip + self.last_skip(x.flatten(2))
        return self.output(F.relu(self.hidden(F.relu(skip)))).mT
