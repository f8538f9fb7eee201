"""No attention: the values as they are."""

import pytest
import torch

from ealinformer.attention import identity_attention


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [None, 3.0])
def test_it_returns_the_values_and_0_at_padding(causal, scale):
    q, k, v = torch.randn(3, 2, 7, 5, generator=torch.Generator().manual_seed(0)).unbind(0)
    v = v[0, :, :3].clone().requires_grad_()
    assert torch.equal(identity_attention(q, k, v, causal=causal, scale=scale), v.expand(2, 7, 3))
    mask = torch.tensor([False, True, False, False, False, False, True])
    poisoned = torch.where(mask[:, None], torch.nan, v)
    out = identity_attention(q, k, poisoned, key_padding_mask=mask, causal=causal, scale=scale)
    assert torch.equal(out, (v * ~mask[:, None]).expand(2, 7, 3))
    (grad,) = torch.autograd.grad(out.sum(), v)
    assert torch.equal(grad, (2.0 * ~mask[:, None]).expand(7, 3))


def test_other_queries_than_keys_are_refused_by_both_shapes():
    x = torch.zeros(7, 5)
    with pytest.raises(ValueError, match=r"as many queries as keys, got q \(4, 5\) and k \(7, 5\)"):
        identity_attention(x[:4], x, x)
