"""Entropy-equal attention against its explicit float64 reference, and the identities that the method rests on."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ealinformer.attention import (
    ENTROPIES,
    entropy_equal_attention,
    reference_attention,
    reference_weights,
    softmax_attention,
)


def qkv(nq, n, c, cv=None, *, batch=(2, 3), std=1.0, dtype=torch.float64, seed=0, shift=0.0):
    """Random q, k, v whose scores have about the standard deviation `std`; `shift` moves all keys."""
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(*batch, nq, c, generator=g, dtype=torch.float64) * std
    k = torch.randn(*batch, n, c, generator=g, dtype=torch.float64) + shift
    v = torch.randn(*batch, n, cv or c, generator=g, dtype=torch.float64)
    return q.to(dtype), k.to(dtype), v.to(dtype)


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("branch", ["linear", "quadratic"])
@pytest.mark.parametrize(("nq", "n", "c", "cv"), [(12, 12, 38, 38), (63, 63, 7, 5), (5, 170, 38, 38), (31, 2, 3, 3)])
@pytest.mark.parametrize("std", [0.1, 1.0, 9.0])
def test_outputs_and_gradients_equal_the_reference(entropy, branch, nq, n, c, cv, std):
    tensors = [t.requires_grad_() for t in qkv(nq, n, c, cv, std=std, shift=3.0)]
    out = entropy_equal_attention(*tensors, entropy=entropy, branch=branch)
    expected = reference_attention(*tensors, entropy=entropy)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)
    direction = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    grads = torch.autograd.grad((out * direction).sum(), tensors)
    expected_grads = torch.autograd.grad((expected * direction).sum(), tensors)
    for got, want in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-8)


@settings(deadline=None, max_examples=60)
@given(
    nq=st.integers(1, 9),
    n=st.integers(1, 20),
    c=st.integers(1, 20),
    entropy=st.sampled_from(ENTROPIES),
    seed=st.integers(0, 2**31),
)
def test_both_branches_give_the_same_numbers_for_any_shape(nq, n, c, entropy, seed):
    q, k, v = qkv(nq, n, c, seed=seed, batch=(2,))
    linear = entropy_equal_attention(q, k, v, entropy=entropy, branch="linear")
    quadratic = entropy_equal_attention(q, k, v, entropy=entropy, branch="quadratic")
    torch.testing.assert_close(linear, quadratic, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("n", "c", "expected"), [(12, 38, "quadratic"), (170, 38, "linear"), (38, 38, "linear")])
def test_auto_takes_the_quadratic_branch_where_c_exceeds_n(n, c, expected):
    q, k, v = qkv(n, n, c, dtype=torch.float32)
    auto = entropy_equal_attention(q, k, v)
    # In float32 the branches differ by rounding, which tells which one ran.
    assert torch.equal(auto, entropy_equal_attention(q, k, v, branch=expected))
    other = "linear" if expected == "quadratic" else "quadratic"
    assert not torch.equal(auto, entropy_equal_attention(q, k, v, branch=other))


@pytest.mark.parametrize("entropy", [*ENTROPIES, "exact"])
def test_weights_sum_to_one_and_keep_the_ranking_of_softmax(entropy):
    q, k, _ = qkv(17, 40, 8, std=2.0)
    weights = reference_weights(q, k, entropy=entropy)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 17, dtype=torch.float64))
    assert torch.equal(weights.argsort(-1), (q @ k.transpose(-2, -1)).argsort(-1))


@pytest.mark.parametrize("std", [0.1, 1.0, 9.0])
def test_the_papers_theta_collapses_to_a_constant(std):
    q, k, _ = qkv(307, 307, 38, std=std, shift=1.0, batch=(1,))
    scores = q @ (k - k.mean(-2, keepdim=True)).transpose(-2, -1) / math.sqrt(38)
    theta = scores / (reference_weights(q, k, entropy="taylor", eps=0.0) * 307 - 1)
    torch.testing.assert_close(theta, torch.full_like(theta, 1 / math.sqrt(2)), rtol=1e-6, atol=0)


def test_gaussian_theta_follows_the_exact_one_where_scores_are_small():
    q, k, v = qkv(307, 307, 38, std=0.3, batch=(1,))
    exact = reference_weights(q, k, entropy="exact")
    p = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(38), dim=-1)
    distance = {e: (reference_weights(q, k, entropy=e) - p).abs().sum(-1).mean() for e in ENTROPIES}
    assert abs(distance["gaussian"] - (exact - p).abs().sum(-1).mean()) < 0.01 * distance["gaussian"]
    assert distance["gaussian"] < 0.5 * distance["taylor"]
    near = entropy_equal_attention(q, k, v, entropy="gaussian")
    assert (near - softmax_attention(q, k, v)).abs().max() < 0.05


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("branch", ["linear", "quadratic"])
class TestEdges:
    def test_one_key_returns_its_value(self, entropy, branch):
        q, k, v = qkv(4, 1, 5)
        out = entropy_equal_attention(q, k, v, entropy=entropy, branch=branch)
        torch.testing.assert_close(out, v.expand_as(out))

    def test_equal_keys_return_the_mean_with_finite_gradients(self, entropy, branch):
        q, k, v = qkv(4, 9, 5)
        k = k[..., :1, :].expand_as(k).clone().requires_grad_()
        q.requires_grad_()
        out = entropy_equal_attention(q, k, v, entropy=entropy, branch=branch)
        torch.testing.assert_close(out, v.mean(-2, keepdim=True).expand_as(out))
        assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), [q, k]))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_stays_finite_and_near(self, entropy, branch, dtype):
        q, k, v = (t.requires_grad_() for t in qkv(63, 1000, 16, std=30.0, dtype=dtype, shift=8.0))
        out = entropy_equal_attention(q, k, v, entropy=entropy, branch=branch)
        assert out.dtype == dtype
        assert out.isfinite().all()
        assert all(g.isfinite().all() for g in torch.autograd.grad(out.float().square().mean(), [q, k, v]))
        expected = reference_attention(q, k, v, entropy=entropy)
        error = (out.double() - expected).abs().mean() / expected.abs().mean()
        assert error < (0.02 if dtype == torch.float16 else 0.1)

    def test_a_common_shift_of_the_keys_changes_nothing(self, entropy, branch):
        q, k, v = qkv(6, 50, 8)
        out = entropy_equal_attention(q, k, v, entropy=entropy, branch=branch)
        shifted = entropy_equal_attention(q, k + 100.0, v, entropy=entropy, branch=branch)
        torch.testing.assert_close(out, shifted, rtol=1e-9, atol=1e-9)


def test_a_large_eps_flattens_the_weights_to_the_mean():
    q, k, v = qkv(6, 50, 8)
    out = entropy_equal_attention(q, k, v, eps=1e9)
    torch.testing.assert_close(out, v.mean(-2, keepdim=True).expand_as(out), atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 3), (4, 5), (4, 5)), {}, r"got q \(2, 3\), k \(4, 5\)"),
        (((2, 3), (4, 3), (5, 3)), {}, r"v \(5, 3\)"),
        (((2, 3), (0, 3), (0, 3)), {}, "at least one key"),
        (((2, 3), (4, 3), (4, 3)), {"entropy": "shannon"}, "'shannon'"),
        (((2, 3), (4, 3), (4, 3)), {"branch": "cubic"}, "'cubic'"),
    ],
)
def test_bad_arguments_are_named(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        entropy_equal_attention(*(torch.zeros(s) for s in shapes), **options)
