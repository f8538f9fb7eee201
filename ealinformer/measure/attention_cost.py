"""What an attention costs at a shape: peak memory and seconds of its passes, on random inputs.

Knows no attention: `build` makes one of its name. The functions here are run in processes of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ealinformer.measure.isolated import Outcome, attempt
from ealinformer.measure.memory import MIB, limit_memory, release
from ealinformer.measure.peak import peak_of
from ealinformer.measure.timing import interleaved, passes_in_a_sample, stopwatch, warm

FORWARD, BOTH = "forward", "forward+backward"
PASSES = (FORWARD, BOTH)
SEED = 0
WARM_LENGTH = 16
# What a process that times many attentions may take beyond the limit that each of them kept to alone: libraries and
# freed memory that is not yet given back.
SLACK = 512 * MIB

# name, N, C -> attention(q, k, v, key_padding_mask=None, causal=False)
Build = Callable[[str, int, int], Callable[..., Tensor]]
Case = tuple[str, str]  # name of an attention, one of PASSES


@dataclass(frozen=True)
class Shape:
    """What is attended to: q, k and v `[batch, heads, length, head_size]`, contiguous, and how it is computed."""

    batch: int
    heads: int
    length: int
    head_size: int
    dtype: str
    device: str
    causal: bool
    threads: int


def memory_of(shape: Shape, cases: Sequence[Case], build: Build, limit: int | None) -> dict[Case, Outcome]:
    """The `Memory` of every case, or why there is none. On the CPU a process measures one case, its first work."""
    torch.set_num_threads(shape.threads)
    outcomes = {}
    for case in cases:
        outcomes[case] = _flat(attempt(_memory, shape, case, build, limit))
        if len(cases) > 1:
            release(shape.device)
    return outcomes


def seconds_of(
    shape: Shape, cases: Sequence[Case], build: Build, limit: int | None, rounds: int, turn_seconds: float
) -> dict[Case, Outcome]:
    """The timing `Samples` of every case, or why there are none: first all are warmed, then they take turns."""
    torch.set_num_threads(shape.threads)
    if limit is not None:
        limit_memory(limit + SLACK, shape.device)
    inputs, clock = random_inputs(shape), stopwatch(shape.device)
    outcomes, works, passes = {}, {}, {}
    for case in cases:
        made = attempt(work_of, shape, case, build, inputs)
        warmed = attempt(warm, made.value, clock) if made.status == "ok" else made
        if warmed.status == "ok":
            works[case], passes[case] = made.value, passes_in_a_sample(warmed.value)
        else:
            outcomes[case] = warmed
            release(shape.device)
    timed = interleaved(works, passes, rounds=rounds, turn_seconds=turn_seconds, seconds_of=clock)
    return outcomes | {case: Outcome("ok", samples) for case, samples in timed.items()}


def random_inputs(shape: Shape) -> tuple[Tensor, ...]:
    """q, k, v that ask for gradients, and the gradient of the output; the same in every process."""
    generator = torch.Generator(shape.device).manual_seed(SEED)
    size = (shape.batch, shape.heads, shape.length, shape.head_size)

    def one() -> Tensor:
        drawn = torch.randn(size, generator=generator, device=shape.device)
        return drawn.to(getattr(torch, shape.dtype))

    return (*(one().requires_grad_() for _ in range(3)), one())


def work_of(shape: Shape, case: Case, build: Build, inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    """One pass: without gradients, as in forecasting, or with those of q, k and v."""
    name, kind = case
    torch.manual_seed(SEED)
    attention = build(name, shape.length, shape.head_size)
    if isinstance(attention, nn.Module):
        attention = attention.to(shape.device, getattr(torch, shape.dtype))
    q, k, v, grad = inputs

    def forward() -> Tensor:
        with torch.no_grad():
            return attention(q, k, v, causal=shape.causal)

    def both() -> tuple[Tensor | None, ...]:
        out = attention(q, k, v, causal=shape.causal)
        # Not every attention looks at all three: some have no gradient for q and k.
        return torch.autograd.grad(out, (q, k, v), grad, allow_unused=True)

    return forward if kind == FORWARD else both


def _memory(shape: Shape, case: Case, build: Build, limit: int | None) -> Outcome:
    small = replace(shape, length=min(shape.length, WARM_LENGTH))
    work_of(small, case, build, random_inputs(small))()  # loads libraries and starts threads, none of them the work's
    if limit is not None:
        limit_memory(limit, shape.device)
    work = work_of(shape, case, build, random_inputs(shape))
    return peak_of(work, shape.device)


def _flat(outcome: Outcome) -> Outcome:
    """The outcome within, where the function ended well and gave one."""
    inner: Any = outcome.value
    return inner if outcome.status == "ok" and isinstance(inner, Outcome) else outcome
