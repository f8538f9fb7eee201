"""Graph WaveNet's diffusion convolution."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DiffusionConvolution(nn.Module):
    """X W_0 plus, for each graph S and each order k = 1 ... K, S^k X W_(S,k): arXiv 1906.00121, section 3.2.

    The sum over the orders of a graph is taken from the highest down, X W_1 + S (X W_2 + S (...)): as many products
    with S as the powers of X would need, and none of those powers is kept for the backward pass.

    Args:
        in_size: channels of the input.
        out_size: channels of the output.
        order: K.
        copies: for each graph that is handed in, how many of the paper's graphs it stands for. Graphs that are the same
            have weights of their own, the sum of which is multiplied once.
    """

    def __init__(self, in_size: int, out_size: int, order: int, copies: Sequence[int]) -> None:
        super().__init__()
        self.order = order
        self.copies = tuple(copies)
        # Columns: those of X, then of graph 1 the orders 1 ... K, of graph 2 ...
        self.mix = nn.Linear((1 + sum(self.copies) * order) * in_size, out_size)

    def forward(self, x: Tensor, graphs: Sequence[Tensor]) -> Tensor:
        """Signals `[B, D, N, T]` and graphs `[N, N]`, row i what sensor i takes -> `[B, D_out, N, T]`."""
        x = x.movedim(1, -1)
        batch, num_sensors, steps, width = x.shape
        columns = self.mix.weight.unflatten(1, (-1, width))
        total = F.linear(x, columns[:, 0], self.mix.bias).flatten(2)
        of_graphs = columns[:, 1:].unflatten(1, (-1, self.order)).split(self.copies, dim=1)
        for graph, weights in zip(graphs, of_graphs, strict=True):
            graph = graph.expand(batch, num_sensors, num_sensors)
            *lower, term = (F.linear(x, weight).flatten(2) for weight in weights.sum(1).unbind(1))
            for below in reversed(lower):
                term = torch.baddbmm(below, graph, term)
            total = torch.baddbmm(total, graph, term)
        return total.unflatten(2, (steps, -1)).movedim(-1, 1)
