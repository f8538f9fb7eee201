"""D2STGNN: layers that take diffused and inherent traffic apart, on graphs that change with the window."""

import numpy as np
import torch
from torch import Tensor, nn

from baselines.D2STGNN.config import D2STGNNConfig, check_config
from baselines.D2STGNN.dynamic_graph import DynamicGraph
from baselines.D2STGNN.head import ForecastHead
from baselines.D2STGNN.layer import DecoupleLayer
from baselines.D2STGNN.localized import transition_powers
from baselines.layers.adaptive import adaptive_adjacency
from ealinformer.data.prior import SensorPrior, open_prior
from ealinformer.graphs.transitions import double_transition
from ealinformer.models.windows import check_windows, slot_of

NUM_GRAPHS = 3  # two dynamic ones, and the self-adaptive one


class D2STGNN(nn.Module):
    """Forecasts `[B, L, N]` -> `[B, H, N]`; time and memory quadratic in the number of sensors N.

    Source: Shao et al., PVLDB 15(11), 2022, arXiv 2206.09112.

    Args:
        config: sizes.
        prior: knows the road graph; that of `config.data_dir` and `config.graph` when None.

    Raises:
        ValueError: a field of the config cannot be, or the input is too short for the layers.
    """

    def __init__(self, config: D2STGNNConfig, prior: SensorPrior | None = None) -> None:
        super().__init__()
        check_config(config)
        prior = prior or open_prior(config.data_dir, config.graph, config.num_features)
        self.input_len, self.num_features = config.input_len, config.num_features
        self.k_s = config.k_s
        self.time_of_day = nn.Embedding(config.num_time_in_day, config.time_hidden_size)
        self.day_of_week = nn.Embedding(config.num_day_in_week, config.time_hidden_size)
        self.source = nn.Parameter(torch.empty(config.num_features, config.node_hidden_size))  # E_u
        self.target = nn.Parameter(torch.empty(config.num_features, config.node_hidden_size))  # E_d
        for table in (self.time_of_day.weight, self.day_of_week.weight, self.source, self.target):
            nn.init.xavier_uniform_(table)
        self.dynamic_graph = DynamicGraph(config, np.stack(double_transition(prior.adjacency())))
        self.embedding = nn.Linear(1, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoupleLayer(config, NUM_GRAPHS * config.k_s, number) for number in range(config.num_layers)
        )
        self.head = ForecastHead(config)

    def forward(self, inputs: Tensor, inputs_timestamps: Tensor) -> Tensor:
        """Forecast.

        Args:
            inputs: z-scored readings `[B, L, N]`.
            inputs_timestamps: time of day and day of week in [0, 1) of each step, `[B, L, 2]`.

        Returns:
            z-scored forecasts `[B, H, N]`.
        """
        check_windows(inputs, inputs_timestamps, self.input_len, self.num_features)
        calendar = self._calendar(inputs_timestamps)
        sensors = torch.cat([self.source, self.target], dim=-1)
        transitions = self._transitions(inputs, calendar[:, -1])
        signal = self.embedding(inputs.transpose(1, 2).unsqueeze(-1))  # [B, N, L, D]
        states = []
        for layer in self.layers:
            signal, *extrapolated = layer(signal, transitions, calendar, sensors)
            states += extrapolated
        return self.head(states)

    def _calendar(self, timestamps: Tensor) -> Tensor:
        """Timestamps `[B, L, 2]` -> embedded time of day and day of week `[B, L, 2 time_hidden_size]`."""
        clock = slot_of(timestamps[..., 0], self.time_of_day.num_embeddings)
        day = slot_of(timestamps[..., 1], self.day_of_week.num_embeddings)
        return torch.cat([self.time_of_day(clock), self.day_of_week(day)], dim=-1)

    def _transitions(self, inputs: Tensor, now: Tensor) -> Tensor:
        """All matrices that traffic spreads along, once for all layers: `[B, N, K N]`."""
        dynamic = self.dynamic_graph(inputs, now, torch.stack([self.source, self.target]))
        adaptive = adaptive_adjacency(self.target, self.source)  # softmax(relu(E_d E_u^T))
        return transition_powers([*dynamic.unbind(dim=1), adaptive[None]], self.k_s)
