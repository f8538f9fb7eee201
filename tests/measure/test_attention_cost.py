"""What a pass of an attention costs: the right work is done, warmed, counted and timed."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ealinformer.measure import attention_cost
from ealinformer.measure.attention_cost import BOTH, FORWARD, Shape, memory_of, random_inputs, seconds_of, work_of

SHAPE = Shape(
    batch=2,
    heads=3,
    length=64,
    head_size=8,
    dtype="float32",
    device="cpu",
    causal=False,
    threads=torch.get_num_threads(),
)


class Recorder:
    """An attention that writes down how it is called, softmax's numbers otherwise."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, bool, bool]] = []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
        self.calls.append((q.shape[-2], causal, torch.is_grad_enabled()))
        return torch.softmax(q @ k.mT, dim=-1) @ v


def always(attention: Callable[..., Tensor]) -> Callable[[str, int, int], Callable[..., Tensor]]:
    return lambda name, length, head_size: attention


def test_inputs_are_the_same_every_time_and_of_the_shape() -> None:
    once, again = random_inputs(SHAPE), random_inputs(SHAPE)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert {tuple(x.shape) for x in once} == {(2, 3, 64, 8)}
    assert [x.requires_grad for x in once] == [True, True, True, False]
    assert not torch.equal(once[0], once[1])
    assert {x.dtype for x in random_inputs(replace(SHAPE, dtype="bfloat16"))} == {torch.bfloat16}


def test_forward_is_without_gradients_and_both_gives_those_of_q_k_and_v() -> None:
    recorder, inputs = Recorder(), random_inputs(SHAPE)
    out = work_of(SHAPE, ("a", FORWARD), always(recorder), inputs)()
    grads = work_of(SHAPE, ("a", BOTH), always(recorder), inputs)()
    assert recorder.calls == [(64, False, False), (64, False, True)]
    q, k, v, grad = inputs
    expected = torch.softmax(q @ k.mT, dim=-1) @ v
    torch.testing.assert_close(out, expected.detach())
    torch.testing.assert_close(grads, torch.autograd.grad(expected, (q, k, v), grad))
    assert q.grad is None  # nothing adds up from pass to pass


def test_an_attention_that_ignores_q_and_k_has_gradients_of_none() -> None:
    inputs = random_inputs(SHAPE)
    grads = work_of(SHAPE, ("a", BOTH), always(lambda q, k, v, causal: v), inputs)()
    assert isinstance(grads, tuple)
    assert grads[:2] == (None, None)
    torch.testing.assert_close(grads[2], inputs[3])


def test_modules_take_the_dtype_and_are_told_n_and_c() -> None:
    asked = []

    class Projected(nn.Module):
        def __init__(self, length: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(length))

        def forward(self, q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
            assert self.weight.dtype == q.dtype
            return v * self.weight[:, None]

    def build(name: str, length: int, head_size: int) -> Callable[..., Tensor]:
        asked.append((name, length, head_size))
        return Projected(length)

    shape = replace(SHAPE, dtype="float64", causal=True)
    work_of(shape, ("mine", BOTH), build, random_inputs(shape))()
    assert asked == [("mine", 64, 8)]


def test_memory_is_that_of_the_pass_over_its_inputs() -> None:
    """Without gradients softmax holds its scores twice: before and after the normalization."""
    recorder = Recorder()
    shape = replace(SHAPE, length=300)
    (outcome,) = memory_of(shape, [("a", FORWARD)], always(recorder), None).values()
    assert outcome.status == "ok"
    assert outcome.value.allocated_bytes == pytest.approx(2 * 4 * 2 * 3 * 300 * 300, rel=0.02)
    assert outcome.value.resident_bytes >= 0
    assert outcome.value.seconds > 0
    # A small one first, so that libraries are loaded; then once for the system's count, once for torch's.
    assert [length for length, _, _ in recorder.calls] == [attention_cost.WARM_LENGTH, 300, 300]


def test_memory_grows_linearly_where_the_attention_is_linear() -> None:
    def linear(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
        return q @ (k.mT @ v)

    found = {
        length: memory_of(replace(SHAPE, length=length), [("a", FORWARD)], always(linear), None)["a", FORWARD].value
        for length in (1000, 2000)
    }
    assert found[1000].allocated_bytes == 4 * 2 * 3 * (1000 * 8 + 8 * 8)
    assert found[2000].allocated_bytes == 4 * 2 * 3 * (2000 * 8 + 8 * 8)


def test_what_an_attention_raises_is_its_outcome_and_no_other_s() -> None:
    def build(name: str, length: int, head_size: int) -> Callable[..., Tensor]:
        if name == "broken":
            raise ValueError("needs a rank")
        return Recorder()

    outcomes = seconds_of(SHAPE, [("broken", FORWARD), ("fine", FORWARD)], build, None, rounds=2, turn_seconds=0.0)
    assert outcomes["broken", FORWARD].reason == "ValueError: needs a rank"
    assert outcomes["fine", FORWARD].status == "ok"
    assert len(outcomes["fine", FORWARD].value.rounds) == 2
    assert memory_of(SHAPE, [("broken", BOTH)], build, None)["broken", BOTH].reason == "ValueError: needs a rank"


def test_every_attention_is_warm_before_any_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def build(name: str, length: int, head_size: int) -> Callable[..., Tensor]:
        def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
            order.append(name)
            return v

        return attention

    monkeypatch.setattr(attention_cost, "passes_in_a_sample", lambda seconds: 1)
    seconds_of(SHAPE, [(name, FORWARD) for name in "ab"], build, None, rounds=2, turn_seconds=0.0)
    assert "".join(order) == "aaaa" + "bbbb" + "ab" + "ba"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_counts_and_times_too() -> None:
    shape = replace(SHAPE, device="cuda", length=300)
    cases = [("a", FORWARD), ("a", BOTH)]
    memory = memory_of(shape, cases, always(Recorder()), None)
    assert memory["a", FORWARD].value.allocated_bytes == pytest.approx(2 * 4 * 2 * 3 * 300 * 300, rel=0.02)
    assert memory["a", FORWARD].value.resident_bytes is None
    times = seconds_of(shape, cases, always(Recorder()), None, rounds=2, turn_seconds=0.01)
    assert all(0 < seconds < 1 for outcome in times.values() for seconds in outcome.value.all())
