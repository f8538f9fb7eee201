"""Graph convolution with Chebyshev polynomials of a support (arXiv 1606.09375; STGCN, equation 5)."""

import math

import torch
from torch import Tensor, nn


def chebyshev_terms(support: Tensor, signal: Tensor, count: int, *, sensors_first: bool = False) -> Tensor:
    """The first `count` of T_0 x = x, T_1 x = S x, T_k x = 2 S T_{k-1} x - T_{k-2} x, side by side.

    With eigenvalues of S in [-1, 1] those of every T_k are in [-1, 1], too.

    Args:
        support: S, `[N, N]`; or `[B, N, N]` for a signal `[B, N, C]`.
        signal: x, `[..., N, C]`; `[N, ..., C]` where the sensors are first, which takes one product for all the rest.

    Returns:
        the shape of the signal with `count * C` in place of C.
    """

    def spread(x: Tensor) -> Tensor:
        return (support @ x.flatten(1)).view_as(x) if sensors_first else support @ x

    terms = [signal]
    if count > 1:
        terms.append(spread(signal))
    while len(terms) < count:
        terms.append(2 * spread(terms[-1]) - terms[-2])
    return torch.cat(terms, dim=-1)


class ChebyshevConvolution(nn.Module):
    """sum over k of T_k(S) x W_k + b, `num_terms` terms from T_0 on: a sensor sees those fewer than that many hops off.

    Kaiming uniform at first, as a linear layer that takes all terms side by side.
    """

    def __init__(self, input_size: int, output_size: int, num_terms: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_terms, input_size, output_size))
        self.bias = nn.Parameter(torch.empty(output_size))
        bound = 1 / math.sqrt(num_terms * input_size)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, support: Tensor) -> Tensor:
        """`[..., N, input_size]` and the support `[N, N]` -> `[..., N, output_size]`."""
        return chebyshev_terms(support, x, len(self.weight)) @ self.weight.flatten(0, 1) + self.bias
