"""The linear maps around a multi-head attention."""

from typing import NamedTuple

from torch import Tensor


class Projections(NamedTuple):
    """Weights `[D, D]` (rows are outputs, heads side by side) and biases `[D]` of a multi-head attention."""

    q_weight: Tensor
    q_bias: Tensor
    k_weight: Tensor
    k_bias: Tensor
    v_weight: Tensor
    v_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
