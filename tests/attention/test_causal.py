"""Causal entropy-equal attention against every prefix by itself, and the streaming form against the parallel one."""

import pytest
import torch

from ealinformer.attention import (
    CausalState,
    causal_state,
    entropy_equal_attention,
    entropy_equal_step,
    reference_attention,
)
from ealinformer.attention.prefix import prefix_product

CAUSAL = ["taylor", "taylor_uncentred", "second_order", "gaussian", "finite_size"]
FORMS = [(e, b) for e in (*CAUSAL, "exact") for b in ("linear", "quadratic") if (e, b) != ("exact", "linear")]


def draw(make_qkv, entropy, n, c=6, **options):
    """Within the domain of uncentred Taylor, which its own test leaves, for that estimator."""
    if entropy == "taylor_uncentred":
        options.update(std=0.05, shift=0.1)
    return make_qkv(n, n, c, **options)


@pytest.mark.parametrize(("entropy", "branch"), FORMS)
@pytest.mark.parametrize("n", [1, 2, 12, 63, 64, 65, 170])
def test_every_query_attends_to_its_own_prefix(make_qkv, gradients, entropy, branch, n):
    tensors = draw(make_qkv, entropy, n, batch=(2,), std=2.0, shift=3.0, grad=True)
    q, k, v = tensors
    out = entropy_equal_attention(q, k, v, entropy=entropy, branch=branch, causal=True)
    # The reference sees each prefix as an attention of its own: it knows nothing of masks here.
    rows = [
        reference_attention(q[:, i : i + 1], k[:, : i + 1], v[:, : i + 1], entropy=entropy) if i else v[:, :1].double()
        for i in range(n)
    ]
    expected = torch.cat(rows, dim=-2)
    torch.testing.assert_close(out, expected, rtol=1e-8, atol=1e-8)
    if n > 1:
        for got, want in zip(gradients(out, tensors), gradients(expected, tensors), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("entropy", "branch"), FORMS)
@pytest.mark.parametrize("n", [65, 170])
def test_with_padding(make_qkv, make_padding, entropy, branch, n):
    q, k, v = draw(make_qkv, entropy, n, std=2.0, shift=0.5)
    mask = make_padding(2, 1, n)
    out = entropy_equal_attention(q, k, v, entropy=entropy, branch=branch, causal=True, key_padding_mask=mask)
    expected = reference_attention(q, k, v, entropy=entropy, causal=True, key_padding_mask=mask)
    torch.testing.assert_close(out, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("entropy", "branch"), FORMS)
def test_queries_before_the_first_key_give_zero(make_qkv, gradients, entropy, branch):
    tensors = draw(make_qkv, entropy, 70, grad=True)
    mask = torch.zeros(70, dtype=torch.bool)
    mask[:5] = True
    out = entropy_equal_attention(*tensors, entropy=entropy, branch=branch, causal=True, key_padding_mask=mask)
    assert (out[..., :5, :] == 0).all()
    tail = [x[..., 5:, :] for x in tensors]
    expected = entropy_equal_attention(*tail, entropy=entropy, branch=branch, causal=True)
    torch.testing.assert_close(out[..., 5:, :], expected, rtol=1e-8, atol=1e-9)
    assert all(g.isfinite().all() for g in gradients(out, tensors))


@pytest.mark.parametrize(("entropy", "branch"), FORMS)
def test_the_future_changes_nothing_in_the_past(make_qkv, entropy, branch):
    q, k, v = draw(make_qkv, entropy, 150)
    out = entropy_equal_attention(q, k, v, entropy=entropy, branch=branch, causal=True)
    later = [x.clone() for x in (q, k, v)]
    for x in later:
        x[..., 100:, :] += 0.1
    moved = entropy_equal_attention(*later, entropy=entropy, branch=branch, causal=True)
    torch.testing.assert_close(out[..., :100, :], moved[..., :100, :], rtol=1e-10, atol=1e-11)
    assert (out[..., 100:, :] - moved[..., 100:, :]).abs().amin() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_far_offset_does_not_drown_the_running_sums(make_qkv, dtype):
    q, k, v = make_qkv(300, 300, 8, shift=50.0, dtype=dtype)
    out = entropy_equal_attention(q, k, v, entropy="finite_size", causal=True)
    assert out.dtype == dtype
    expected = reference_attention(q, k, v, entropy="finite_size", causal=True)
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    assert (out.double() - expected).abs().max() < tolerance * expected.abs().max()


class TestSteps:
    @pytest.mark.parametrize("entropy", CAUSAL)
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_steps_equal_the_parallel_form(self, make_qkv, entropy, dtype):
        q, k, v = draw(make_qkv, entropy, 130, dtype=dtype)
        expected = entropy_equal_attention(q, k, v, entropy=entropy, causal=True)
        state, rows = None, []
        for i in range(130):
            out, state = entropy_equal_step(q[..., i, :], k[..., i, :], v[..., i, :], state, entropy=entropy)
            rows.append(out)
        got = torch.stack(rows, dim=-2)
        assert got.dtype == dtype
        tolerance = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2}[dtype]
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)

    @pytest.mark.parametrize("entropy", CAUSAL)
    def test_a_history_at_once_is_the_state_of_its_steps(self, make_qkv, entropy):
        q, k, v = draw(make_qkv, entropy, 40)
        stepped = None
        for i in range(39):
            _, stepped = entropy_equal_step(q[..., i, :], k[..., i, :], v[..., i, :], stepped, entropy=entropy)
        at_once = causal_state(k[..., :39, :], v[..., :39, :], entropy=entropy)
        assert stepped.num_keys == at_once.num_keys == 39
        for a, b in zip(stepped[1:], at_once[1:], strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        kept = [None if x is None else x.clone() for x in at_once[1:]]
        last, _ = entropy_equal_step(q[..., 39, :], k[..., 39, :], v[..., 39, :], at_once, entropy=entropy)
        expected = entropy_equal_attention(q, k, v, entropy=entropy, causal=True)[..., 39, :]
        torch.testing.assert_close(last, expected, rtol=1e-8, atol=1e-8)
        # The old state is not touched, so that a stream can branch.
        assert all(a is None or torch.equal(a, b) for a, b in zip(at_once[1:], kept, strict=True))

    def test_the_state_does_not_grow(self, make_qkv):
        _, k, v = make_qkv(1, 500, 6, 4)
        state = causal_state(k, v, entropy="gaussian")
        assert isinstance(state, CausalState)
        assert sum(x.numel() for x in state[1:]) == 2 * 3 * (6 + 4 + 6 * 4 + 6 * 6)
        assert causal_state(k, v).key_key is None

    def test_what_has_no_causal_form_is_refused(self, make_qkv):
        q, k, v = make_qkv(4, 4, 3)
        with pytest.raises(ValueError, match=r"'skewed'.*no causal form"):
            entropy_equal_attention(q, k, v, entropy="skewed", causal=True)
        for entropy in ("skewed", "exact"):
            with pytest.raises(ValueError, match=f"'{entropy}' has no causal step"):
                causal_state(k, v, entropy=entropy)
            with pytest.raises(ValueError, match=f"'{entropy}' has no causal step"):
                entropy_equal_step(q[..., 0, :], k[..., 0, :], v[..., 0, :], entropy=entropy)
        with pytest.raises(ValueError, match="another entropy than 'gaussian'"):
            entropy_equal_step(q[..., 0, :], k[..., 0, :], v[..., 0, :], causal_state(k, v), entropy="gaussian")
        with pytest.raises(ValueError, match="as many queries as keys"):
            entropy_equal_attention(q[..., :2, :], k, v, causal=True)


@pytest.mark.parametrize("n", [1, 5, 64, 65, 128, 200])
def test_prefix_products_equal_the_masked_matrix(make_qkv, gradients, n):
    tensors = make_qkv(n, n, 5, 7, grad=True)
    q, k, v = tensors
    expected = (q @ k.transpose(-2, -1)).tril() @ v
    out = prefix_product(q, k, v)
    torch.testing.assert_close(out, expected)
    for got, want in zip(gradients(out, tensors), gradients(expected, tensors), strict=True):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(prefix_product(q, k, v, chunk=16), expected)
