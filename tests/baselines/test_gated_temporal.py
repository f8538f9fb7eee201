"""The gated temporal convolution against sums over taps, and what it may know of the future."""

import pytest
import torch

from baselines.layers.gated_temporal import GatedTemporalConvolution

CASES = pytest.mark.parametrize(
    ("kernel_sizes", "dilation"), [((2,), 1), ((2,), 4), ((3,), 2), ((2, 3, 6, 7), 1), ((1, 4), 3)]
)
T = 25


def layer_and_input(kernel_sizes, dilation, *, in_size=3, out_size=8, steps=T):
    torch.manual_seed(0)
    layer = GatedTemporalConvolution(in_size, out_size, kernel_sizes, dilation).double()
    return layer, torch.randn(2, in_size, 5, steps, dtype=torch.float64)


def tap_by_tap(convolution, x, dilation, t):
    """One kernel at step t of the input: its last tap lies on t, each one before `dilation` steps earlier."""
    out_size, _, _, taps = convolution.weight.shape
    total = convolution.bias[:, None].expand(out_size, x.shape[2])
    for tap in range(taps):
        total = total + torch.einsum(
            "oi,bin->bon", convolution.weight[:, :, 0, tap], x[..., t - (taps - 1 - tap) * dilation]
        )
    return total


@CASES
def test_each_kernel_is_a_sum_over_taps_that_end_at_the_same_step(kernel_sizes, dilation):
    layer, x = layer_and_input(kernel_sizes, dilation)
    found = layer(x)
    first = (max(kernel_sizes) - 1) * dilation
    assert found.shape == (2, 8, 5, T - first)
    for t in range(first, T):
        filtered = torch.cat([tap_by_tap(kernel, x, dilation, t) for kernel in layer.filters], dim=1)
        gate = torch.cat([tap_by_tap(kernel, x, dilation, t) for kernel in layer.gates], dim=1)
        torch.testing.assert_close(found[..., t - first], filtered.tanh() / (1 + (-gate).exp()))


@CASES
def test_a_step_knows_the_steps_of_its_taps_and_nothing_later(kernel_sizes, dilation):
    layer, x = layer_and_input(kernel_sizes, dilation)
    before = layer(x)
    reach = layer.reach
    for s in range(T):
        perturbed = x.clone()
        perturbed[..., s] += 1.0
        changed = (layer(perturbed) != before).flatten(0, 2).any(0).nonzero().flatten() + reach  # in steps of the input
        taps = range(max(kernel_sizes))
        assert changed.tolist() == [s + dilation * tap for tap in taps if reach <= s + dilation * tap < T]


def test_the_weights_start_as_those_of_kernels_of_their_own():
    """A kernel of k taps is drawn within 1 / sqrt(in_size * k), however long the others are."""
    layer = GatedTemporalConvolution(32, 32, (2, 7))
    for kernel in (*layer.filters, *layer.gates):
        bound = (32 * kernel.weight.shape[-1]) ** -0.5
        assert 0.95 * bound < kernel.weight.abs().max() <= bound


def test_a_width_that_the_kernels_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="3 kernels have to divide the width, got 8"):
        GatedTemporalConvolution(4, 8, (2, 3, 6))
