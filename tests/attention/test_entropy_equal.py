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

LINEAR = [e for e in ENTROPIES if e != "exact"]
FORMS = [(e, b) for e in ENTROPIES for b in ("linear", "quadratic") if (e, b) != ("exact", "linear")]


def spread(entropy, std):
    """The standard deviation to ask for: uncentred Taylor leaves its domain at large ones, which has its own test."""
    return min(std, 0.25) if entropy == "taylor_uncentred" else std


def theta_above_its_floor(q, k):
    """Queries `[..., Nq]` whose theta, about sqrt(s) / m for small scores, is well above 0.01."""
    scores = q.detach() @ k.detach().transpose(-2, -1)
    return scores.std(dim=-1) > 0.03 * scores.mean(dim=-1).abs()


class TestAgainstTheReference:
    @pytest.mark.parametrize(("entropy", "branch"), FORMS)
    @pytest.mark.parametrize(
        ("nq", "n", "c", "cv"),
        [(3, 1, 4, 4), (31, 2, 3, 3), (12, 12, 38, 38), (63, 63, 7, 5), (5, 170, 38, 38), (883, 7, 6, 6)],
    )
    @pytest.mark.parametrize("std", [0.1, 1.0, 9.0])
    def test_outputs_and_gradients(self, make_qkv, gradients, entropy, branch, nq, n, c, cv, std):
        shift = 0.0 if entropy == "taylor_uncentred" else 3.0
        tensors = make_qkv(nq, n, c, cv, std=spread(entropy, std), shift=shift, grad=True)
        out = entropy_equal_attention(*tensors, entropy=entropy, branch=branch)
        expected = reference_attention(*tensors, entropy=entropy)
        if entropy == "taylor_uncentred" and n == 2:
            # Two keys are often nearly alike, which that estimator would sharpen without bound and the layer does not.
            kept = theta_above_its_floor(*tensors[:2]).unsqueeze(-1)
            out, expected = torch.where(kept, out, 0), torch.where(kept, expected, 0)
            assert kept.double().mean() > 0.9
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
        if n > 1:  # the reference divides 0 by 0 for a single key; TestEdges looks at it
            for got, want in zip(gradients(out, tensors), gradients(expected, tensors), strict=True):
                torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize(("entropy", "branch"), FORMS)
    @pytest.mark.parametrize("n", [170, 883, 1000])
    def test_long_and_odd_lengths(self, make_qkv, gradients, entropy, branch, n):
        tensors = make_qkv(n, n, 38, batch=(1,), std=spread(entropy, 2.0), grad=True)
        out = entropy_equal_attention(*tensors, entropy=entropy, branch=branch)
        expected = reference_attention(*tensors, entropy=entropy)
        torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
        for got, want in zip(gradients(out, tensors), gradients(expected, tensors), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize(("entropy", "branch"), FORMS)
    @pytest.mark.parametrize(("nq", "n"), [(9, 12), (63, 63), (4, 170)])
    def test_with_padding(self, make_qkv, make_padding, gradients, entropy, branch, nq, n):
        tensors = make_qkv(nq, n, 6, std=spread(entropy, 2.0), shift=0.2, grad=True)
        for mask in (make_padding(2, 1, n), make_padding(2, 3, n, seed=1), make_padding(n, share=0.6)):
            out = entropy_equal_attention(*tensors, entropy=entropy, branch=branch, key_padding_mask=mask)
            expected = reference_attention(*tensors, entropy=entropy, key_padding_mask=mask)
            torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
            for got, want in zip(gradients(out, tensors), gradients(expected, tensors), strict=True):
                torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize(("entropy", "branch"), FORMS)
    @pytest.mark.parametrize(
        ("dtype", "tolerance", "grad_tolerance"),
        # Largest error over the largest value: some hundred roundings in float32; in bfloat16 a few of 2^-8, which
        # keys, scores and products go through; float16 computes in float32 and rounds its results.
        [(torch.float32, 2e-5, 1e-4), (torch.bfloat16, 4e-2, 8e-2), (torch.float16, 1e-3, 2e-3)],
    )
    def test_dtypes(self, make_qkv, gradients, entropy, branch, dtype, tolerance, grad_tolerance):
        tensors = make_qkv(40, 63, 16, std=spread(entropy, 2.0), dtype=dtype, grad=True)
        out = entropy_equal_attention(*tensors, entropy=entropy, branch=branch)
        assert out.dtype == dtype
        expected = reference_attention(*tensors, entropy=entropy)
        assert (out.double() - expected).abs().max() < tolerance * expected.abs().max()
        for got, want in zip(gradients(out, tensors), gradients(expected, tensors), strict=True):
            assert got.dtype == dtype
            assert (got.double() - want.double()).abs().max() < grad_tolerance * want.double().abs().max()

    def test_scale_and_eps(self, make_qkv):
        q, k, v = make_qkv(5, 20, 6)
        for options in ({"scale": 0.7}, {"eps": 0.5}, {"scale": -0.3, "eps": 0.1}):
            out = entropy_equal_attention(q, k, v, entropy="skewed", **options)
            torch.testing.assert_close(out, reference_attention(q, k, v, entropy="skewed", **options))

    def test_leading_dimensions_broadcast(self, make_qkv):
        q, k, v = make_qkv(5, 20, 6, batch=(2, 3))
        for few in ((q[:1], k, v), (q, k[:, :1], v), (q, k[0], v[:, :1]), (q[0, 0], k[0, 0], v[0, 0])):
            out = entropy_equal_attention(*few, entropy="gaussian")
            torch.testing.assert_close(out, reference_attention(*few, entropy="gaussian"))


@settings(deadline=None, max_examples=60)
@given(
    nq=st.integers(1, 9),
    n=st.integers(1, 20),
    c=st.integers(1, 20),
    entropy=st.sampled_from(LINEAR),
    seed=st.integers(0, 2**31),
)
def test_both_branches_give_the_same_numbers_for_any_shape(make_qkv, nq, n, c, entropy, seed):
    q, k, v = make_qkv(nq, n, c, seed=seed, batch=(2,))
    linear = entropy_equal_attention(q, k, v, entropy=entropy, branch="linear")
    quadratic = entropy_equal_attention(q, k, v, entropy=entropy, branch="quadratic")
    torch.testing.assert_close(linear, quadratic, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("n", "c", "expected"), [(12, 38, "quadratic"), (170, 38, "linear"), (38, 38, "linear")])
def test_auto_takes_the_quadratic_branch_where_c_exceeds_n(make_qkv, n, c, expected):
    q, k, v = make_qkv(n, n, c, dtype=torch.float32)
    auto = entropy_equal_attention(q, k, v)
    # In float32 the branches differ by rounding, which tells which one ran.
    assert torch.equal(auto, entropy_equal_attention(q, k, v, branch=expected))
    other = "linear" if expected == "quadratic" else "quadratic"
    assert not torch.equal(auto, entropy_equal_attention(q, k, v, branch=other))


class TestIdentities:
    @pytest.mark.parametrize("entropy", ENTROPIES)
    def test_weights_sum_to_one_and_keep_the_ranking_of_softmax(self, make_qkv, entropy):
        q, k, _ = make_qkv(17, 40, 8, std=spread(entropy, 2.0))
        weights = reference_weights(q, k, entropy=entropy)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 17, dtype=torch.float64))
        assert torch.equal(weights.argsort(-1), (q @ k.transpose(-2, -1)).argsort(-1))
        # The weights that the fast forms use are what they make of the identity matrix as values.
        identity = torch.eye(40, dtype=torch.float64).expand(2, 3, 40, 40)
        for branch in ("linear", "quadratic") if entropy != "exact" else ("auto",):
            fast = entropy_equal_attention(q, k, identity, entropy=entropy, branch=branch)
            torch.testing.assert_close(fast, weights)
            torch.testing.assert_close(fast.sum(-1), torch.ones(2, 3, 17, dtype=torch.float64))

    @pytest.mark.parametrize(("entropy", "branch"), FORMS)
    def test_the_order_of_keys_does_not_matter(self, make_qkv, entropy, branch):
        q, k, v = make_qkv(6, 50, 8, std=0.5)
        order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
        out = entropy_equal_attention(q, k, v, entropy=entropy, branch=branch)
        shuffled = entropy_equal_attention(q, k[..., order, :], v[..., order, :], entropy=entropy, branch=branch)
        torch.testing.assert_close(out, shuffled, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize(("entropy", "branch"), [f for f in FORMS if f[0] != "taylor_uncentred"])
    def test_a_common_shift_of_the_keys_changes_nothing(self, make_qkv, entropy, branch):
        q, k, v = make_qkv(6, 50, 8)
        out = entropy_equal_attention(q, k, v, entropy=entropy, branch=branch)
        shifted = entropy_equal_attention(q, k + 100.0, v, entropy=entropy, branch=branch)
        torch.testing.assert_close(out, shifted, rtol=1e-8, atol=1e-8)
        # In float32, too, the centring comes before the products, where 100 would drown the differences.
        near = [x.float() for x in (q, k + 100.0, v)]
        single = entropy_equal_attention(*near, entropy=entropy, branch=branch)
        assert (single - out).abs().max() < 2e-4

    def test_a_common_shift_is_seen_by_the_uncentred_estimator(self, make_qkv):
        q, k, v = make_qkv(6, 50, 8, std=0.2)
        out = entropy_equal_attention(q, k, v, entropy="taylor_uncentred")
        shifted = entropy_equal_attention(q, k + 1.0, v, entropy="taylor_uncentred")
        assert (out - shifted).abs().max() > 0.01

    @pytest.mark.parametrize(("entropy", "branch"), FORMS)
    def test_padding_changes_nothing_whatever_it_holds(self, make_qkv, gradients, entropy, branch):
        q, k, v = make_qkv(6, 20, 8, std=0.5, grad=True)
        plain = entropy_equal_attention(q, k, v, entropy=entropy, branch=branch)
        plain_gradients = gradients(plain, (q, k, v))
        mask = torch.zeros(27, dtype=torch.bool)
        mask[4:11] = True
        for junk in (0.0, 1e6, math.nan, math.inf):
            wide_k, wide_v = (torch.full((2, 3, 27, 8), junk, dtype=torch.float64) for _ in range(2))
            wide_k[..., ~mask, :], wide_v[..., ~mask, :] = k.detach(), v.detach()
            wide = [q, wide_k.requires_grad_(), wide_v.requires_grad_()]
            out = entropy_equal_attention(*wide, entropy=entropy, branch=branch, key_padding_mask=mask)
            torch.testing.assert_close(out, plain, rtol=1e-9, atol=1e-9)
            for got, want in zip(gradients(out, wide), plain_gradients, strict=True):
                if got.shape != want.shape:
                    assert (got[..., mask, :] == 0).all()
                    got = got[..., ~mask, :]
                torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)

    @pytest.mark.parametrize("std", [0.1, 1.0, 9.0])
    def test_the_papers_theta_collapses_to_a_constant(self, make_qkv, std):
        q, k, _ = make_qkv(307, 307, 38, std=std, shift=1.0, batch=(1,))
        scores = q @ (k - k.mean(-2, keepdim=True)).transpose(-2, -1) / math.sqrt(38)
        theta = scores / (reference_weights(q, k, entropy="taylor", eps=0.0) * 307 - 1)
        torch.testing.assert_close(theta, torch.full_like(theta, 1 / math.sqrt(2)), rtol=1e-6, atol=0)

    def test_theta_of_one_is_inline_attention(self, make_qkv):
        q, k, v = make_qkv(9, 30, 6)
        # arXiv 2412.06590: similarity minus its mean over the keys, plus 1 / N.
        similarity = q @ k.transpose(-2, -1) / math.sqrt(6) / 30
        inline = (similarity - similarity.mean(-1, keepdim=True) + 1 / 30) @ v
        torch.testing.assert_close(entropy_equal_attention(q, k, v, entropy="second_order", eps=0.0), inline)


@pytest.mark.parametrize(("entropy", "branch"), FORMS)
class TestEdges:
    def test_one_key_returns_its_value(self, make_qkv, gradients, entropy, branch):
        tensors = make_qkv(4, 1, 5, grad=True)
        out = entropy_equal_attention(*tensors, entropy=entropy, branch=branch)
        torch.testing.assert_close(out, tensors[2].expand_as(out))
        assert all(g.isfinite().all() for g in gradients(out, tensors))

    def test_equal_keys_return_the_mean_with_finite_gradients(self, make_qkv, gradients, entropy, branch):
        q, k, v = make_qkv(4, 9, 5)
        k = k[..., :1, :].expand_as(k).clone().requires_grad_()
        q.requires_grad_()
        out = entropy_equal_attention(q, k, v, entropy=entropy, branch=branch)
        torch.testing.assert_close(out, v.mean(-2, keepdim=True).expand_as(out))
        assert all(g.isfinite().all() for g in gradients(out, [q, k]))

    def test_zeros_return_the_mean_with_finite_gradients(self, make_qkv, gradients, entropy, branch):
        q, k, v = (torch.zeros_like(x).requires_grad_() for x in make_qkv(4, 9, 5))
        out = entropy_equal_attention(q, k, v, entropy=entropy, branch=branch)
        assert (out == 0).all()
        assert all(g.isfinite().all() for g in gradients(out, [q, k, v]))

    def test_a_query_without_any_key_gives_zero(self, make_qkv, gradients, entropy, branch):
        tensors = make_qkv(4, 9, 5, grad=True)
        mask = torch.zeros(2, 1, 9, dtype=torch.bool)
        mask[1] = True
        out = entropy_equal_attention(*tensors, entropy=entropy, branch=branch, key_padding_mask=mask)
        assert (out[1] == 0).all()
        assert (out[0] != 0).all()
        assert all(g.isfinite().all() for g in gradients(out, tensors))


def test_a_large_eps_flattens_the_weights_to_the_mean(make_qkv):
    q, k, v = make_qkv(6, 50, 8)
    out = entropy_equal_attention(q, k, v, eps=1e9)
    torch.testing.assert_close(out, v.mean(-2, keepdim=True).expand_as(out), atol=1e-7, rtol=0)


def test_small_scores_come_near_to_softmax(make_qkv):
    q, k, v = make_qkv(40, 307, 38, std=0.2, batch=(1,))
    expected = softmax_attention(q, k, v)
    for entropy in ("second_order", "gaussian", "finite_size", "skewed", "exact"):
        assert (entropy_equal_attention(q, k, v, entropy=entropy) - expected).abs().max() < 0.01
    assert (entropy_equal_attention(q, k, v, entropy="taylor") - expected).abs().max() > 0.01
