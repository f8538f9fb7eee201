"""The kernels against the explicit float64 reference: outputs and all gradients, in memory full of NaN.

On a GPU where there is one, else in Triton's interpreter (`make test-kernels`).
"""

import pytest
import torch

from ealinformer.attention import entropy_equal_attention, reference_attention
from ealinformer.attention.kernels import entropy_equal_kernel, kernel_reason
from ealinformer.attention.kernels.entropy_equal import ENTROPIES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
REASON = kernel_reason(*torch.zeros(3, 1, 1, device=DEVICE))
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"{REASON}; make test-kernels uses the interpreter")


@pytest.fixture(autouse=True)
def _uninitialized_memory_holds_nan():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # has torch fill what torch.empty gives
    assert torch.empty(9, device=DEVICE).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(params=[1, 4, 512])
def programs(request, monkeypatch):
    """One program for all rows of a head; a few, each with several blocks; one a block."""
    from ealinformer.attention.kernels import launch

    monkeypatch.setattr(launch, "PROGRAMS", request.param)


@pytest.fixture
def draw(make_qkv):
    """A function that draws float64 q, k, v of that precision; the queries range from flat to sharp rows."""

    def of(*sizes, dtype=torch.float32, offset=0.0, **options):
        q, k, v = make_qkv(*sizes, **options)
        q = q * torch.linspace(0.1, 5, q.shape[-2], dtype=q.dtype).unsqueeze(-1)
        return [x.to(dtype).double().requires_grad_() for x in (q, k + offset, v + offset)]

    return of


def on_device(tensors, dtype=torch.float32):
    return [x.detach().to(DEVICE, dtype).requires_grad_() for x in tensors]


def gradients_of(out, tensors, direction):
    return torch.autograd.grad(out, tensors, direction.to(out))


def assert_equal_to_reference(draw_from, *, entropy, tolerance, dtype=torch.float32, **options):
    """Largest error, and for gradients that of the whole tensor, over the size of what is expected."""
    tensors = on_device(draw_from, dtype)
    # For a single key the reference divides 0 by 0 in its gradients.
    slow = reference_attention if draw_from[1].shape[-2] > 1 else entropy_equal_attention
    out, expected = (f(*x, entropy=entropy, **options) for f, x in ((entropy_equal_kernel, tensors), (slow, draw_from)))
    assert out.dtype == dtype
    assert (out.double().cpu() - expected).abs().max() < tolerance[0] * expected.abs().max()
    direction = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)
    wanted = gradients_of(expected, draw_from, direction)
    for got, want in zip(gradients_of(out, tensors, direction), wanted, strict=True):
        assert got.dtype == dtype
        assert (got.double().cpu() - want).norm() <= tolerance[1] * want.norm()


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("entropy", ["taylor", "gaussian"])
@pytest.mark.parametrize(
    ("batch", "nq", "n", "c", "cv"),
    [((1, 2), 5, 1, 8, 8), ((2, 2), 63, 63, 38, 24), ((2,), 40, 170, 38, 38), ((), 5, 1000, 8, 64)],
)
def test_outputs_and_gradients(draw, entropy, batch, nq, n, c, cv):
    assert_equal_to_reference(draw(nq, n, c, cv, batch=batch), entropy=entropy, tolerance=(2e-6, 2e-6))


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_many_queries_wide_heads_scale_and_eps(draw, entropy):
    tensors = draw(1000, 63, 64, batch=(1,))
    assert_equal_to_reference(tensors, entropy=entropy, tolerance=(2e-6, 2e-6), scale=-0.2, eps=0.3)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("entropy", ["taylor", "gaussian"])
def test_a_large_common_offset_of_keys_and_values(draw, entropy):
    # At 1000 float32 has 4 digits after the point: the means, and what is centred on them, are no better than 1e-4.
    tensors = draw(40, 170, 16, batch=(2,), offset=1000.0)
    assert_equal_to_reference(tensors, entropy=entropy, tolerance=(2e-6, 3e-4))


@pytest.mark.parametrize("entropy", ["taylor", "gaussian"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
def test_half_precision(draw, entropy, dtype, tolerance):
    tensors = draw(63, 170, 38, batch=(2,), dtype=dtype)
    assert_equal_to_reference(tensors, entropy=entropy, dtype=dtype, tolerance=(tolerance, tolerance))


@pytest.mark.parametrize("entropy", ["taylor", "gaussian"])
def test_heads_within_rows_are_read_in_place_and_nothing_around_them(draw, entropy):
    # [B, N, 3, heads, C] in a larger array of NaN, as one projection for q, k and v leaves them.
    dense = on_device(draw(63, 63, 6, batch=(2, 3)))
    around = torch.full((2, 65, 4, 3, 9), torch.nan, device=DEVICE)
    with torch.no_grad():
        around[:, :63, :3, :, :6] = torch.stack(dense).permute(1, 3, 0, 2, 4)
    packed = [around[:, :63, i, :, :6].transpose(1, 2).requires_grad_() for i in range(3)]
    out, expected = (entropy_equal_kernel(*x, entropy=entropy) for x in (packed, dense))
    assert torch.equal(out, expected)
    grads = torch.autograd.grad(out.sum(), packed)  # whose gradient is one number without strides
    wanted = torch.autograd.grad(expected, dense, torch.ones_like(expected).contiguous())
    for got, want in zip(grads, wanted, strict=True):
        assert torch.equal(got, want)
    assert out.transpose(1, 2).is_contiguous()  # the heads join again without a copy


def test_leading_dimensions_broadcast_whatever_the_strides(draw):
    q, k, v = on_device(draw(5, 20, 6, batch=(2, 2, 2)))
    k = k.mT.contiguous().mT  # channels far apart
    for few in ((q[:1], k, v), (q, k[0, :, :1], v[:, :1]), (q[0, 0, 0], k[0, 0, 0], v[0, 0, 0])):
        out = entropy_equal_kernel(*few, entropy="gaussian")
        expected = entropy_equal_attention(*few, entropy="gaussian", branch="linear")
        torch.testing.assert_close(out, expected)
        for got, want in zip(gradients_of(out, few, out), gradients_of(expected, few, out), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_float16_saturates_and_nan_stays(draw):
    q, k, v = on_device(draw(5, 20, 6, batch=(1,), dtype=torch.float16), torch.float16)
    with torch.no_grad():
        v *= 2e4
        out = entropy_equal_kernel(q * 10, k, v)
        assert out.abs().max() == 65504
        v[..., 0, 2] = torch.nan
        out = entropy_equal_kernel(q, k, v)
    assert out[..., 2].isnan().all()
    assert out[..., :2].isfinite().all()


def test_what_the_backward_pass_keeps_is_the_inputs_and_a_few_sums(draw):
    tensors = on_device(draw(1000, 1000, 8, batch=(1,)))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        entropy_equal_kernel(*tensors, entropy="gaussian")
    inputs = {x.data_ptr() for x in tensors}
    assert sum(x.data_ptr() in inputs for x in kept) == 3
    assert sum(x.numel() for x in kept if x.data_ptr() not in inputs) == 2 * 8 + 2 * 8 * 8
