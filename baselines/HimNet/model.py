"""HimNet: GRUs whose weights are picked by embeddings of the sensor, of the hour, and of the sensor at that hour."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.HimNet.calendar import continued
from baselines.HimNet.config import HimNetConfig
from baselines.layers.adaptive import AdaptiveEncoder, AdaptiveGRU, WeightPool, adaptive_adjacency
from baselines.layers.scheduled_sampling import truth_mask
from ealinformer.models.config import check_positive
from ealinformer.models.windows import check_windows, slot_of


class HimNet(nn.Module):
    """Heterogeneity-informed meta-parameter learning (arXiv 2405.10800).

    Raises:
        ValueError: a size in the config cannot be.
    """

    def __init__(self, config: HimNetConfig) -> None:
        super().__init__()
        sizes = ("input_len", "output_len", "num_features", "num_time_in_day", "num_day_in_week", "hidden_size")
        widths = ("node_embedding_size", "tid_hidden_size", "diw_hidden_size", "st_embedding_size")
        check_positive(config, *sizes, "num_layers", "cheb_k", *widths, "tf_decay_steps")
        self.input_len, self.output_len = config.input_len, config.output_len
        self.num_features = config.num_features
        self.num_time_in_day, self.num_day_in_week = config.num_time_in_day, config.num_day_in_week
        self.tf_decay_steps = config.tf_decay_steps

        width, sensor_size = config.hidden_size, config.node_embedding_size
        hour_size, mixed_size = config.tid_hidden_size + config.diw_hidden_size, config.st_embedding_size
        # Of a window one row of each is looked up, that of its last reading.
        self.time_in_day = nn.Parameter(torch.randn(config.num_time_in_day, config.tid_hidden_size))
        self.day_in_week = nn.Parameter(torch.randn(config.num_day_in_week, config.diw_hidden_size))
        self.node_embedding = nn.Parameter(nn.init.xavier_normal_(torch.empty(config.num_features, sensor_size)))
        k, layers = config.cheb_k, config.num_layers
        self.sensor_encoder = AdaptiveEncoder(sensor_size, k, 3, width, layers, by_sensor=True)
        self.hour_encoder = AdaptiveEncoder(hour_size, k, 3, width, layers, by_sensor=False)
        self.mixed_proj = nn.Linear(width, mixed_size)
        channels = [3] + [width] * (layers - 1)
        self.decoder = nn.ModuleList([AdaptiveGRU(mixed_size, k, size, width) for size in channels])
        self.output_proj = nn.Linear(width, 1)
        for module in self.modules():
            if isinstance(module, WeightPool):
                # The authors' pools are [d, K * C, out], of which Xavier's rule takes other fans than of four axes.
                nn.init.xavier_normal_(module.weight.data.flatten(1, 2))
                nn.init.xavier_normal_(module.bias)

    def forward(
        self,
        inputs: Tensor,
        inputs_timestamps: Tensor,
        targets: Tensor | None = None,
        targets_timestamps: Tensor | None = None,
        step: int | Tensor = 1,
    ) -> Tensor:
        """Readings `[B, L, N]` -> forecast `[B, H, N]`, both z-scored.

        Args:
            inputs: readings `[B, L, N]`, z-scored.
            inputs_timestamps: their time of day and day of week `[B, L, 2]`, in [0, 1).
            targets: the true readings `[B, H, N]`, z-scored: in training the decoder reads some of them.
            targets_timestamps: time of day and day of week of the horizons `[B, H, 2]`; left out, they go on from those
                of the inputs.
            step: number of training steps so far, from 1: the later, the fewer of the targets are read.
        """
        check_windows(inputs, inputs_timestamps, self.input_len, self.num_features)
        slots = self.num_time_in_day, self.num_day_in_week
        if targets_timestamps is None:
            targets_timestamps = continued(inputs_timestamps, self.output_len, *slots)

        graph = adaptive_adjacency(self.node_embedding, self.node_embedding)
        signal = torch.cat([inputs.unsqueeze(-1), self._calendar(inputs_timestamps, inputs)], dim=-1)
        of_sensors = self.sensor_encoder(signal, graph, self.node_embedding)
        of_hour = self.hour_encoder(signal, graph, self._hour(inputs_timestamps[:, -1]))
        state = of_sensors + of_hour  # [B, N, D]

        truth = targets if self.training else None
        return self._decode(state, self._calendar(targets_timestamps, inputs), truth, step)

    def _decode(self, state: Tensor, calendar: Tensor, targets: Tensor | None, step: int | Tensor) -> Tensor:
        """A state `[B, N, D]` and the calendar of the horizons `[B, H, N, 2]` -> forecast `[B, H, N]`."""
        mixed = self.mixed_proj(state)  # [B, N, d]
        graph = adaptive_adjacency(mixed, mixed)  # [B, N, N]
        cells = [cast(AdaptiveGRU, layer).cell(graph, mixed) for layer in self.decoder]
        states = [state] * len(cells)
        reads_truth = None
        if targets is not None:
            reads_truth = truth_mask(self.output_len, step, self.tf_decay_steps, state.device)

        reading = torch.zeros_like(state[..., :1])
        forecast = []
        for horizon, clock in enumerate(calendar.unbind(1)):
            signal = torch.cat([reading, clock], dim=-1)
            for layer, cell in enumerate(cells):
                signal = states[layer] = cell(signal, states[layer])
            reading = self.output_proj(signal)
            forecast.append(reading)
            if targets is not None and reads_truth is not None:
                reading = torch.where(reads_truth[horizon], targets[:, horizon].unsqueeze(-1), reading)
        return torch.cat(forecast, dim=-1).transpose(1, 2)

    def _hour(self, timestamps: Tensor) -> Tensor:
        """Embedding `[B, d]` of the time of day and day of week `[B, 2]` of one step."""
        slot = slot_of(timestamps[:, 0], self.num_time_in_day)
        day = slot_of(timestamps[:, 1], self.num_day_in_week)
        return torch.cat([F.embedding(slot, self.time_in_day), F.embedding(day, self.day_in_week)], dim=-1)

    def _calendar(self, timestamps: Tensor, like: Tensor) -> Tensor:
        """Time of day in [0, 1) and day of week as 0 ... 6 of `[B, T, 2]`, at each sensor of `like`: `[B, T, N, 2]`."""
        day = slot_of(timestamps[..., 1], self.num_day_in_week)
        both = torch.stack([timestamps[..., 0].to(like.dtype), day.to(like.dtype)], dim=-1)
        return both.unsqueeze(2).expand(-1, -1, like.shape[-1], -1)
