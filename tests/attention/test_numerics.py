"""Numbers that stay finite, memory that is written before it is read, and sums that survive half precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ealinformer.attention import ENTROPIES, entropy_equal_attention, reference_attention

FORMS = [(e, b) for e in ENTROPIES for b in ("linear", "quadratic") if (e, b) != ("exact", "linear")]
CAUSAL_TOO = [(*form, causal) for form in FORMS for causal in (False, True) if not (causal and form[0] == "skewed")]

# Largest exponents of ten of q, k and of v, as documented. float16 takes its whole range in q and k; values and what
# comes back from above are smaller, for its gradients end at 65,504 too.
RANGES = {torch.float16: (4, 1), torch.bfloat16: (9, 15), torch.float32: (9, 15), torch.float64: (9, 15)}
KINDS = ("as drawn", "one row", "a zero row", "all zero", "one large entry", "shifted")


@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_no_finite_input_gives_nan_or_infinity(data):
    dtype = data.draw(st.sampled_from(list(RANGES)))
    entropy, branch = data.draw(st.sampled_from(FORMS))
    causal = entropy != "skewed" and data.draw(st.booleans())
    nq, n, c = (data.draw(st.integers(1, 8)) for _ in range(3))
    nq = n if causal else nq
    seed = data.draw(st.integers(0, 2**31))
    g = torch.Generator().manual_seed(seed)
    largest_key, largest_value = RANGES[dtype]
    tensors = []
    for rows, largest in ((nq, largest_key), (n, largest_key), (n, largest_value)):
        power = data.draw(st.integers(-45, largest))
        x = (torch.rand(2, rows, c, generator=g, dtype=torch.float64) * 2 - 1) * 10.0**power
        # Rows that are equal, zero, or far larger than the others are where divisions go wrong.
        kind = data.draw(st.sampled_from(KINDS))
        if kind == "one row":
            x = x[:, :1].expand_as(x).clone()
        elif kind == "a zero row":
            x[:, 0] = 0
        elif kind == "all zero":
            x = torch.zeros_like(x)
        elif kind == "one large entry":
            x[:, -1, -1] = 10.0**largest
        elif kind == "shifted":
            x = x + data.draw(st.sampled_from([-1.0, 1.0])) * 10.0 ** data.draw(st.integers(-3, largest - 1))
        tensors.append(x.to(dtype).requires_grad_())
    assert all(x.isfinite().all() for x in tensors)
    mask = None
    if data.draw(st.booleans()):
        mask = torch.rand(2, n, generator=g) < 0.4
    out = entropy_equal_attention(*tensors, entropy=entropy, branch=branch, causal=causal, key_padding_mask=mask)
    assert out.isfinite().all()
    # A gradient of the size of a mean's, not of a sum of 1e15s.
    direction = (torch.rand(out.shape, generator=g) * 10.0 ** (-3 - largest_value)).to(dtype)
    grads = torch.autograd.grad(out, tensors, direction)
    assert all(x.isfinite().all() for x in grads)


@pytest.fixture
def poisoned_memory():
    """Uninitialised memory holds NaN, so that reading it before writing shows."""
    torch.use_deterministic_algorithms(True)
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(8).isnan().all()
    yield
    torch.utils.deterministic.fill_uninitialized_memory = before
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("entropy", "branch", "causal"), CAUSAL_TOO)
@pytest.mark.parametrize("n", [1, 63, 130])
@pytest.mark.usefixtures("poisoned_memory")
def test_nothing_is_read_from_uninitialised_memory(make_qkv, make_padding, gradients, entropy, branch, causal, n):
    tensors = make_qkv(n, n, 5, std=0.3, dtype=torch.float32, grad=True)
    for mask in (None, make_padding(2, 1, n)):
        out = entropy_equal_attention(*tensors, entropy=entropy, branch=branch, causal=causal, key_padding_mask=mask)
        assert out.isfinite().all()
        assert all(x.isfinite().all() for x in gradients(out, tensors))


@pytest.mark.parametrize("entropy", ["taylor", "gaussian", "skewed"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_over_many_keys_keep_their_digits(make_qkv, entropy, dtype):
    """20,000 keys whose mean is 30 times their spread: half precision's own running sums would be lost."""
    q, k, v = make_qkv(5, 20_000, 8, batch=(1,), dtype=dtype)
    k, v = k + 30, v + 30
    out = entropy_equal_attention(q, k, v, entropy=entropy)
    expected = reference_attention(q, k, v, entropy=entropy)
    # Within a rounding or two of the result, which is about 30.
    assert (out.double() - expected).abs().max() < 2 * torch.finfo(dtype).eps * 30


def test_float16_saturates_where_its_range_ends(make_qkv):
    q, k, v = (x * 1e4 for x in make_qkv(5, 50, 8, std=3.0))
    out = entropy_equal_attention(*(x.clamp(-6e4, 6e4).half() for x in (q, k, v)), entropy="second_order")
    assert out.abs().max() == torch.finfo(torch.float16).max


@pytest.mark.parametrize(
    ("entropy", "causal"),
    [("taylor", False), ("gaussian", False), ("skewed", False), ("taylor", True), ("gaussian", True)],
)
def test_autocast_does_not_reach_into_the_sums(make_qkv, entropy, causal):
    q, k, v = make_qkv(40, 40, 8, dtype=torch.float32, shift=5.0)
    plain = entropy_equal_attention(q, k, v, entropy=entropy, causal=causal)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = entropy_equal_attention(q, k, v, entropy=entropy, causal=causal)
        half = entropy_equal_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), entropy=entropy, causal=causal)
    assert torch.equal(plain, inside)
    assert half.dtype == torch.bfloat16
    assert (half.float() - plain).abs().max() < 0.1
