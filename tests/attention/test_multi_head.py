"""Multi-head attention against per-head computation, and the attentions by name."""

import pytest
import torch

from ealinformer.attention import (
    ATTENTIONS,
    MultiHeadAttention,
    fused_softmax_attention,
    get_attention,
    reference_attention,
    softmax_attention,
)


def test_fused_and_explicit_softmax_agree_with_torchs_own_module():
    torch.manual_seed(0)
    ours = MultiHeadAttention(12, 3, softmax_attention).double()
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        for name in ("weight", "bias"):
            stacked = torch.cat([getattr(getattr(ours, p), name) for p in ("q_proj", "k_proj", "v_proj")])
            getattr(theirs, f"in_proj_{name}").copy_(stacked)
            getattr(theirs.out_proj, name).copy_(getattr(ours.out_proj, name))
    x = torch.randn(4, 9, 12, dtype=torch.float64)
    expected = theirs(x, x, x)[0]
    torch.testing.assert_close(ours(x), expected)
    ours.attention = fused_softmax_attention
    torch.testing.assert_close(ours(x), expected)


@pytest.mark.parametrize("entropy", ["taylor", "gaussian"])
def test_each_head_attends_by_itself_over_the_last_but_one_dimension(entropy):
    torch.manual_seed(0)
    layer = MultiHeadAttention(12, 3, get_attention("entropy_equal", entropy=entropy)).double()
    x = torch.randn(2, 5, 9, 12, dtype=torch.float64)
    heads = []
    for h in range(3):
        part = slice(4 * h, 4 * h + 4)
        q, k, v = (p(x)[..., part] for p in (layer.q_proj, layer.k_proj, layer.v_proj))
        heads.append(reference_attention(q, k, v, entropy=entropy))
    torch.testing.assert_close(layer(x), layer.out_proj(torch.cat(heads, -1)))


@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_name_gives_an_attention(name):
    q, k, v = torch.randn(3, 2, 7, 4)
    assert get_attention(name)(q, k, v).shape == (2, 7, 4)


def test_unknown_names_and_heads_are_refused():
    with pytest.raises(ValueError, match="'flash'"):
        get_attention("flash")
    with pytest.raises(ValueError, match="'shannon'"):
        get_attention("entropy_equal", entropy="shannon")
    with pytest.raises(ValueError, match="hidden_size 10, got 3"):
        MultiHeadAttention(10, 3)
