"""Linear attentions by positive features, against the N x N weights that they stand for."""

import math

import pytest
import torch

from ealinformer.attention import PerformerAttention, elu_attention, softmax_attention


def qkv(*shape, std=1.0, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(*shape, generator=g, dtype=torch.float64) for _ in range(3))
    return (q * std).to(dtype), (k * std).to(dtype), v.to(dtype)


def mean_by(weights, v, causal=False):
    """The mean of v under weights `[..., Nq, N]` that need not sum to 1."""
    if causal:
        weights = torch.where(torch.arange(weights.shape[-1]) <= torch.arange(weights.shape[-2])[:, None], weights, 0)
    return (weights / weights.sum(-1, keepdim=True)) @ v


def elu_weights(q, k):
    phi_q, phi_k = (torch.where(x > 0, x + 1, x.exp()) for x in (q, k))
    return torch.einsum("...ic,...jc->...ij", phi_q, phi_k)


def performer_weights(q, k, draws, scale=None):
    """Equation 5 and lemma 1: the mean of exp(w . x - |x|^2 / 2) exp(w . y - |y|^2 / 2) over the draws w."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    x, y = q * abs(scale) ** 0.5 * math.copysign(1, scale), k * abs(scale) ** 0.5
    return torch.stack(
        [
            (x @ w - x.square().sum(-1) / 2).exp().unsqueeze(-1) * (y @ w - y.square().sum(-1) / 2).exp().unsqueeze(-2)
            for w in draws
        ]
    ).mean(0)


def assert_same_with_gradients(got, want, tensors, rtol=1e-9):
    torch.testing.assert_close(got, want, rtol=rtol, atol=rtol)
    direction = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=got.dtype)
    grads, expected = (torch.autograd.grad((out * direction).sum(), tensors) for out in (got, want))
    for a, b in zip(grads, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=10 * rtol, atol=10 * rtol)


class TestElu:
    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("length", [1, 12, 63, 64, 65, 150])
    def test_it_is_the_mean_under_the_explicit_weights(self, causal, length):
        tensors = [t.requires_grad_() for t in qkv(2, length, 5)]
        q, k, v = tensors
        expected = mean_by(elu_weights(q, k), v, causal)
        assert_same_with_gradients(elu_attention(*tensors, causal=causal), expected, tensors)

    def test_queries_may_be_of_another_number_and_values_of_another_width(self):
        q, k, _ = qkv(2, 9, 5)
        v = qkv(2, 9, 7, seed=1)[2]
        torch.testing.assert_close(elu_attention(q[:, :4], k, v), mean_by(elu_weights(q[:, :4], k), v))

    def test_the_scale_is_that_of_the_queries_and_1_by_default(self):
        q, k, v = qkv(2, 9, 5)
        torch.testing.assert_close(elu_attention(q, k, v, scale=1.0), elu_attention(q, k, v))
        torch.testing.assert_close(elu_attention(q, k, v, scale=-0.5), mean_by(elu_weights(-0.5 * q, k), v))
        assert (elu_attention(q, k, v, scale=0.5) - elu_attention(q, k, v)).abs().max() > 1e-3

    @pytest.mark.parametrize("causal", [False, True])
    def test_features_are_exact_where_elu_plus_1_rounds_to_0(self, causal):
        q, k, v = qkv(2, 9, 5, dtype=torch.float32)
        out = elu_attention(q - 20, k, v, causal=causal)
        expected = mean_by(elu_weights((q - 20).double(), k.double()), v.double(), causal)
        torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("shift", [-70, -80, -85, -100, -1000])
    def test_weights_that_underflow_give_0_and_finite_gradients(self, causal, shift):
        tensors = [t.requires_grad_() for t in qkv(2, 9, 5, dtype=torch.float32)]
        out = elu_attention(tensors[0] + shift, tensors[1] - 10, tensors[2], causal=causal)
        assert out.isfinite().all()
        assert shift > -80 or out.abs().max() < 1e-25
        assert all(g.isfinite().all() for g in torch.autograd.grad(1e4 * out.square().sum(), tensors))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("causal", [False, True])
    def test_sums_over_many_keys_are_not_taken_in_half_precision(self, dtype, causal):
        q, k, _ = qkv(5000, 4, std=20.0, dtype=dtype)
        v = torch.ones(5000, 4, dtype=dtype)
        # In float16 the sum of the weights, 10^6 and more, would be infinite; in bfloat16 it would stop growing.
        out = elu_attention(q, k, v, causal=causal)
        assert out.dtype == dtype
        torch.testing.assert_close(out, v)


class TestPerformer:
    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("length", [1, 12, 63, 64, 65, 150])
    @pytest.mark.parametrize("scale", [None, 0.7, -0.7])
    def test_it_is_the_mean_under_the_explicit_weights(self, causal, length, scale):
        attention = PerformerAttention(5, num_features=11).double()
        tensors = [t.requires_grad_() for t in qkv(2, length, 5)]
        q, k, v = tensors
        expected = mean_by(performer_weights(q, k, attention.projection, scale), v, causal)
        assert_same_with_gradients(attention(q, k, v, causal=causal, scale=scale), expected, tensors)

    def test_a_scale_of_0_gives_the_mean(self):
        q, k, v = qkv(2, 9, 5)
        out = PerformerAttention(5).double()(q, k, v, scale=0.0)
        torch.testing.assert_close(out, v.mean(-2, keepdim=True).expand_as(v))

    def test_it_nears_softmax_as_the_square_root_of_the_features(self):
        q, k, v = qkv(40, 8, std=0.5)
        expected = softmax_attention(q, k, v)

        def error(num_features):
            """Root mean square over the seeds."""
            attentions = (PerformerAttention(8, num_features, seed).double() for seed in range(20))
            return torch.stack([attention(q, k, v) - expected for attention in attentions]).square().mean().sqrt()

        few, many = error(128), error(2048)
        assert 3 < few / many < 5.5  # sqrt(2048 / 128) = 4
        assert many < 0.25 * (v.mean(0) - expected).square().mean().sqrt()

    def test_weights_have_the_softmax_kernel_as_their_mean(self):
        q, k, _ = qkv(6, 4, std=0.5)
        draws = torch.cat([PerformerAttention(4, 1000, seed).projection for seed in range(20)]).double()
        # The largest relative standard error of these 36 is 0.025.
        torch.testing.assert_close(performer_weights(q, k, draws), (q @ k.T / 2).exp(), rtol=0.075, atol=0)

    def test_draws_are_orthogonal_in_blocks_and_as_long_as_normal_vectors(self):
        draws = PerformerAttention(16, num_features=4000).projection.double()
        for block in draws.split(16):
            directions = block / block.norm(dim=-1, keepdim=True)
            torch.testing.assert_close(directions @ directions.T, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-5)
        assert abs(draws.square().sum(-1).mean() - 16) < 0.5  # standard error: sqrt(32 / 4000) = 0.09
        assert abs(draws.square().sum(-1).var() - 32) < 5  # chi squared of 16 degrees
        assert draws.mean().abs() < 0.02

    @pytest.mark.parametrize(("head_size", "expected"), [(1, 1), (2, 2), (38, 139), (64, 267)])
    def test_the_number_of_features_is_c_log_c_by_default(self, head_size, expected):
        assert PerformerAttention(head_size).num_features == expected
        assert PerformerAttention(head_size).projection.shape == (expected, head_size)

    def test_instances_of_a_seed_agree_and_leave_the_global_generator_alone(self):
        torch.manual_seed(0)
        first = PerformerAttention(5).projection
        after = torch.rand(3)
        torch.manual_seed(0)
        assert torch.equal(after, torch.rand(3))
        assert torch.equal(first, PerformerAttention(5).projection)
        assert not torch.equal(first, PerformerAttention(5, seed=1).projection)

    def test_a_checkpoint_reproduces_the_output_whatever_the_draws_of_the_new_instance(self):
        q, k, v = qkv(9, 5, dtype=torch.float32)
        saved, other = PerformerAttention(5, seed=3), PerformerAttention(5, seed=4)
        assert not torch.equal(saved(q, k, v), other(q, k, v))
        other.load_state_dict(saved.state_dict())
        assert torch.equal(saved(q, k, v), other(q, k, v))

    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("std", [10.0, 100.0, 1e4])
    def test_large_queries_and_keys_neither_overflow_nor_lose_a_gradient_to_nan(self, causal, std):
        tensors = [t.requires_grad_() for t in qkv(2, 150, 5, std=std, dtype=torch.float32)]
        out = PerformerAttention(5)(*tensors, causal=causal)
        assert out.isfinite().all()
        assert out.abs().max() <= tensors[2].abs().max() * 1.001  # a mean of the values
        assert all(g.isfinite().all() for g in torch.autograd.grad(out.square().sum(), tensors))

    @pytest.mark.parametrize("std", [10.0, 100.0, 1e4])
    def test_no_query_that_sees_all_keys_loses_its_weights_to_underflow(self, std):
        q, k, _ = qkv(2, 150, 5, std=std, dtype=torch.float32)
        out = PerformerAttention(5)(q, k, torch.ones_like(k))
        torch.testing.assert_close(out, torch.ones_like(k))

    @pytest.mark.parametrize("first", [1, 40, 64, 100])
    def test_keys_of_the_future_do_not_take_the_past_out_of_range(self, first):
        """With one maximum over all keys the features of the past would be below the smallest number."""
        attention = PerformerAttention(5)
        q, k, v = qkv(150, 5, dtype=torch.float32)
        # The log of a feature is w . y - |y|^2 / 2: at most |w|^2 / 2, where y = w, and very low for a long y.
        k[:first] *= 15
        before = k.clone()
        k[first:] = attention.projection[attention.projection.norm(dim=-1).argmax()] * 5**0.25
        y = k * 5**-0.25
        logs = (y @ attention.projection.T - y.square().sum(-1, keepdim=True) / 2).amax(-1)
        assert logs[:first].min() < logs.max() - 88
        out, expected = attention(q, k, v, causal=True), attention(q, before, v, causal=True)
        torch.testing.assert_close(out[:first], expected[:first], rtol=1e-6, atol=1e-6)
        assert out[:first].abs().sum(-1).gt(0).all()
        assert not torch.allclose(out[first:], expected[first:], atol=1e-2)

    def test_another_head_size_is_refused(self):
        with pytest.raises(ValueError, match="heads of size 5, got 4"):
            PerformerAttention(5)(*qkv(9, 4))


@pytest.mark.parametrize("attention", [elu_attention, PerformerAttention(8)], ids=["elu", "performer"])
@pytest.mark.parametrize("causal", [False, True])
def test_autocast_leaves_the_sums_in_float32(attention, causal):
    q, k, v = qkv(300, 8, dtype=torch.float32)
    expected = attention(q, k, v, causal=causal)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attention(q, k, v, causal=causal), expected)
