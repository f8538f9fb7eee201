"""MTGNN's mix-hop propagation."""

import torch
from torch import Tensor, nn


def propagation_matrix(graph: Tensor) -> Tensor:
    """Weights `[N, N]` -> (D + 1)^-1 (A + I): row i is where sensor i takes from, itself among them; rows sum to 1."""
    with_loops = graph + torch.eye(len(graph), dtype=graph.dtype, device=graph.device)
    return with_loops / with_loops.sum(1, keepdim=True)


class MixHop(nn.Module):
    """Hops H_k = β X + (1 - β) P H_(k-1) from H_0 = X on, and Σ H_k W_k of them: arXiv 2005.11650, section 4.3."""

    def __init__(self, hidden_size: int, depth: int, retain_ratio: float) -> None:
        super().__init__()
        self.depth = depth
        self.retain_ratio = retain_ratio
        self.select = nn.Linear((depth + 1) * hidden_size, hidden_size)

    def forward(self, x: Tensor, propagation: Tensor) -> Tensor:
        """`[B, N, T, D]` and the matrix P `[N, N]` -> `[B, N, T, D]`."""
        start = x.flatten(2)
        propagation = propagation.expand(len(x), -1, -1)
        hops = [start]
        for _ in range(self.depth):
            hops.append(
                torch.baddbmm(start, propagation, hops[-1], beta=self.retain_ratio, alpha=1 - self.retain_ratio)
            )
        return self.select(torch.cat([hop.view_as(x) for hop in hops], dim=-1))
