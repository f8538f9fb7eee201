"""Transitions that change with the traffic: attention between sensors, along the edges of the road graph only."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.D2STGNN.config import D2STGNNConfig


class DynamicGraph(nn.Module):
    """The two dynamic transition matrices of a window (arXiv 2206.09112, section on dynamic graph learning).

    P_dy = P * softmax(Q K^T / sqrt(D)), its rows brought back to a sum of 1, for both directions of the road graph: P_f
    with the sensors' embedding E_u, P_b with E_d. Q and K are maps of a sensor's readings in the window, of the time of
    its last step and of the embedding. Where P has no edge there is no weight; a sensor without edges has a row of 0.

    Args:
        config: of the model.
        transitions: forward and backward transition matrix `[2, N, N]` of the road graph.
    """

    log_transitions: Tensor
    linked: Tensor

    def __init__(self, config: D2STGNNConfig, transitions: np.ndarray) -> None:
        super().__init__()
        width, slots = config.hidden_size, 2 * config.time_hidden_size
        self.sizes = (width, slots, config.node_hidden_size)
        self.widen = nn.Linear(config.input_len, 2 * width)
        self.norm = nn.BatchNorm1d(2 * width)
        self.dropout = nn.Dropout(config.dropout)
        self.narrow = nn.Linear(2 * width, width)
        self.query_key = nn.Linear(sum(self.sizes), 2 * width, bias=False)
        self.unused_time_slot = nn.Linear(config.time_hidden_size, width)  # in the reference's count, in no formula
        edges = transitions > 0
        linked = edges.any(axis=-1, keepdims=True)
        logs = np.where(edges, np.log(np.where(edges, transitions, 1)), np.where(linked, -np.inf, 0))
        dtype = torch.get_default_dtype()
        self.register_buffer("log_transitions", torch.as_tensor(logs, dtype=dtype), persistent=False)
        self.register_buffer("linked", torch.as_tensor(linked, dtype=dtype), persistent=False)

    def forward(self, inputs: Tensor, calendar: Tensor, embeddings: Tensor) -> Tensor:
        """Transitions of each window.

        Args:
            inputs: z-scored readings `[B, L, N]`.
            calendar: time of day and day of week of the last step, embedded, `[B, 2 time_hidden_size]`.
            embeddings: E_u and E_d `[2, N, node_hidden_size]`.

        Returns:
            `[B, 2, N, N]`, forward and backward; rows sum to 1, or to 0 where a sensor has no edge.
        """
        of_series, of_slots, of_sensors = self.query_key.weight.split(self.sizes, dim=1)
        # Both directions share what comes of the series, and all sensors what comes of the time.
        shared = F.linear(self._series(inputs), of_series) + F.linear(calendar, of_slots)[:, None]
        query, key = (shared[:, None] + F.linear(embeddings, of_sensors)).chunk(2, dim=-1)  # [B, 2, N, D]
        scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-2, -1)
        # P * softmax(s) with rows brought to 1 is softmax(s + log P): one pass, and no row can vanish by rounding.
        return torch.softmax(scores + self.log_transitions, dim=-1) * self.linked

    def _series(self, inputs: Tensor) -> Tensor:
        """Readings `[B, L, N]` -> features of each sensor's series `[B, N, D]`."""
        batch, _, sensors = inputs.shape
        hidden = torch.relu(self.widen(inputs.transpose(1, 2))).flatten(0, 1)  # [B N, 2 D]
        # One row has no variance to be normed by.
        alone = self.training and batch * sensors == 1
        hidden = _normed_by_average(hidden, self.norm) if alone else self.norm(hidden)
        return self.narrow(self.dropout(hidden)).unflatten(0, (batch, sensors))


def _normed_by_average(rows: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    return F.batch_norm(rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps)
