"""Every attention on a GPU against the same on the CPU. Skipped where there is none."""

import pytest
import torch

from ealinformer.attention import ATTENTIONS, ENTROPIES, build_attention, entropy_equal_attention

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

# Largest error over the largest value, as on the CPU; TF32 is off.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 4e-3}


def compare(attention, tensors, dtype, gradients, **options):
    expected = attention(*tensors, **{k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in options.items()})
    there = [x.detach().to("cuda", dtype).requires_grad_() for x in tensors]
    out = attention(*there, **options)
    assert out.dtype == dtype
    assert out.is_cuda
    wanted = [expected, *gradients(expected, tensors)]
    direction = torch.randn(out.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to("cuda")
    got = [out, *torch.autograd.grad((out.double() * direction).sum(), there)]
    for a, b in zip(got, wanted, strict=True):
        assert (a.cpu().double() - b).abs().max() <= TOLERANCE[dtype] * b.abs().max() + 1e-12


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n", [1, 12, 63, 883])
def test_entropy_equal_attention(make_qkv, make_padding, gradients, entropy, dtype, n):
    # What the GPU gets is what the CPU gets, already rounded.
    tensors = [x.to(dtype).double().requires_grad_() for x in make_qkv(n, n, 38, batch=(1, 2), std=0.25)]

    def attention(*x, **options):
        return entropy_equal_attention(*x, entropy=entropy, **options)

    compare(attention, tensors, dtype, gradients)
    compare(attention, tensors, dtype, gradients, key_padding_mask=make_padding(n).cuda())
    if entropy != "skewed":
        compare(attention, tensors, dtype, gradients, causal=True)


@pytest.mark.parametrize("name", [name for name in ATTENTIONS if name not in ("linformer", "performer", "identity")])
def test_others_by_name(make_qkv, gradients, name):
    tensors = make_qkv(63, 63, 38, grad=True)
    compare(build_attention(name, head_size=38, num_keys=63), tensors, torch.float32, gradients)


@pytest.mark.parametrize("entropy", ["taylor", "finite_size", "skewed"])
def test_autocast_and_compile(make_qkv, entropy):
    q, k, v = (x.float().cuda() for x in make_qkv(170, 170, 38))

    def attention(q, k, v):
        return entropy_equal_attention(q, k, v, entropy=entropy)

    expected = attention(q, k, v)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cuda", dtype=dtype):
            assert torch.equal(attention(q, k, v), expected)
    torch._dynamo.reset()
    compiled = torch.compile(attention, fullgraph=True)(q, k, v)
    torch.testing.assert_close(compiled, expected, rtol=1e-3, atol=1e-4)
