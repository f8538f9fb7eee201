"""The backbone of STAEformer (arXiv 2308.10425), with the attention as a parameter."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ealinformer.attention import Attention, MultiHeadAttention
from ealinformer.models.config import BackboneConfig, backbone_width, check_backbone_config, layers_of, recomputes
from ealinformer.models.embedding import SpatioTemporalEmbedding
from ealinformer.models.lean import Normed, add_norm, feed_forward, project_horizon, start
from ealinformer.models.windows import check_windows


class AttentionLayer(nn.Module):
    """One post-norm Transformer layer over dimension -2: attention and a ReLU feed-forward, each added and normed."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        n_heads: int,
        dropout: float,
        attention: Attention,
        *,
        collapse: bool = False,
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(hidden_size, n_heads, attention, collapse=collapse)
        self.feed_forward = nn.Sequential(
            nn.Linear(hidden_size, intermediate_size), nn.ReLU(), nn.Linear(intermediate_size, hidden_size)
        )
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.feed_forward_norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., S, D]` -> `[..., S, D]`, as papers write it."""
        x = self.attention_norm(x + self.dropout(self.attention(x)))
        return self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))


class LeanAttentionLayer(AttentionLayer):
    """The same numbers, to rounding, in less time and memory: see `lean`."""

    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes, collapse=True)

    def forward(self, x: Normed) -> Normed:  # type: ignore[override]
        """`[..., S, D]` -> `[..., S, D]`."""
        x = add_norm(x, self.attention(x.normed, affine=x.affine), self.attention_norm, self.dropout)
        return add_norm(x, feed_forward(x, self.feed_forward), self.feed_forward_norm, self.dropout)


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
        self.lean, self.recompute = layers_of(config) == "lean", recomputes(config)
        self.embedding = SpatioTemporalEmbedding(config)
        hidden_size = backbone_width(config)

        def layers(num_keys: int) -> nn.ModuleList:
            sizes = (hidden_size, config.intermediate_size, config.n_heads, config.dropout)
            layer = LeanAttentionLayer if self.lean else AttentionLayer
            return nn.ModuleList(layer(*sizes, attention(num_keys)) for _ in range(config.num_layers))

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
        check_windows(inputs, inputs_timestamps, self.input_len, self.num_features)
        x = self.embedding(inputs, inputs_timestamps)  # [B, N, L, D]
        forecast = self._lean(start(x)) if self.lean else self._plain(x)
        return forecast.transpose(1, 2)

    def _plain(self, x: Tensor) -> Tensor:
        """`[B, N, L, D]` -> `[B, N, H]`."""
        x = self._through(self.temporal_layers, x)
        # One copy here leaves every spatial layer with contiguous rows.
        x = self._through(self.spatial_layers, x.transpose(1, 2).contiguous())  # [B, L, N, D]
        return self.output_proj(x.transpose(1, 2).flatten(2))

    def _lean(self, x: Normed) -> Tensor:
        """The same, by layers that take their rows as they lie where their attention does."""
        x = self._through(self.temporal_layers, x)
        num_rows = self.num_features
        as_it_lies = x.normed.device.type == "cpu" and all(
            cast(AttentionLayer, layer).attention.takes_in_projections(x.normed, num_rows)
            for layer in self.spatial_layers
        )
        x = self._through(self.spatial_layers, x.transposed(copy=not as_it_lies))
        return project_horizon(x.transposed(copy=True), self.output_proj)

    def _through(self, layers: nn.ModuleList, x: Any) -> Any:
        for layer in layers:
            recompute = self.recompute and torch.is_grad_enabled()
            x = checkpoint(layer, x, use_reentrant=False) if recompute else layer(x)
        return x
