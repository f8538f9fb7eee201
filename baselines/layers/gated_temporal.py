"""Gated temporal convolution along time, as Graph WaveNet and MTGNN have it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GatedTemporalConvolution(nn.Module):
    """tanh(x * f + b) times sigmoid(x * g + c), where * is a dilated convolution along time without any padding.

    With one kernel size it is that of Graph WaveNet (arXiv 1906.00121, section 3.3). With several, each gives an
    equal share of the channels and all end at the same steps: MTGNN's dilated inception (arXiv 2005.11650, section
    4.4). `reach` steps are used up: output step t is made of the input steps t ... t + reach, so that it knows nothing
    later than the input step that it stands for.

    Args:
        in_size: channels of the input.
        out_size: channels of the output; the number of kernels divides it.
        kernel_sizes: taps of each kernel, from 1 on.
        dilation: steps from one tap to the next.

    Raises:
        ValueError: the channels cannot be shared out.
    """

    def __init__(self, in_size: int, out_size: int, kernel_sizes: Sequence[int], dilation: int = 1) -> None:
        super().__init__()
        share, left = divmod(out_size, len(kernel_sizes))
        if left:
            raise ValueError(f"{len(kernel_sizes)} kernels have to divide the width, got {out_size}")
        self.dilation = dilation
        self.longest = max(kernel_sizes)
        self.filters = nn.ModuleList(nn.Conv2d(in_size, share, (1, taps)) for taps in kernel_sizes)
        self.gates = nn.ModuleList(nn.Conv2d(in_size, share, (1, taps)) for taps in kernel_sizes)

    @property
    def reach(self) -> int:
        """By how many steps the output is shorter than the input."""
        return self.dilation * (self.longest - 1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, D, N, T]` -> `[B, D_out, N, T - reach]`."""
        # All of them as one convolution: a kernel that is shorter has zeros where it has no taps.
        kernels = [*self.filters, *self.gates]
        weight = torch.cat([F.pad(k.weight, (self.longest - k.weight.shape[-1], 0)) for k in kernels])
        bias = torch.cat([k.bias for k in kernels])
        filtered, gate = F.conv2d(x, weight, bias, dilation=(1, self.dilation)).chunk(2, dim=1)
        return torch.tanh(filtered) * torch.sigmoid(gate)
