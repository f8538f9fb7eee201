"""STGCN: convolutions along time and on the road graph, without recurrence."""

import torch
from torch import Tensor, nn

from baselines.STGCN.config import STGCNConfig
from baselines.STGCN.layers import GatedConvolution, SpatioTemporalBlock
from ealinformer.data.prior import SensorPrior, open_prior
from ealinformer.graphs.laplacians import scaled_laplacian
from ealinformer.models.config import check_positive, check_rate
from ealinformer.models.windows import check_windows


class STGCN(nn.Module):
    """Forecasts `[B, L, N]` -> `[B, H, N]`, all steps at once, from readings alone.

    Raises:
        ValueError: a size in the config cannot be, or the input is too short for the blocks.
        InputError: the graph cannot be read.
    """

    support: Tensor  # the scaled Laplacian [N, N]

    def __init__(self, config: STGCNConfig, prior: SensorPrior | None = None) -> None:
        super().__init__()
        steps_left = _check(config)
        self.input_len, self.num_features = config.input_len, config.num_features
        prior = prior or open_prior(config.data_dir, config.graph, config.num_features)
        support = torch.as_tensor(scaled_laplacian(prior.adjacency()), dtype=torch.get_default_dtype())
        self.register_buffer("support", support, persistent=False)

        hidden_size, output_size = config.hidden_size, config.output_hidden_size
        self.blocks = nn.ModuleList(
            SpatioTemporalBlock(
                config.num_features,
                hidden_size if i else 1,
                hidden_size,
                config.graph_hidden_size,
                config.temporal_kernel_size,
                config.graph_kernel_size,
                config.dropout,
            )
            for i in range(config.num_layers)
        )
        self.output_convolution = GatedConvolution(hidden_size, output_size, steps_left)
        self.output_norm = nn.LayerNorm([config.num_features, output_size])
        self.output_proj = nn.Sequential(
            nn.Linear(output_size, output_size), nn.ReLU(), nn.Linear(output_size, config.output_len)
        )

    def forward(self, inputs: Tensor, inputs_timestamps: Tensor) -> Tensor:
        """Z-scored readings `[B, L, N]` -> z-scored forecast `[B, H, N]`; the timestamps `[B, L, 2]` are not used."""
        check_windows(inputs, inputs_timestamps, self.input_len, self.num_features)
        x = inputs.unsqueeze(-1)
        for block in self.blocks:
            x = block(x, self.support)
        x = self.output_norm(self.output_convolution(x)).squeeze(1)
        return self.output_proj(x).transpose(1, 2)


def _check(config: STGCNConfig) -> int:
    """Steps that are left of the input after the blocks. Raises ValueError that names the first size that cannot be."""
    sizes = ("hidden_size", "graph_hidden_size", "output_hidden_size", "num_layers")
    check_positive(config, "input_len", "output_len", "num_features", *sizes)
    check_positive(config, "temporal_kernel_size", "graph_kernel_size")
    check_rate(config, "dropout")
    taken = 2 * config.num_layers * (config.temporal_kernel_size - 1)
    if config.input_len <= taken:
        raise ValueError(
            f"input_len has to be above {taken}, which {config.num_layers} blocks with temporal_kernel_size "
            f"{config.temporal_kernel_size} take, got {config.input_len}"
        )
    return config.input_len - taken
