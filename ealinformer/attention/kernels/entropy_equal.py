"""Entropy-equal attention through the kernels, and why they cannot take a call."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ealinformer.attention.checks import check_inputs, check_number, check_scale
from ealinformer.attention.entropy import ESTIMATORS

if TYPE_CHECKING:
    from ealinformer.attention.kernels.forward import Theta

ENTROPIES = ("taylor", "second_order", "gaussian")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LARGEST_HEAD = 64  # channels: the sums of a larger head may not fit into the registers and shared memory of a program


def entropy_equal_kernel(
    q: Tensor, k: Tensor, v: Tensor, *, entropy: str = "taylor", eps: float = 1e-8, scale: float | None = None
) -> Tensor:
    """`entropy_equal_attention` without padding and causal order, for what `kernel_reason` has no word against.

    Args:
        q: queries `[..., Nq, C]`. Heads split out of `[..., Nq, heads * C]` are read in place; so are k and v.
        k: keys `[..., N, C]`.
        v: values `[..., N, Cv]`.
        entropy: one of `ENTROPIES`.
        eps: added to theta.
        scale: of the scores; 1 / sqrt(C) when None.

    Returns:
        `[..., Nq, Cv]` in the dtype of the inputs, with first derivatives. What the backward pass keeps is q, k, v and
        O(C^2) numbers a head.

    Raises:
        ValueError: shapes or numbers do not fit, or the kernels cannot take the call.
    """
    check_inputs(q, k, v)
    check_number("eps", eps)
    scale = check_scale(scale, q.shape[-1])
    reason = kernel_reason(q, k, v, entropy=entropy)
    if reason is not None:
        raise ValueError(reason)
    from ealinformer.attention.kernels.forward import Theta

    constant = ESTIMATORS[entropy].constant
    if constant is None:
        theta = Theta(True, scale, eps, 2 * math.log(max(k.shape[-2], 2)))
    else:
        theta = Theta(False, scale / (constant + eps))
    leading = torch.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    out = _EntropyEqual.apply(*(_two_leading(x, leading) for x in (q, k, v)), theta)
    return out.reshape(*leading, *out.shape[-2:])


def kernel_reason(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    entropy: str = "taylor",
    key_padding_mask: Tensor | None = None,
    causal: bool = False,
) -> str | None:
    """Why the kernels cannot take this call, in one line; None where they can. The shapes are taken to fit."""
    if causal:
        return "the kernels have no causal form"
    if key_padding_mask is not None:
        return "the kernels take no key_padding_mask"
    if entropy not in ENTROPIES:
        return f"the kernels know the entropies {', '.join(ENTROPIES)}, got {entropy!r}"
    if q.dtype not in DTYPES:
        return f"the kernels take float32, bfloat16 and float16, got {q.dtype}"
    if max(q.shape[-1], v.shape[-1]) > LARGEST_HEAD:
        return f"the kernels take heads of up to {LARGEST_HEAD} channels, got C = {q.shape[-1]}, Cv = {v.shape[-1]}"
    if not (q.numel() and k.numel() and v.numel()):
        return "the kernels take no empty tensors"
    try:
        from ealinformer.attention.kernels.launch import interpreted
    except ImportError:
        return "the kernels need triton, which is not installed"
    if q.device.type != "cuda" and not interpreted():
        return f"the kernels need a CUDA device, q is on {q.device}"
    return None


class _EntropyEqual(torch.autograd.Function):
    """On `[B, heads, N, C]` of stride 1 in the channels."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, theta: "Theta") -> Tensor:
        from ealinformer.attention.kernels import forward as passes

        with torch.cuda.device_of(q):
            sums = passes.key_sums(k, v, theta.by_query)
            out = passes.attend(q, sums, theta)
        ctx.save_for_backward(q, k, v, *sums)
        ctx.theta = theta
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        from ealinformer.attention.kernels import backward as passes
        from ealinformer.attention.kernels.forward import KeySums

        q, k, v, *saved = ctx.saved_tensors
        sums = KeySums(*saved)
        with torch.cuda.device_of(q):
            grad_q, grads = passes.query_gradients(q, _unit_stride(grad), sums, ctx.theta)
            grad_k, grad_v = passes.key_gradients(k, v, sums, grads)
        return grad_q, grad_k, grad_v, None


def _two_leading(x: Tensor, leading: torch.Size) -> Tensor:
    """`[..., N, C]` -> `[B, heads, N, C]`, without a copy where the strides allow it."""
    x = x.expand(*leading, *x.shape[-2:])
    return _unit_stride(x.reshape(math.prod(leading[:-1]), *(leading[-1:] or (1,)), *x.shape[-2:]))


def _unit_stride(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()
