"""Linformer against its equation written out with loops."""

import math

import pytest
import torch

from ealinformer.attention import LinformerAttention, build_attention


def qkv(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=g, dtype=torch.float64) for _ in range(3)]


def slow(q, k, v, e, f, scale):
    """Equation 7 for q `[Nq, C]`, k and v `[N, C]`, e and f `[rank, N]`."""
    keys = [sum(e[r, j] * k[j] for j in range(len(k))) for r in range(len(e))]
    values = [sum(f[r, j] * v[j] for j in range(len(v))) for r in range(len(f))]
    rows = []
    for query in q:
        weights = torch.stack([(scale * (query * key).sum()).exp() for key in keys])
        rows.append(sum(w * value for w, value in zip(weights / weights.sum(), values, strict=True)))
    return torch.stack(rows)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("num_queries", [7, 4])
@pytest.mark.parametrize("padding", [(), (0, 3), tuple(range(7))])
def test_outputs_and_gradients_are_those_of_the_equation(scale, num_queries, padding):
    torch.manual_seed(0)
    attention = LinformerAttention(7, rank=3).double()
    q, k, v = (t.requires_grad_() for t in qkv(2, 3, 7, 5))
    q = q[..., :num_queries, :].detach().requires_grad_()
    mask = torch.tensor([j in padding for j in range(7)])
    out = attention(q, k, v, key_padding_mask=mask, scale=scale)
    kept = (~mask).double().unsqueeze(-1)
    factor = 1 / math.sqrt(5) if scale is None else scale
    e, f = attention.key_projection, attention.value_projection
    expected = torch.stack(
        [torch.stack([slow(q[b, h], k[b, h] * kept, v[b, h] * kept, e, f, factor) for h in range(3)]) for b in range(2)]
    )
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-12)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    wanted = [q, k, v, e, f]
    grads, expected_grads = (torch.autograd.grad((o * direction).sum(), wanted) for o in (out, expected))
    for got, want in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_projections_start_apart_and_give_mixtures_the_variance_of_the_keys():
    torch.manual_seed(0)
    attention = LinformerAttention(500, rank=200)
    assert not torch.equal(attention.key_projection, attention.value_projection)
    for projection in attention.parameters():
        mixtures = projection @ torch.randn(500, 30)
        assert 0.9 < mixtures.var() < 1.1


@pytest.mark.parametrize(("rank", "num_keys", "rows"), [(3, 7, 3), (7, 7, 7), (64, 7, 7)])
def test_a_rank_above_the_number_of_keys_is_taken_as_that(rank, num_keys, rows):
    attention = LinformerAttention(num_keys, rank)
    assert attention.key_projection.shape == attention.value_projection.shape == (rows, num_keys)


@pytest.mark.parametrize("n", [6, 8, 1])
def test_another_number_of_keys_is_refused_with_both_numbers(n):
    with pytest.raises(ValueError, match=f"built for 7 keys, got {n}"):
        LinformerAttention(7)(*(t.float() for t in qkv(n, 5)))


def test_causal_is_refused():
    with pytest.raises(ValueError, match="linformer has no causal form"):
        LinformerAttention(7)(*(t.float() for t in qkv(7, 5)), causal=True)


@pytest.mark.parametrize("option", [{"rank": 0}, {"rank": -1}, {"rank": 2.0}, {"rank": True}, {"rank": None}])
def test_a_rank_that_is_no_positive_whole_number_is_refused(option):
    with pytest.raises(ValueError, match=f"^rank has to be a positive whole number, got {option['rank']!r}$"):
        build_attention("linformer", head_size=5, num_keys=7, **option)


def test_the_number_of_keys_has_to_be_known():
    with pytest.raises(ValueError, match="linformer needs num_keys"):
        build_attention("linformer", head_size=5)
