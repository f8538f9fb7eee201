"""torch.compile, torch.export, vmap, forward-mode and double gradients of entropy-equal attention."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import grad, jvp, vmap

from ealinformer.attention import ENTROPIES, entropy_equal_attention

FORMS = [(e, b) for e in ENTROPIES for b in ("linear", "quadratic") if (e, b) != ("exact", "linear")]
CAUSAL_TOO = [(*form, causal) for form in FORMS for causal in (False, True) if not (causal and form[0] == "skewed")]
LENGTH = 70


class Layer(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, q, k, v):
        return entropy_equal_attention(q, k, v, **self.options)


def variants(entropy, mask):
    yield {}
    yield {"key_padding_mask": mask}
    if entropy != "skewed":
        yield {"causal": True}


@pytest.mark.parametrize(("entropy", "branch"), FORMS)
def test_compiles_without_a_break_and_equals_eager(make_qkv, make_padding, gradients, entropy, branch):
    tensors = make_qkv(LENGTH, LENGTH, 6, std=0.5, dtype=torch.float32, grad=True)
    for options in variants(entropy, make_padding(2, 1, LENGTH)):
        torch._dynamo.reset()
        layer = Layer(entropy=entropy, branch=branch, **options)
        out = torch.compile(layer, fullgraph=True, backend="aot_eager")(*tensors)
        expected = layer(*tensors)
        torch.testing.assert_close(out, expected)
        for got, want in zip(gradients(out, tensors), gradients(expected, tensors), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_the_default_compiler_gives_the_same_numbers(make_qkv, gradients):
    """One of all forms, for a compilation takes half a minute."""
    tensors = make_qkv(LENGTH, LENGTH, 6, dtype=torch.float32, grad=True)
    layer = Layer(entropy="skewed")
    torch._dynamo.reset()
    try:
        out = torch.compile(layer, fullgraph=True)(*tensors)
    except torch._inductor.exc.InductorError as error:
        if "compiler" not in str(error).lower():
            raise
        pytest.skip("no C++ compiler")
    expected = layer(*tensors)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    for got, want in zip(gradients(out, tensors), gradients(expected, tensors), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("entropy", ["taylor", "gaussian", "finite_size", "skewed"])
def test_other_lengths_need_no_new_compilation(make_qkv, entropy):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    layer = Layer(entropy=entropy)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=counter)
    for n in (LENGTH, 90, 131, 300):
        tensors = make_qkv(n, n, 8, dtype=torch.float32)
        torch.testing.assert_close(compiled(*tensors), layer(*tensors))
    assert counter.frame_count <= 2


@pytest.mark.parametrize(("entropy", "branch"), FORMS)
def test_exports_and_equals_eager(make_qkv, entropy, branch):
    tensors = make_qkv(LENGTH, LENGTH, 6, std=0.5, dtype=torch.float32)
    for causal in (False, True) if entropy != "skewed" else (False,):
        layer = Layer(entropy=entropy, branch=branch, causal=causal)
        program = torch.export.export(layer, tuple(tensors))
        torch.testing.assert_close(program.module()(*tensors), layer(*tensors))


@pytest.mark.parametrize(("entropy", "branch"), FORMS)
def test_exports_with_a_length_that_is_left_open(make_qkv, entropy, branch):
    tensors = make_qkv(LENGTH, LENGTH, 6, std=0.5, dtype=torch.float32)
    length = torch.export.Dim("length", min=8, max=4096)
    layer = Layer(entropy=entropy, branch=branch)
    shapes = {name: {2: length} for name in "qkv"}
    program = torch.export.export(layer, tuple(tensors), dynamic_shapes=shapes).module()
    for n in (LENGTH, 131):
        tensors = make_qkv(n, n, 6, std=0.5, dtype=torch.float32)
        torch.testing.assert_close(program(*tensors), layer(*tensors), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("entropy", "branch", "causal"), CAUSAL_TOO)
def test_function_transforms(make_qkv, entropy, branch, causal):
    q, k, v = make_qkv(9, 9, 4, std=0.3)

    def attention(q, k, v):
        return entropy_equal_attention(q, k, v, entropy=entropy, branch=branch, causal=causal)

    def total(q, k, v):
        return attention(q, k, v).sin().sum()

    torch.testing.assert_close(vmap(attention)(q, k, v), attention(q, k, v))
    leaf = q.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(leaf, k, v), leaf)
    torch.testing.assert_close(vmap(grad(total))(q, k, v), expected)
    step = 1e-6
    _, slope = jvp(lambda q: attention(q, k, v), (q,), (torch.ones_like(q),))
    finite = (attention(q + step, k, v) - attention(q - step, k, v)) / (2 * step)
    torch.testing.assert_close(slope, finite, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("entropy", "branch", "causal"), CAUSAL_TOO)
def test_gradients_and_their_gradients_are_those_of_the_function(make_qkv, make_padding, entropy, branch, causal):
    tensors = make_qkv(5, 5, 3, batch=(2,), std=0.6, grad=True)
    if entropy == "taylor_uncentred":
        tensors = make_qkv(5, 5, 3, batch=(2,), std=0.1, grad=True)
    mask = make_padding(2, 5)

    def attention(q, k, v):
        return entropy_equal_attention(q, k, v, entropy=entropy, branch=branch, causal=causal, key_padding_mask=mask)

    if causal:
        # The first query sees one key, where theta's slope jumps: it is left out of the finite differences.
        assert torch.autograd.gradcheck(lambda *x: attention(*x)[:, 2:], tensors)
    else:
        assert torch.autograd.gradcheck(attention, tensors)
        if entropy != "exact":
            assert torch.autograd.gradgradcheck(attention, tensors)
