"""STAEformer's input: value, time of day, day of week and an adaptive embedding per step and sensor."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ealinformer.models.config import BackboneConfig
from ealinformer.models.windows import slot_of


class SpatioTemporalEmbedding(nn.Module):
    """Embeds every reading (arXiv 2308.10425, section 4.1).

    A linear map of the reading and its time features, tables for time of day and day of week, and the adaptive
    table `[L, N, .]`, side by side. A part whose size in the config is 0 is left out.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.num_time_in_day = config.num_time_in_day
        self.num_day_in_week = config.num_day_in_week
        self.input_proj = nn.Linear(3, config.input_hidden_size)
        self.time_in_day = (
            nn.Embedding(config.num_time_in_day, config.tid_hidden_size) if config.tid_hidden_size else None
        )
        self.day_in_week = (
            nn.Embedding(config.num_day_in_week, config.diw_hidden_size) if config.diw_hidden_size else None
        )
        self.adaptive: nn.Parameter | None = None
        if config.adaptive_hidden_size:
            table = torch.empty(config.input_len, config.num_features, config.adaptive_hidden_size)
            self.adaptive = nn.Parameter(nn.init.xavier_uniform_(table))

    def forward(self, inputs: Tensor, timestamps: Tensor) -> Tensor:
        """`[B, L, N]` readings and `[B, L, 2]` time of day and day of week in [0, 1) -> `[B, N, L, D]`."""
        batch, _, num_features = inputs.shape
        day_slot = slot_of(timestamps[..., 0], self.num_time_in_day)
        week_day = slot_of(timestamps[..., 1], self.num_day_in_week)

        # The authors feed day of week as 0 ... 6 into the linear map. Its time features are the same for all sensors,
        # so they are mapped once per step.
        features = torch.stack([timestamps[..., 0], week_day.to(timestamps.dtype)], dim=-1).to(inputs.dtype)
        weight = self.input_proj.weight
        of_time = F.linear(features, weight[:, 1:], self.input_proj.bias)  # [B, L, .]
        parts = [inputs.transpose(1, 2).unsqueeze(-1) * weight[:, 0] + of_time.unsqueeze(1)]
        for table, index in ((self.time_in_day, day_slot), (self.day_in_week, week_day)):
            if table is not None:
                parts.append(table(index).unsqueeze(1).expand(-1, num_features, -1, -1))
        if self.adaptive is not None:
            parts.append(self.adaptive.transpose(0, 1).expand(batch, -1, -1, -1))
        return torch.cat(parts, dim=-1)
