"""Attentions over many shapes: what is measured, what is left out and why, as rows of results."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from ealinformer.measure.attention_cost import Build, Case, Shape, memory_of, seconds_of
from ealinformer.measure.isolated import Outcome, isolated
from ealinformer.measure.rows import Row, fits_of, line_of, memory_fields, time_fields, why_not
from ealinformer.measure.scaling import predicted

REFERENCE = "sdpa"
# What tells two lines over N apart.
LINE = ("attention", "pass", "batch", "heads", "head_size", "dtype")
# What a process costs besides its passes, about; for the time left alone.
SECONDS_OF_A_PROCESS = 0.3


@dataclass(frozen=True)
class Plan:
    """All that is to be measured: every attention and pass at every shape.

    `repeats`: rounds in which the attentions take turns; `seconds`: what all turns of one take together, at least one
    pass a turn; `max_seconds`: a pass that would take longer is left out; `memory_limit`: bytes a process may take.
    """

    attentions: tuple[str, ...]
    passes: tuple[str, ...]
    lengths: tuple[int, ...]
    head_sizes: tuple[int, ...]
    heads: tuple[int, ...]
    dtypes: tuple[str, ...]
    batch: int
    device: str
    causal: bool
    threads: int
    repeats: int
    seconds: float
    max_seconds: float
    memory_limit: int | None
    fit_from: int

    def shapes(self) -> list[Shape]:
        """Group by group, N rising within each: what a length costs is judged by the ones before it."""
        return [
            Shape(self.batch, heads, length, head_size, dtype, self.device, self.causal, self.threads)
            for dtype, heads, head_size in itertools.product(self.dtypes, self.heads, self.head_sizes)
            for length in sorted(self.lengths)
        ]

    def cases(self) -> list[Case]:
        """Attentions and passes, all forward ones first."""
        return [(name, kind) for kind in self.passes for name in self.attentions]


def measure_shape(
    plan: Plan, shape: Shape, earlier: Sequence[Row], build: Build, tell: Callable[[str], None] = lambda what: None
) -> list[Row]:
    """One row a case, whatever happens: memory first, each in a process of its own, then all that fit are timed.

    Args:
        plan: limits and repeats.
        shape: where to measure.
        earlier: the rows of shorter lengths, and others, which do not matter.
        build: makes an attention; importable by its name.
        tell: is told what comes next.
    """
    rows = {case: _empty_row(shape, case) for case in plan.cases()}
    for row in rows.values():
        row |= why_not(line_of(row, earlier, LINE), shape.length, plan.max_seconds)
    wanted = [case for case, row in rows.items() if row["status"] is None]
    # A GPU's allocator counts by itself, and its processes start slowly: one for all.
    for group in [wanted] if _is_cuda(shape) else [[case] for case in wanted]:
        tell(f"memory, {', '.join(group[0])}" if len(group) == 1 else "memory")
        limit = len(group) * (6 * plan.max_seconds + 60)
        for case, outcome in _each(
            isolated(memory_of, shape, group, build, plan.memory_limit, time_limit=limit), group
        ):
            rows[case] |= memory_fields(outcome, plan.max_seconds)
    fitting = [case for case in wanted if rows[case]["status"] is None]
    if fitting:
        tell(f"time, {len(fitting)} in turns")
        once = sum(rows[case]["first_pass_seconds"] for case in fitting)
        limit = 5 * (plan.repeats + 3) * once + 10 * plan.seconds * len(fitting) + 60
        task = (shape, fitting, build, plan.memory_limit, plan.repeats, plan.seconds / plan.repeats)
        timed = dict(_each(isolated(seconds_of, *task, time_limit=limit), fitting))
        for case, outcome in timed.items():
            rows[case] |= time_fields(outcome, timed.get((REFERENCE, case[1])))
    return list(rows.values())


def rows_at(shape: Shape, rows: Iterable[Row]) -> list[Row]:
    """The rows of one shape."""
    wanted = _empty_row(shape, ("", ""))
    keys = ("batch", "heads", "length", "head_size", "dtype")
    return [row for row in rows if all(row[key] == wanted[key] for key in keys)]


def attention_fits(rows: Sequence[Row], from_length: int) -> list[Row]:
    """Exponents of time and memory in N for every line, over its lengths from `from_length` up, two at least."""
    return fits_of(rows, from_length, LINE)


def seconds_left(plan: Plan, shapes: Iterable[Shape], rows: Sequence[Row]) -> float:
    """About how long the rest takes: each line goes on as it grew, what is unknown takes no longer than its turns."""
    total = 0.0
    for shape, case in itertools.product(shapes, plan.cases()):
        line = line_of(_empty_row(shape, case), rows, LINE)
        if why_not(line, shape.length, plan.max_seconds):
            continue
        known = sorted((row["length"], row["seconds"]) for row in line if row["seconds"])
        one = predicted([n for n, _ in known], [seconds for _, seconds in known], shape.length, unknown=1.0) or 0.0
        total += max(plan.seconds, plan.repeats * one) + 5 * one + SECONDS_OF_A_PROCESS
    return total


def _empty_row(shape: Shape, case: Case) -> Row:
    size = {"batch": shape.batch, "heads": shape.heads, "length": shape.length, "head_size": shape.head_size}
    measured = ("first_pass_seconds", "seconds", "seconds_p20", "seconds_p80", "samples", "passes_in_a_sample")
    compared = ("ratio", "ratio_p20", "ratio_p80", "memory_bytes", "resident_bytes", "needed_bytes")
    nothing = dict.fromkeys(("status", "reason", *measured, *compared))
    return {"attention": case[0], "pass": case[1], **size, "dtype": shape.dtype, **nothing}


def _each(outcome: Outcome, cases: Sequence[Case]) -> list[tuple[Case, Outcome]]:
    """The outcomes of single cases; where the whole process failed, that is the outcome of each."""
    if outcome.status == "ok":
        return list(outcome.value.items())
    return [(case, outcome) for case in cases]


def _is_cuda(shape: Shape) -> bool:
    return torch.device(shape.device).type == "cuda"
