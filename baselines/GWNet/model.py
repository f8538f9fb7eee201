"""Graph WaveNet."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.GWNet.config import GWNetConfig, check_config, dilations, receptive_field
from baselines.GWNet.diffusion import DiffusionConvolution
from baselines.layers.adaptive import adaptive_adjacency
from baselines.layers.gated_temporal import GatedTemporalConvolution
from ealinformer.data.prior import SensorPrior, open_prior
from ealinformer.graphs.transitions import double_transition
from ealinformer.models.windows import check_windows, with_time_of_day


class GWNet(nn.Module):
    """Forecasts `[B, L, N]` -> `[B, H, N]`; time quadratic in the number of sensors N.

    Raises:
        ValueError: a size in the config cannot be, or the window is longer than the layers reach.
        InputError: the prior's graph cannot be read.
    """

    transitions: Tensor

    def __init__(self, config: GWNetConfig, prior: SensorPrior | None = None) -> None:
        super().__init__()
        check_config(config)
        prior = prior or open_prior(config.data_dir, config.graph, config.num_features)
        self.input_len, self.num_features = config.input_len, config.num_features
        self.padding = receptive_field(config) - config.input_len

        # Forward and backward `[2, N, N]`; `[1, N, N]` where every edge goes both ways, which makes them the same.
        walks = double_transition(prior.adjacency())
        alike = np.array_equal(*walks)
        transitions = torch.as_tensor(np.stack(walks[:1] if alike else walks), dtype=torch.get_default_dtype())
        self.register_buffer("transitions", transitions, persistent=False)
        self.source = nn.Parameter(torch.randn(config.num_features, config.node_embedding_size))
        self.target = nn.Parameter(torch.randn(config.num_features, config.node_embedding_size))

        width = config.hidden_size

        def spatial() -> DiffusionConvolution:
            return DiffusionConvolution(width, width, config.diffusion_order, copies=(2, 1) if alike else (1, 1, 1))

        self.start = nn.Linear(2, width)
        self.temporal_layers = nn.ModuleList(
            GatedTemporalConvolution(width, width, (config.kernel_size,), dilation) for dilation in dilations(config)
        )
        depth = len(self.temporal_layers)
        self.spatial_layers = nn.ModuleList(spatial() for _ in range(depth - 1))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(depth - 1))
        self.dropout = nn.Dropout(config.dropout)
        self.skips = nn.ModuleList(nn.Linear(width, config.skip_size) for _ in range(depth))
        self.hidden = nn.Linear(config.skip_size, config.end_size)
        self.output = nn.Linear(config.end_size, config.output_len)

        # The published counts have these: what the authors' code holds besides, and what comes after the last skip.
        self.unused_residuals = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.unused_spatial = spatial()
        self.unused_norm = nn.BatchNorm2d(width)

    def forward(self, inputs: Tensor, inputs_timestamps: Tensor) -> Tensor:
        """Z-scored readings `[B, L, N]` and their calendar `[B, L, 2]` -> z-scored forecast `[B, H, N]`."""
        check_windows(inputs, inputs_timestamps, self.input_len, self.num_features)
        graphs = (*self.transitions, adaptive_adjacency(self.source, self.target))
        x = with_time_of_day(inputs, inputs_timestamps).transpose(1, 2)  # [B, N, L, 2]
        x = self.start(F.pad(x, (0, 0, self.padding, 0))).movedim(-1, 1)  # [B, D, N, T]

        # One step is left after the last layer, so that of each layer's skips the last step alone is ever seen.
        skip = torch.zeros((), dtype=x.dtype, device=x.device)
        for i, temporal in enumerate(self.temporal_layers):
            gated = temporal(x)
            skip = skip + self.skips[i](gated[..., -1].mT)  # [B, N, .]
            if i < len(self.spatial_layers):
                mixed = self.dropout(self.spatial_layers[i](gated, graphs))
                x = self.norms[i](mixed + x[..., -gated.shape[-1] :])
        return self.output(F.relu(self.hidden(F.relu(skip)))).mT
