"""Multi-head attention against torch's own module and against per-head computation."""

import pytest
import torch

from ealinformer.attention import (
    MultiHeadAttention,
    build_attention,
    entropy_equal_attention,
    fused_softmax_attention,
    reference_attention,
    softmax_attention,
)


@pytest.mark.parametrize("attention", [softmax_attention, fused_softmax_attention])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padding", [False, True])
def test_explicit_and_fused_softmax_agree_with_torchs_own_module(attention, causal, padding):
    torch.manual_seed(0)
    ours = MultiHeadAttention(12, 3, attention).double()
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        for name in ("weight", "bias"):
            stacked = torch.cat([getattr(getattr(ours, p), name) for p in ("q_proj", "k_proj", "v_proj")])
            getattr(theirs, f"in_proj_{name}").copy_(stacked)
            getattr(theirs.out_proj, name).copy_(getattr(ours.out_proj, name))
    x = torch.randn(4, 9, 12, dtype=torch.float64)
    mask = torch.arange(9) >= torch.tensor([9, 7, 4, 1])[:, None] if padding else None
    future = torch.ones(9, 9, dtype=torch.bool).triu(1) if causal else None
    expected = theirs(x, x, x, key_padding_mask=mask, attn_mask=future)[0]
    torch.testing.assert_close(ours(x, key_padding_mask=mask, causal=causal), expected)


@pytest.mark.parametrize("entropy", ["taylor", "gaussian"])
def test_each_head_attends_by_itself_over_the_last_but_one_dimension(entropy):
    torch.manual_seed(0)
    layer = MultiHeadAttention(12, 3, build_attention("entropy_equal", head_size=4, entropy=entropy)).double()
    x = torch.randn(2, 5, 9, 12, dtype=torch.float64)
    heads = []
    for h in range(3):
        part = slice(4 * h, 4 * h + 4)
        q, k, v = (p(x)[..., part] for p in (layer.q_proj, layer.k_proj, layer.v_proj))
        heads.append(reference_attention(q, k, v, entropy=entropy))
    torch.testing.assert_close(layer(x), layer.out_proj(torch.cat(heads, -1)))


def test_it_is_entropy_equal_by_default():
    torch.manual_seed(0)
    layer, named = MultiHeadAttention(12, 3), MultiHeadAttention(12, 3, entropy_equal_attention)
    named.load_state_dict(layer.state_dict())
    x = torch.randn(2, 9, 12)
    assert torch.equal(layer(x), named(x))


@pytest.mark.parametrize("mask_shape", [(9,), (2, 1, 9), (1, 5, 9), (5, 9), (2, 5, 9)])
def test_the_mask_has_no_dimension_of_heads(mask_shape):
    torch.manual_seed(0)
    # As many heads as there are in another dimension: a mask laid along the heads would go unnoticed by its shape.
    layer = MultiHeadAttention(10, 5, softmax_attention).double()
    x = torch.randn(2, 5, 9, 10, dtype=torch.float64)
    mask = torch.rand(mask_shape) < 0.4
    out = layer(x, key_padding_mask=mask)
    full = mask.expand(2, 5, 9)
    for b in range(2):
        for step in range(5):
            kept = x[b, step][~full[b, step]]
            torch.testing.assert_close(out[b, step][~full[b, step]], layer(kept))


@pytest.mark.parametrize("mask_shape", [(), (8,), (1,), (3, 9), (2, 9), (4, 2, 5, 9)])
def test_a_mask_that_does_not_fit_is_refused_by_both_shapes(mask_shape):
    layer = MultiHeadAttention(12, 3, softmax_attention)
    with pytest.raises(ValueError, match=r"broadcasts to \(2, 5, 9\) .*got ") as raised:
        layer(torch.randn(2, 5, 9, 12), key_padding_mask=torch.zeros(mask_shape, dtype=torch.bool))
    assert str(mask_shape) in str(raised.value)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="hidden_size 10, got 3"):
        MultiHeadAttention(10, 3)
