"""Softmax attention, explicit and fused, against the definition, and the kernels that the fused one has to reach."""

import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ealinformer.attention import fused_softmax_attention, softmax_attention

both = pytest.mark.parametrize("attention", [softmax_attention, fused_softmax_attention])


def qkv(*shape, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype) for _ in range(3)]


def slow(q, k, v, scale, sees):
    """Query by query, for q, k, v `[N, C]` and `sees(i, j)`."""
    rows = []
    for i, query in enumerate(q):
        keys = [j for j in range(len(k)) if sees(i, j)]
        if not keys:
            rows.append(torch.zeros_like(v[0]))
            continue
        weights = torch.stack([(scale * (query * k[j]).sum()).exp() for j in keys])
        rows.append(sum(w * v[j] for w, j in zip(weights / weights.sum(), keys, strict=True)))
    return torch.stack(rows)


@both
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padding", [(), (2, 5), (0, 1, 8), tuple(range(9))])
@pytest.mark.parametrize("scale", [None, 0.3, -2.0])
def test_outputs_and_gradients_are_those_of_the_definition(attention, causal, padding, scale):
    tensors = [t.requires_grad_() for t in qkv(9, 5)]
    mask = torch.tensor([j in padding for j in range(9)]) if padding else None
    out = attention(*tensors, key_padding_mask=mask, causal=causal, scale=scale)
    expected = slow(
        *tensors, 1 / math.sqrt(5) if scale is None else scale, lambda i, j: j not in padding and (j <= i or not causal)
    )
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    direction = torch.randn(9, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grads = torch.autograd.grad((out * direction).sum(), tensors)
    # Zero times the inputs, so that the slow one has gradients even where it sees no key.
    expected_grads = torch.autograd.grad(((expected + 0 * sum(t.sum() for t in tensors)) * direction).sum(), tensors)
    for got, want in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("size", [8, 38, 5])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"mask": True}, {"mask": True, "causal": True}])
def test_the_fused_kernel_runs_whatever_the_dimensions(leading, size, options):
    tensors = [t.requires_grad_() for t in qkv(*leading, 20, size, dtype=torch.float32)]
    given = {"causal": options.get("causal", False)}
    if "mask" in options:
        given["key_padding_mask"] = torch.arange(20) > 16
    # Explicit weights are no backend here, so this raises unless the kernel takes what it is given.
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        out = fused_softmax_attention(*tensors, **given)
        out.sum().backward()
    torch.testing.assert_close(out, softmax_attention(*tensors, **given), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_the_stock_call_would_not_run_the_fused_kernel_on_five_dimensions():
    tensors = qkv(2, 3, 4, 20, 8, dtype=torch.float32)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), pytest.warns(match="4 dim"), pytest.raises(RuntimeError):
        torch.nn.functional.scaled_dot_product_attention(*tensors)


@both
def test_values_may_have_another_width_and_there_may_be_more_queries_than_keys(attention):
    q, k, _ = qkv(2, 3, 11, 5)
    k, v = k[..., :7, :], qkv(2, 3, 7, 9, seed=1)[2]
    out = attention(q, k, v)
    assert out.shape == (2, 3, 11, 9)
    torch.testing.assert_close(out[1, 2], slow(q[1, 2], k[1, 2], v[1, 2], 5**-0.5, lambda i, j: True))


def test_the_kernel_is_given_channels_that_fit_any_memory_alignment(monkeypatch):
    """A CUDA device has no kernel for 38 channels in float32; no CPU can show that."""
    q, k, _ = qkv(2, 20, 38)
    v = qkv(2, 20, 5, seed=1)[2]
    expected = fused_softmax_attention(q, k, v)
    shapes = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def recorded(*tensors, **options):
        shapes.extend(t.shape[-1] for t in tensors)
        return kernel(*tensors, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", recorded)
    assert torch.equal(fused_softmax_attention(q, k, v), expected)
    assert shapes == [40, 40, 8]
