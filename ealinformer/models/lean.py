"""What a layer of the backbone does, with less kept and less passed over: the plain layer's numbers, to rounding.

Between two layers a layer norm's result is `normed * weight + bias`. Only `normed` is kept, once: whoever takes the
result next takes weight and bias into its own weights (`folded`), so that it is never written out, and the backward
pass of the norm itself needs nothing else. Dropout masks are bits. Plain PyTorch keeps for every norm its input and its
output, and a float for every entry of a mask.

Under autocast activations are kept in the half precision it says; sums and norms are taken in float32.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ealinformer.attention.multi_head import folded
from ealinformer.attention.precision import product_dtype, wide, wide_dtype, without_autocast
from ealinformer.models.dropout import draw_kept, packed, unpacked

BLOCK_ENTRIES = 1 << 18  # 1 MiB in float32


class Normed(NamedTuple):
    """Activations `[..., D]` as normed * affine[0] + affine[1], or as normed where affine is None."""

    normed: Tensor
    affine: tuple[Tensor, Tensor] | None = None

    def transposed(self, *, copy: bool) -> "Normed":
        """Dimensions 1 and 2 exchanged, as a view or with rows in order."""
        exchanged = self.normed.transpose(1, 2)
        return Normed(exchanged.contiguous() if copy else exchanged, self.affine)


def start(x: Tensor) -> Normed:
    """Activations in the precision that they are kept in."""
    return Normed(x.to(product_dtype(x)))


def feed_forward(x: Normed, layers: nn.Sequential) -> Tensor:
    """Linear, ReLU, linear: `[..., D]` -> `[..., D]`."""
    first, _, second = layers
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    weights = (*folded(first, x.affine), second.weight, second.bias)
    with without_autocast(x.normed):
        arguments = (x.normed, *(weight.to(x.normed.dtype) for weight in weights))
        return _FeedForward.apply(*arguments) if torch.is_grad_enabled() else _feed_forward(*arguments)[0]


def add_norm(x: Normed, added: Tensor, norm: nn.LayerNorm, dropout: nn.Dropout) -> Normed:
    """LayerNorm(x + dropout(added)): both `[..., D]`."""
    kept = draw_kept(added, dropout.p) if dropout.training and dropout.p > 0 else None
    scale = 1 / (1 - dropout.p) if kept is not None else 1.0
    with without_autocast(added):
        arguments = (x.normed, *(x.affine or (None, None)), added, kept, scale, norm.eps)
        normed = _AddNorm.apply(*arguments) if torch.is_grad_enabled() else _add_norm(*arguments)[0]
    return Normed(normed, (norm.weight, norm.bias))


def project_horizon(x: Normed, output_proj: nn.Linear) -> Tensor:
    """All steps of a sensor to its forecast: `[B, N, L, D]` -> `[B, N, H]`."""
    weight, bias = output_proj.weight, output_proj.bias
    if x.affine is not None:
        by_step = weight.unflatten(1, x.normed.shape[-2:])  # [H, L, D]
        weight = (by_step * x.affine[0]).flatten(1)
        bias = bias + by_step.sum(dim=1) @ x.affine[1]
    return F.linear(x.normed.flatten(2), weight, bias)


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        out, hidden = _feed_forward(x, *weights)
        ctx.save_for_backward(x, hidden, weights[0], weights[2])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, hidden, first, second = ctx.saved_tensors
        x_rows, grad_rows = _rows(x), _rows(_ordered_as(x, grad))
        g_x = torch.empty_like(x_rows)
        g_first, g_second = torch.zeros_like(first), torch.zeros_like(second)
        g_first_bias, g_bias = first.new_zeros(len(first)), second.new_zeros(len(second))
        for rows in _blocks(hidden):
            given, active = grad_rows[rows], hidden[rows]
            g_hidden = given @ second
            torch.ops.aten.threshold_backward.grad_input(g_hidden, active, 0, grad_input=g_hidden)
            torch.mm(g_hidden, first, out=g_x[rows])
            g_first.addmm_(g_hidden.t(), x_rows[rows])
            g_first_bias += g_hidden.sum(dim=0)
            g_second.addmm_(given.t(), active)
            g_bias += given.sum(dim=0)
        return _shaped_as(x, g_x), g_first, g_first_bias, g_second, g_bias


def _feed_forward(x: Tensor, first: Tensor, first_bias: Tensor, second: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The result, and the hidden rows after the ReLU `[R, F]`."""
    hidden = torch.addmm(first_bias, _rows(x), first.t()).relu_()
    return _shaped_as(x, torch.addmm(bias, hidden, second.t())), hidden


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        normed: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        added: Tensor,
        kept: Tensor | None,
        scale: float,
        eps: float,
    ) -> Tensor:
        out, inverse_std = _add_norm(normed, weight, bias, added, kept, scale, eps)
        ctx.save_for_backward(normed, weight, None if kept is None else packed(kept), out, inverse_std)
        ctx.scale, ctx.dtype = scale, added.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normed, weight, kept, out, inverse_std = ctx.saved_tensors
        width = out.shape[-1]
        grad_rows, out_rows, normed_rows = (_rows(x) for x in (_ordered_as(normed, grad), out, normed))
        kept_rows = None if kept is None else unpacked(kept, out_rows.shape)
        g_normed, g_added = torch.empty_like(normed_rows), torch.empty_like(out_rows, dtype=ctx.dtype)
        g_weight, g_bias = (None, None) if weight is None else (torch.zeros_like(weight), torch.zeros_like(weight))
        for rows in _blocks(out_rows):
            own = wide(out_rows[rows])
            # `own` is normed already: for the operator its mean is 0 and its scale 1.
            std = torch.ones_like(inverse_std[rows])
            g_sum, _, _ = torch.ops.aten.native_layer_norm_backward(
                wide(grad_rows[rows]), own, [width], torch.zeros_like(std), std, None, None, [True, False, False]
            )
            g_sum.mul_(inverse_std[rows])
            g_added[rows] = g_sum if kept_rows is None else kept_rows[rows].to(g_sum.dtype).mul_(ctx.scale).mul_(g_sum)
            if weight is None:
                g_normed[rows] = g_sum
            else:
                g_normed[rows] = g_sum * weight
                g_bias += g_sum.sum(dim=0)
                g_weight += g_sum.mul_(normed_rows[rows]).sum(dim=0)
        return _shaped_as(out, g_normed), g_weight, g_bias, _shaped_as(out, g_added), None, None, None


def _add_norm(
    normed: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    added: Tensor,
    kept: Tensor | None,
    scale: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """The normed sum, in the precision of `normed`, and 1 / std of its rows `[R, 1]`."""
    width = normed.shape[-1]
    normed_rows, added_rows = _rows(normed), _rows(_ordered_as(normed, added))
    kept_rows = None if kept is None else kept.view(-1, width)
    wider = wide_dtype(normed.dtype)
    out, inverse_std = torch.empty_like(normed_rows), normed.new_empty(normed_rows.shape[0], 1, dtype=wider)
    # With weights of 1: torch's kernel for the CPU takes longer without.
    ones, zeros = normed.new_ones(width, dtype=wider), normed.new_zeros(width, dtype=wider)
    for rows in _blocks(out):
        x, more = wide(normed_rows[rows]), wide(added_rows[rows])
        if weight is not None and bias is not None:
            x = torch.addcmul(bias, x, weight)
        total = x + more if kept_rows is None else torch.addcmul(x, more, kept_rows[rows].to(wider), value=scale)
        out[rows], _, inverse_std[rows] = torch.native_layer_norm(total, [width], ones, zeros, eps)
    return _shaped_as(normed, out), inverse_std


# Activations lie either in the order of their dimensions or with dimensions 1 and 2 exchanged: what works row by row
# takes the rows as they lie.


def _rows(x: Tensor) -> Tensor:
    """`[..., D]` -> `[R, D]`, in the order of memory."""
    return (x if x.is_contiguous() else x.transpose(1, 2)).flatten(0, -2)


def _shaped_as(x: Tensor, rows: Tensor) -> Tensor:
    """The reverse, for rows of an `x`."""
    return rows.view(x.shape) if x.is_contiguous() else rows.view(x.transpose(1, 2).shape).transpose(1, 2)


def _ordered_as(x: Tensor, other: Tensor) -> Tensor:
    """`other`, in the order of memory of `x`."""
    return other.contiguous() if x.is_contiguous() else other.transpose(1, 2).contiguous().transpose(1, 2)


def _blocks(rows: Tensor) -> list[slice]:
    """On the CPU, rows that stay in its cache between the passes over them; elsewhere all at once."""
    count = rows.shape[0]  # not len(), which would fix the size of an exported program
    if rows.device.type != "cpu" or torch.compiler.is_compiling():
        return [slice(0, count)]
    size = max(1, BLOCK_ENTRIES // max(1, rows.shape[-1]))
    return [slice(first, first + size) for first in range(0, count, size)]
