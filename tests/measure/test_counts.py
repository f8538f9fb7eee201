"""Operations and bytes against what can be counted by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ealinformer.measure.ceilings import Ceilings
from ealinformer.measure.counts import Counts, count, roofline

FLOAT = 4


def test_a_product_and_its_backward_pass() -> None:
    a, b = torch.randn(30, 40, requires_grad=True), torch.randn(40, 50, requires_grad=True)
    sides = 30 * 40 + 40 * 50 + 30 * 50
    assert count(lambda: a.detach() @ b.detach()) == Counts(2 * 30 * 40 * 50, FLOAT * sides)
    grad = torch.randn(30, 50)
    both = count(lambda: torch.autograd.grad(a @ b, (a, b), grad))
    assert both == Counts(3 * 2 * 30 * 40 * 50, 3 * FLOAT * sides)


def test_a_batched_product_with_one_matrix_for_all_reads_it_once() -> None:
    a, b = torch.randn(7, 30, 40), torch.randn(40, 50)
    found = count(lambda: torch.bmm(a, b.expand(7, 40, 50)))
    assert found == Counts(2 * 7 * 30 * 40 * 50, FLOAT * (7 * 30 * 40 + 40 * 50 + 7 * 30 * 50))


def test_a_function_of_its_own_is_seen_in_both_passes() -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x @ x

        @staticmethod
        def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
            (x,) = ctx.saved_tensors
            return torch.addmm(grad @ x.mT, x.mT, grad)

    x, grad = torch.randn(20, 20, requires_grad=True), torch.randn(20, 20)
    assert count(lambda: torch.autograd.grad(Square.apply(x), x, grad)).flops == 3 * 2 * 20**3


def test_fused_attention_on_the_cpu_is_counted() -> None:
    q, k, v = (torch.randn(2, 4, 64, 16, requires_grad=True) for _ in range(3))
    products = 2 * 2 * (2 * 4 * 64 * 64 * 16)  # of scores, and of weights with values
    grad = torch.randn(2, 4, 64, 16)
    assert count(lambda: F.scaled_dot_product_attention(*(x.detach() for x in (q, k, v)))).flops == products
    both = count(lambda: torch.autograd.grad(F.scaled_dot_product_attention(q, k, v), (q, k, v), grad))
    assert both.flops == products * 3.5  # backward has five products, the scores once more among them


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("clone", 2),
        ("add_", 2),
        ("add", 2),
        ("zero_", 1),
        ("zeros_like", 1),
        ("copy_", 2),
        ("view", 0),
        ("half", 1.5),
        ("nothing", 0),
        ("sum", 1),
    ],
)
def test_bytes_are_read_and_written(name: str, tensors: float) -> None:
    x, other = torch.randn(1000), torch.randn(1000)
    works = {
        "clone": lambda: x.clone(),
        "add_": lambda: x.add_(1),
        "add": lambda: x + 1,
        "zero_": lambda: x.zero_(),
        "zeros_like": lambda: torch.zeros_like(x),
        "copy_": lambda: x.copy_(other),
        "view": lambda: x.view(10, 100).mT.unsqueeze(0).detach(),
        "half": lambda: x.half(),
        "nothing": lambda: torch.empty_like(x).new_empty(7),
        "sum": lambda: x.sum(),
    }
    found = count(works[name])
    assert found.flops == 0
    assert found.bytes == tensors * 1000 * FLOAT + (FLOAT if name == "sum" else 0)


def test_a_part_of_a_tensor_is_that_part() -> None:
    x = torch.randn(1000)
    assert count(lambda: x[:10].clone()).bytes == 2 * 10 * FLOAT


def test_an_optimizer_reads_and_writes_its_lists() -> None:
    weights = [torch.zeros(1000, requires_grad=True), torch.zeros(500, requires_grad=True)]
    optimizer = torch.optim.Adam(weights, fused=True)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    found = count(optimizer.step).bytes / (1500 * FLOAT)
    # Weights and both moments are read and written, gradients read, and rewritten as the schema says; counters besides.
    assert found == pytest.approx(8, rel=0.01)


CEILINGS = Ceilings("float32", flops_per_second=100.0, bytes_per_second=10.0, gemm_side=1, copy_bytes=1)


def test_the_roofline_is_the_nearer_ceiling() -> None:
    assert roofline(Counts(1000, 10), CEILINGS, 20.0) == {
        "flop_per_byte": 100.0,
        "roofline_seconds": 10.0,
        "roofline_share": 0.5,
    }
    by_bytes = roofline(Counts(10, 1000), CEILINGS, 400.0)
    assert (by_bytes["roofline_seconds"], by_bytes["roofline_share"]) == (100.0, 0.25)


def test_without_seconds_there_is_no_share() -> None:
    assert roofline(Counts(1000, 0), CEILINGS, None) == {
        "flop_per_byte": None,
        "roofline_seconds": 10.0,
        "roofline_share": None,
    }
