"""What every attention asks of its arguments, said once."""

import math

import torch
from torch import Tensor

_LAYOUT = "q [..., Nq, C], k [..., N, C] and v [..., N, Cv] are expected"


def check_inputs(q: Tensor, k: Tensor, v: Tensor, key_padding_mask: Tensor | None = None, causal: bool = False) -> None:
    """Refuse what no attention can take.

    Args:
        q: queries `[..., Nq, C]`.
        k: keys `[..., N, C]`.
        v: values `[..., N, Cv]`.
        key_padding_mask: bool `[..., N]`, True where a key is padding; broadcasts against the leading dimensions of k.
        causal: whether query i sees the keys up to i only, which asks for Nq = N.

    Raises:
        ValueError: shapes, dtypes or the mask do not fit, or there is no key. The message says what came.
    """
    shapes = f"got q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(f"{_LAYOUT}, {shapes}")
    if k.shape[-2] == 0 or k.shape[-1] == 0:
        raise ValueError(f"attention needs at least one key of at least one channel, {shapes}")
    leading = _broadcast(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    if leading is None:
        raise ValueError(f"the leading dimensions of q, k and v have to fit together, {shapes}")
    if not (q.dtype == k.dtype == v.dtype and q.dtype.is_floating_point):
        raise ValueError(f"q, k and v of one floating-point dtype are expected, got {q.dtype}, {k.dtype} and {v.dtype}")
    if causal and q.shape[-2] != k.shape[-2]:
        raise ValueError(f"causal attention needs as many queries as keys, {shapes}")
    if key_padding_mask is not None:
        _check_mask(key_padding_mask, leading, k.shape[-2])


def check_scale(scale: float | None, head_size: int) -> float:
    """The factor of the scores: 1 / sqrt(C) when None.

    Raises:
        ValueError: it is not a finite number.
    """
    if scale is None:
        return float(head_size**-0.5)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not math.isfinite(scale):
        raise ValueError(f"scale has to be a finite number or None, got {scale!r}")
    return float(scale)


def check_number(name: str, value: float) -> None:
    """Raises ValueError unless the value is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{name} has to be a finite number of at least 0, got {value!r}")


def _check_mask(mask: Tensor, leading: torch.Size, num_keys: int) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(f"key_padding_mask has to be bool, True where a key is padding, got {mask.dtype}")
    # The mask may not widen the result: it has to broadcast to the leading dimensions, not with them.
    if mask.ndim < 1 or mask.shape[-1] != num_keys or _broadcast(mask.shape[:-1], leading) != leading:
        raise ValueError(
            f"key_padding_mask that broadcasts to {(*leading, num_keys)} is expected, got {tuple(mask.shape)}"
        )


def _broadcast(*shapes: torch.Size) -> torch.Size | None:
    try:
        return torch.broadcast_shapes(*shapes)
    except RuntimeError:
        return None
