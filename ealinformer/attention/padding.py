"""Padding keys, taken out before anything is computed from them."""

import torch
from torch import Tensor


def zero_padding(x: Tensor, key_padding_mask: Tensor | None) -> Tensor:
    """`[..., N, C]` with zeros in the rows of padding keys; `x` itself where the mask is None.

    The rows are replaced and not multiplied by 0, so that a NaN in them reaches neither the output nor a gradient.

    Args:
        x: keys, values, or features of keys `[..., N, C]`.
        key_padding_mask: bool `[..., N]`, True where a key is padding; may have leading dimensions that x lacks.
    """
    if key_padding_mask is None:
        return x
    return torch.where(key_padding_mask.unsqueeze(-1), x.new_zeros(()), x)
