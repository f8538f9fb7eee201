"""The backbone of STAEformer (arXiv 2308.10425), with the attention as a parameter."""

from collections.abc import Callable

from torch import Tensor, nn

from ealinformer.attention import Attention, MultiHeadAttention
from ealinformer.models.config import BackboneConfig, backbone_width, check_backbone_config
from ealinformer.models.embedding import SpatioTemporalEmbedding


class AttentionLayer(nn.Module):
    """One post-norm Transformer layer over dimension -2: attention and a ReLU feed-forward, each added and normed."""

    def __init__(self, hidden_size: int, intermediate_size: int, n_heads: int, dropout: float, attention: Attention):
        super().__init__()
        self.attention = MultiHeadAttention(hidden_size, n_heads, attention)
        self.feed_forward = nn.Sequential(
            nn.Linear(hidden_size, intermediate_size), nn.ReLU(), nn.Linear(intermediate_size, hidden_size)
        )
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.feed_forward_norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., S, D]` -> `[..., S, D]`."""
        x = self.attention_norm(x + self.dropout(self.attention(x)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class SpatioTemporalTransformer(nn.Module):
    """Embedding, layers along time, layers along sensors, and one linear map from all L * D values to the horizon.

    Args:
        config: sizes.
        attention: number of keys -> attention on q, k, v `[..., heads, S, C]`. Asked once for each layer, with L for
            the temporal ones and N for the spatial ones, so that an attention with parameters has its own in each.

    Raises:
        ValueError: a size in the config cannot be.
    """

    def __init__(self, config: BackboneConfig, attention: Callable[[int], Attention]) -> None:
        super().__init__()
        check_backbone_config(config)
        self.input_len, self.num_features = config.input_len, config.num_features
        self.embedding = SpatioTemporalEmbedding(config)
        hidden_size = backbone_width(config)

        def layers(num_keys: int) -> nn.ModuleList:
            sizes = (hidden_size, config.intermediate_size, config.n_heads, config.dropout)
            return nn.ModuleList(AttentionLayer(*sizes, attention(num_keys)) for _ in range(config.num_layers))

        self.temporal_layers = layers(config.input_len)
        self.spatial_layers = layers(config.num_features)
        self.output_proj = nn.Linear(config.input_len * hidden_size, config.output_len)

    def forward(self, inputs: Tensor, inputs_timestamps: Tensor) -> Tensor:
        """Forecast.

        Args:
            inputs: z-scored readings `[B, L, N]`.
            inputs_timestamps: time of day and day of week, both in [0, 1), `[B, L, 2]`; further columns are ignored.

        Returns:
            z-scored forecast `[B, H, N]`.

        Raises:
            ValueError: L or N are not those of the config, or the timestamps are not those of the inputs.
        """
        if inputs.shape[1:] != (self.input_len, self.num_features):
            raise ValueError(
                f"inputs [B, {self.input_len}, {self.num_features}] are expected, got {tuple(inputs.shape)}"
            )
        if inputs_timestamps.shape[:-1] != inputs.shape[:-1] or inputs_timestamps.shape[-1] < 2:
            raise ValueError(
                f"inputs_timestamps [{inputs.shape[0]}, {self.input_len}, 2] are expected, "
                f"got {tuple(inputs_timestamps.shape)}"
            )
        x = self.embedding(inputs, inputs_timestamps)  # [B, N, L, D]
        for layer in self.temporal_layers:
            x = layer(x)
        # One copy here leaves every spatial layer with contiguous rows.
        x = x.transpose(1, 2).contiguous()  # [B, L, N, D]
        for layer in self.spatial_layers:
            x = layer(x)
        x = x.transpose(1, 2).flatten(2)  # [B, N, L * D]
        return self.output_proj(x).transpose(1, 2)
