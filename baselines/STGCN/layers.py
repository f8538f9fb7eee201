"""The parts of STGCN, on signals `[B, T, N, C]`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.layers.chebyshev import ChebyshevConvolution


class Align(nn.Module):
    """What is added to a layer's output: its input with as many channels, `[..., C]` -> `[..., output_size]`.

    Channels too many are mapped, and channels that lack are zeros (the authors' code). For those the published
    implementations keep a map as well and never use it; their parameters count it, and so do these.
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.missing = output_size - input_size
        projection = nn.Linear(input_size, output_size)
        if self.missing < 0:
            self.projection = projection
        else:
            self.unused_projection = projection

    def forward(self, x: Tensor) -> Tensor:
        if self.missing < 0:
            return self.projection(x)
        return F.pad(x, (0, self.missing)) if self.missing else x


class GatedConvolution(nn.Module):
    """Gated convolution along time, (P + x) * sigmoid(Q) (section 3.3), without padding: T steps become T - kernel + 1.

    P and Q are the two halves of a convolution's channels, and x the last of the steps that it sees.
    """

    def __init__(self, input_size: int, output_size: int, kernel_size: int) -> None:
        super().__init__()
        self.align = Align(input_size, output_size)
        self.convolution = nn.Conv2d(input_size, 2 * output_size, (kernel_size, 1))
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, N, input_size]` -> `[B, T - kernel_size + 1, N, output_size]`."""
        # [B, C, T, N] for the convolution, with C innermost in memory, in which it reads and writes without a copy.
        forecast, gate = self.convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).chunk(2, dim=-1)
        return (forecast + self.align(x[:, self.kernel_size - 1 :])) * gate.sigmoid()


class SpatioTemporalBlock(nn.Module):
    """Gated convolution, graph convolution, gated convolution (section 3.4, equation 8); layer norm and dropout."""

    def __init__(
        self,
        num_sensors: int,
        input_size: int,
        hidden_size: int,
        graph_size: int,
        temporal: int,
        graph: int,
        rate: float,
    ) -> None:
        super().__init__()
        self.before = GatedConvolution(input_size, hidden_size, temporal)
        self.align = Align(hidden_size, graph_size)
        self.graph_convolution = ChebyshevConvolution(graph_size, graph_size, graph)
        self.after = GatedConvolution(graph_size, hidden_size, temporal)
        self.norm = nn.LayerNorm([num_sensors, hidden_size])
        self.dropout = nn.Dropout(rate)

    def forward(self, x: Tensor, support: Tensor) -> Tensor:
        """`[B, T, N, C]` -> `[B, T - 2 temporal + 2, N, hidden_size]`."""
        x = self.align(self.before(x))
        x = torch.relu(x + self.graph_convolution(x, support))
        return self.dropout(self.norm(self.after(x)))
