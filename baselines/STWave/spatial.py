"""Attention along sensors that asks for a few of them only (arXiv 2112.02740, section IV-B, "query sampling")."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.STWave.config import STWaveConfig
from baselines.STWave.graphs import log_count
from baselines.STWave.temporal import FeedForward


class SampledAttention(nn.Module):
    """Softmax attention with the u = log2 N queries of each step and head that score highest, and a feed-forward.

    A query's score is a linear map of its products with the keys of its neighbours. A sensor that is not asked takes
    the result of the query that attends to it most. Time grows with N log N.

    No gradient passes through a choice, so `score` keeps its first values, as in the authors' code.
    """

    def __init__(self, config: STWaveConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.n_heads = config.n_heads
        self.num_queries = max(1, min(config.num_features, log_count(config.num_features, config.log_samples)))
        self.by_feature = config.query_score == "features"
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.score = nn.Linear(width // config.n_heads if self.by_feature else 1 + num_neighbours(config), 1)
        self.norm = nn.LayerNorm(width, elementwise_affine=config.spatial_norm_affine)
        self.feed_forward = FeedForward(width)

    def forward(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """`[B, T, N, D]`, neighbours `[N, 1 + k]` of each sensor, itself the first -> `[B, T, N, D]`."""
        chosen = self._choose(x, neighbours)
        weights = self._attend(x, chosen)
        mixed = self._mix(weights, x)
        own = torch.arange(self.num_queries, device=x.device).expand_as(chosen)
        taken = weights.argmax(dim=-2).scatter(-1, chosen, own)  # [B, T, heads, N]
        copied = F.one_hot(taken, self.num_queries).to(x.dtype)  # as a product: faster than an index, and its gradient
        if self.n_heads == 1:  # what follows is done row by row, and sensors that share a row need it once
            return copied.squeeze(2) @ self._finish(mixed)
        return self._finish(copied @ mixed)

    @torch.no_grad()
    def _choose(self, x: Tensor, neighbours: Tensor) -> Tensor:
        """The sensors that are asked, `[B, T, heads, u]`."""
        q = self._heads(self.q_proj(x))
        if self.by_feature:
            scored = q * self._heads(self.k_proj(_mean_of(x, neighbours)))  # the mean key is the key of the mean
        else:
            k = self._heads(self.k_proj(x))
            near = (k.index_select(-2, column) for column in neighbours.unbind(dim=1))  # one by one: as large as k each
            scored = torch.stack([(q * key).sum(dim=-1) for key in near], dim=-1)
        return self.score(scored).squeeze(-1).topk(self.num_queries, dim=-1, sorted=False).indices

    def _heads(self, x: Tensor) -> Tensor:
        """`[B, T, N, D]` -> `[B, T, heads, N, C]`."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(2, 3)

    # Of q (W_k x + b_k) = (q W_k) x + q b_k a softmax over sensors does not see the last term, and its weights sum to
    # 1: so neither keys nor values of all N sensors have to be computed, and projections act on the u rows of queries.

    def _attend(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Weights of the chosen queries, `[B, T, heads, u, N]`."""
        index = chosen.flatten(2).unsqueeze(-1).expand(-1, -1, -1, x.shape[-1])
        q = _by_head(x.gather(2, index).unflatten(2, (self.n_heads, -1)), self.q_proj)
        scores = torch.einsum("bthuc,hcd->bthud", q, self.k_proj.weight.unflatten(0, (self.n_heads, -1)))
        scores = scores.flatten(2, 3) @ x.transpose(2, 3) / math.sqrt(q.shape[-1])
        return torch.softmax(scores, dim=-1).unflatten(2, (self.n_heads, -1))

    def _mix(self, weights: Tensor, x: Tensor) -> Tensor:
        """Weighted means of the values, `[B, T, heads, u, C]`."""
        return _by_head((weights.flatten(2, 3) @ x).unflatten(2, (self.n_heads, -1)), self.v_proj)

    def _finish(self, heads: Tensor) -> Tensor:
        """`[B, T, heads, R, C]` -> `[B, T, R, D]`."""
        return self.feed_forward(self.norm(self.out_proj(heads.transpose(2, 3).flatten(3))))


def _mean_of(x: Tensor, neighbours: Tensor) -> Tensor:
    """Mean over the neighbours of each sensor, `[B, T, N, D]` -> `[B, T, N, D]`; no copy of x for each of them."""
    by_sensor = x.permute(2, 0, 1, 3)
    mean = F.embedding_bag(neighbours, by_sensor.flatten(1), mode="mean")
    return mean.view(by_sensor.shape).permute(1, 2, 0, 3)


def _by_head(rows: Tensor, proj: nn.Linear) -> Tensor:
    """`[B, T, heads, R, D]` -> `[B, T, heads, R, C]`: of the projection each head takes its own channels."""
    weight, bias = (parameter.unflatten(0, (rows.shape[2], -1)) for parameter in (proj.weight, proj.bias))
    return torch.einsum("bthrd,hcd->bthrc", rows, weight) + bias.unsqueeze(1)


def num_neighbours(config: STWaveConfig) -> int:
    """How many other sensors a query is scored with: log2 N, as many as there are queries."""
    return min(config.num_features - 1, log_count(config.num_features, config.log_samples))
