"""MTGNN's graph learning layer."""

import torch
from torch import Tensor, nn


class GraphLearner(nn.Module):
    """A one-directed graph with at most k edges from each sensor (arXiv 2005.11650, section 4.2).

    M1 = tanh(a E1 Θ1), M2 = tanh(a E2 Θ2) and A = relu(tanh(a (M1 M2ᵀ - M2 M1ᵀ))), of which row i keeps its k largest
    weights. What the outer tanh is of is antisymmetric: of i -> j and j -> i one is 0.

    Most of the weights that are kept are 1 to rounding, and tanh passes no gradient there. In training the edges are
    ranked with uniform noise of `tie_noise` added, as the authors' code does at all times: each step then draws among
    edges of nearly the same weight, less saturated ones too, and these are learned. In evaluation they are ranked by
    what tanh is of, which has tanh's order and no ties, so that the graph is always the same.
    """

    def __init__(self, num_sensors: int, width: int, num_neighbors: int, saturation: float, tie_noise: float) -> None:
        super().__init__()
        self.num_neighbors = min(num_neighbors, num_sensors)
        self.saturation = saturation
        self.tie_noise = tie_noise
        self.source = nn.Embedding(num_sensors, width)
        self.target = nn.Embedding(num_sensors, width)
        self.source_map = nn.Linear(width, width)
        self.target_map = nn.Linear(width, width)

    def forward(self) -> Tensor:
        """Weights `[N, N]` in [0, 1]: (i, j) is the edge i -> j, 0 where there is none."""
        source = torch.tanh(self.saturation * self.source_map(self.source.weight))
        target = torch.tanh(self.saturation * self.target_map(self.target.weight))
        one_way = source @ target.T
        strength = one_way - one_way.T
        weights = torch.relu(torch.tanh(self.saturation * strength))
        with torch.no_grad():
            rank = weights + self.tie_noise * torch.rand_like(weights) if self.training else strength
            kept = torch.zeros_like(weights).scatter_(1, rank.topk(self.num_neighbors).indices, 1.0)
        return weights * kept
