"""AGCRN: a recurrent network that learns its graph and has other weights at every sensor."""

import torch
from torch import Tensor, nn

from baselines.AGCRN.config import AGCRNConfig
from baselines.layers.adaptive import AdaptiveEncoder, adaptive_adjacency
from ealinformer.models.config import check_positive
from ealinformer.models.windows import check_windows, with_time_of_day


class AGCRN(nn.Module):
    """Adaptive graph convolutional recurrent network (arXiv 2007.02842).

    Raises:
        ValueError: a size in the config cannot be.
    """

    def __init__(self, config: AGCRNConfig) -> None:
        super().__init__()
        sizes = ("input_len", "output_len", "num_features", "hidden_size", "num_layers", "node_embedding_size")
        check_positive(config, *sizes, "cheb_k")
        if not isinstance(config.if_time_in_day, bool):
            raise ValueError(f"if_time_in_day has to be True or False, got {config.if_time_in_day!r}")
        self.input_len = config.input_len
        self.num_features = config.num_features
        self.if_time_in_day = config.if_time_in_day

        channels, width = 2 if config.if_time_in_day else 1, config.hidden_size
        self.node_embedding = nn.Parameter(torch.empty(config.num_features, config.node_embedding_size))
        self.encoder = AdaptiveEncoder(
            config.node_embedding_size, config.cheb_k, channels, width, config.num_layers, by_sensor=True
        )
        # The authors' convolution over the width of the last state, of H output channels: one linear map.
        self.output_proj = nn.Linear(width, config.output_len)
        self._initialise()

    def forward(self, inputs: Tensor, inputs_timestamps: Tensor) -> Tensor:
        """Readings `[B, L, N]` and their time of day and day of week `[B, L, 2]` -> forecast `[B, H, N]`, z-scored."""
        check_windows(inputs, inputs_timestamps, self.input_len, self.num_features)
        signal = with_time_of_day(inputs, inputs_timestamps) if self.if_time_in_day else inputs.unsqueeze(-1)
        support = adaptive_adjacency(self.node_embedding, self.node_embedding)
        return self.output_proj(self.encoder(signal, support, self.node_embedding)).transpose(1, 2)

    def _initialise(self) -> None:
        """As the authors do: matrices Xavier uniform, vectors uniform in [0, 1)."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.uniform_(parameter)
        # Theirs is a kernel [H, 1, 1, D], which Xavier's rule draws from a narrower range than a matrix [H, D].
        nn.init.xavier_uniform_(self.output_proj.weight.data[:, None, None])
