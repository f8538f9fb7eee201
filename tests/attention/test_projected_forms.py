"""The forms of entropy-equal self-attention that take in its projections, against the path through heads."""

import pytest
import torch

from ealinformer.attention import (
    MultiHeadAttention,
    Projections,
    build_attention,
    covariance_attention,
    entropy_equal_attention,
    reference_attention,
)
from ealinformer.attention import multi_head as multi_head_module
from ealinformer.attention.short import short_attention
from ealinformer.attention.slabs import slabs

FORMS = [covariance_attention, short_attention]
SHARPNESS = 0.7


def projections(width, *, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    shapes = [(width, width) if name.endswith("weight") else (width,) for name in Projections._fields]
    draws = (torch.randn(shape, generator=g, dtype=dtype) / width**0.5 for shape in shapes)
    return Projections(*(draw.requires_grad_() for draw in draws))


def rows(*shape, offset=0.0, dtype=torch.float64):
    g = torch.Generator().manual_seed(1)
    return (torch.randn(shape, generator=g, dtype=dtype) + offset).requires_grad_()


def through_heads(x, weights, n_heads, sharpness):
    """The definition, by the explicit float64 weights, where scale / theta is `sharpness`."""
    q, k, v = (
        torch.nn.functional.linear(x, w, b).unflatten(-1, (n_heads, -1)).transpose(-3, -2)
        for w, b in (weights[:2], weights[2:4], weights[4:6])
    )
    # theta of second order is 1, so that the scale is the sharpness. The reference has no gradient for a single row.
    attention = reference_attention if x.shape[-2] > 1 else entropy_equal_attention
    mixed = attention(q, k, v, entropy="second_order", eps=0.0, scale=sharpness)
    return torch.nn.functional.linear(mixed.transpose(-3, -2).flatten(-2), *weights[6:])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1, 12), (2, 12), (7, 12), (3, 5, 12), (2, 3, 40, 12), (2, 2, 2, 9, 12)])
@pytest.mark.parametrize("n_heads", [1, 3])
def test_outputs_and_gradients_follow_the_definition(form, shape, n_heads):
    x, weights = rows(*shape), projections(12)
    out, expected = form(x, weights, n_heads, SHARPNESS), through_heads(x, weights, n_heads, SHARPNESS)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    direction = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ours, theirs = (torch.autograd.grad((y * direction).sum(), [x, *weights]) for y in (out, expected))
    for name, a, b in zip(["x", *Projections._fields], ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=lambda said, name=name: f"{name}: {said}")
    with torch.no_grad():
        torch.testing.assert_close(form(x, weights, n_heads, SHARPNESS), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_first_derivatives_by_differences(form):
    x, weights = rows(2, 4, 6), projections(6)
    assert torch.autograd.gradcheck(lambda x, *w: form(x, Projections(*w), 2, SHARPNESS), (x, *weights))


@pytest.mark.parametrize("form", FORMS)
def test_a_transposed_view_is_taken_as_it_lies(form):
    lying = rows(2, 9, 4, 12)
    x = lying.transpose(1, 2)
    out, weights = form(x, projections(12), 3, SHARPNESS), projections(12)
    assert out.stride() == x.stride()
    torch.testing.assert_close(out, form(x.contiguous(), weights, 3, SHARPNESS))
    direction = torch.randn(x.shape, dtype=torch.float64)
    ours = torch.autograd.grad((out * direction).sum(), lying)[0]
    theirs = torch.autograd.grad((form(x.contiguous(), weights, 3, SHARPNESS) * direction).sum(), lying)[0]
    torch.testing.assert_close(ours, theirs)


def test_a_common_offset_costs_the_covariance_form_no_digits():
    """Sums are of centred rows: in float32 an offset 300 times the differences leaves the differences."""
    exact_weights = projections(12)
    weights = Projections(*(w.detach().float() for w in exact_weights))
    x = rows(2, 50, 12, offset=300.0, dtype=torch.float32).detach()
    expected = through_heads(x.double(), exact_weights, 3, SHARPNESS)
    # Nothing that takes the offset through products in float32 keeps more than what a linear map of it loses.
    unavoidable = (torch.nn.functional.linear(x, weights[0]).double() - x.double() @ exact_weights[0].t()).abs().max()
    assert (covariance_attention(x, weights, 3, SHARPNESS) - expected).abs().max() < 50 * unavoidable


def test_the_bias_of_the_keys_has_a_gradient_of_nothing_in_the_covariance_form():
    weights = projections(12)
    covariance_attention(rows(3, 20, 12), weights, 3, SHARPNESS).square().sum().backward()
    assert torch.equal(weights.k_bias.grad, torch.zeros(12, dtype=torch.float64))


class TestChoice:
    """Which form `MultiHeadAttention` takes."""

    @staticmethod
    def taken(layer, x, monkeypatch, **options):
        forms = []
        for name in ("short_attention", "covariance_attention"):
            real = getattr(multi_head_module, name)
            monkeypatch.setattr(
                multi_head_module, name, lambda *a, name=name, real=real, **k: forms.append(name) or real(*a, **k)
            )
        layer(x, **options)
        return forms

    @pytest.mark.parametrize(
        ("num_rows", "form"),
        [
            (3, ["short_attention"]),
            (4, []),
            (11, []),
            (12, ["covariance_attention"]),
            (40, ["covariance_attention"]),
        ],
    )
    def test_by_the_number_of_rows(self, num_rows, form, monkeypatch):
        assert self.taken(MultiHeadAttention(12, 3), torch.randn(2, num_rows, 12), monkeypatch) == form

    @pytest.mark.parametrize("num_rows", [3, 40])
    @pytest.mark.parametrize(
        "attention",
        [
            build_attention("softmax", head_size=4),
            build_attention("entropy_equal", head_size=4, entropy="gaussian"),
            build_attention("entropy_equal", head_size=4, branch="linear"),
        ],
    )
    def test_not_without_one_theta_for_all_nor_where_a_branch_is_asked_for(self, attention, num_rows, monkeypatch):
        layer = MultiHeadAttention(12, 3, attention)
        assert self.taken(layer, torch.randn(2, num_rows, 12), monkeypatch) == []

    @pytest.mark.parametrize("num_rows", [3, 40])
    def test_not_with_a_mask_causally_or_switched_off(self, num_rows, monkeypatch):
        x = torch.randn(2, num_rows, 12)
        mask = torch.zeros(2, num_rows, dtype=torch.bool)
        assert self.taken(MultiHeadAttention(12, 3), x, monkeypatch, key_padding_mask=mask) == []
        assert self.taken(MultiHeadAttention(12, 3), x, monkeypatch, causal=True) == []
        assert self.taken(MultiHeadAttention(12, 3, collapse=False), x, monkeypatch) == []

    @pytest.mark.parametrize("num_rows", [3, 7, 40])
    def test_all_give_the_same_numbers_on_an_affine_map_of_the_rows(self, num_rows):
        torch.manual_seed(0)
        layer = MultiHeadAttention(12, 3).double()
        x, weight, bias = (torch.randn(s, dtype=torch.float64) for s in ((2, num_rows, 12), (12,), (12,)))
        ours = layer(x, affine=(weight, bias))
        layer.collapse = False
        torch.testing.assert_close(ours, layer(x * weight + bias))


@pytest.mark.parametrize("shape", [(9, 4), (5, 9, 4), (2, 5, 9, 4), (2, 3, 5, 9, 4)])
@pytest.mark.parametrize("entries", [1, 80, 1 << 20])
def test_portions_are_views_that_cover_all_groups_in_order(shape, entries, monkeypatch):
    monkeypatch.setattr("ealinformer.attention.slabs.ENTRIES", entries)
    x = torch.randn(shape)
    parts = slabs(x)
    assert torch.equal(torch.cat(parts), x.reshape(-1, 9, 4))
    assert all(len(part) == 1 or part.numel() <= entries for part in parts)
    for part in parts:
        part.zero_()
    assert not x.any()
