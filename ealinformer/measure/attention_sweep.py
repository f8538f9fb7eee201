"""Attentions over many shapes: what is measured, what is left out and why, as rows of results."""

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ealinformer.measure.attention_cost import Build, Case, Shape, memory_of, seconds_of
from ealinformer.measure.isolated import Outcome, isolated
from ealinformer.measure.scaling import exponent, predicted
from ealinformer.measure.timing import Samples, quantile, ratios

REFERENCE = "sdpa"
# What tells two lines over N apart.
LINE = ("attention", "pass", "batch", "heads", "head_size", "dtype")
# What a process costs besides its passes, about; for the time left alone.
SECONDS_OF_A_PROCESS = 0.3

Row = dict[str, Any]


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
        row |= why_not(line_of(row, earlier), shape.length, plan.max_seconds)
    wanted = [case for case, row in rows.items() if row["status"] is None]
    # A GPU's allocator counts by itself, and its processes start slowly: one for all.
    for group in [wanted] if _is_cuda(shape) else [[case] for case in wanted]:
        tell(f"memory, {', '.join(group[0])}" if len(group) == 1 else "memory")
        limit = len(group) * (6 * plan.max_seconds + 60)
        for case, outcome in _each(
            isolated(memory_of, shape, group, build, plan.memory_limit, time_limit=limit), group
        ):
            rows[case] |= _memory_fields(outcome, plan.max_seconds)
    fitting = [case for case in wanted if rows[case]["status"] is None]
    if fitting:
        tell(f"time, {len(fitting)} in turns")
        once = sum(rows[case]["first_pass_seconds"] for case in fitting)
        limit = 5 * (plan.repeats + 3) * once + 10 * plan.seconds * len(fitting) + 60
        task = (shape, fitting, build, plan.memory_limit, plan.repeats, plan.seconds / plan.repeats)
        timed = dict(_each(isolated(seconds_of, *task, time_limit=limit), fitting))
        for case, outcome in timed.items():
            rows[case] |= _time_fields(outcome, timed.get((REFERENCE, case[1])))
    return list(rows.values())


def why_not(line: Sequence[Mapping[str, Any]], length: int, max_seconds: float) -> Row:
    """`status` and `reason` where the shorter lengths of the same line say that this one is not to be tried, or {}."""
    for row in line:
        if row["status"] == "out of memory":
            return {"status": "skipped", "reason": f"out of memory at N = {row['length']:,} already"}
    points = [(row["length"], row["seconds"] or row["first_pass_seconds"]) for row in line]
    known = sorted(point for point in points if point[1])
    expected = predicted([n for n, _ in known], [seconds for _, seconds in known], length)
    if expected is not None and expected > max_seconds:
        reason = f"not tried: a pass would take about {expected:.2g} s, more than {max_seconds:g} s"
        return {"status": "too slow", "reason": reason}
    stopped = [row["length"] for row in line if row["status"] == "too slow"]
    if stopped:
        return {"status": "skipped", "reason": f"too slow at N = {stopped[0]:,} already"}
    return {}


def line_of(row: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that differ from `row` in N alone."""
    return [other for other in rows if all(other[key] == row[key] for key in LINE)]


def rows_at(shape: Shape, rows: Iterable[Row]) -> list[Row]:
    """The rows of one shape."""
    wanted = _empty_row(shape, ("", ""))
    keys = ("batch", "heads", "length", "head_size", "dtype")
    return [row for row in rows if all(row[key] == wanted[key] for key in keys)]


def fits_of(rows: Sequence[Row], from_length: int) -> list[Row]:
    """Exponents of time and memory in N for every line, over its lengths from `from_length` up, two at least."""
    fits = []
    for key in dict.fromkeys(tuple(row[field] for field in LINE) for row in rows):
        line = [row for row in rows if tuple(row[field] for field in LINE) == key and row["length"] >= from_length]
        lengths = [row["length"] for row in line if row["seconds"]]
        if len(lengths) > 1:
            reach = {"from_length": min(lengths), "to_length": max(lengths)}
            exponents = {
                "time_exponent": _exponent(line, "seconds"),
                "memory_exponent": _exponent(line, "memory_bytes"),
            }
            fits.append({**dict(zip(LINE, key, strict=True)), **reach, **exponents})
    return fits


def seconds_left(plan: Plan, shapes: Iterable[Shape], rows: Sequence[Row]) -> float:
    """About how long the rest takes: each line goes on as it grew, what is unknown takes no longer than its turns."""
    total = 0.0
    for shape, case in itertools.product(shapes, plan.cases()):
        line = line_of(_empty_row(shape, case), rows)
        if why_not(line, shape.length, plan.max_seconds):
            continue
        known = sorted((row["length"], row["seconds"]) for row in line if row["seconds"])
        one = predicted([n for n, _ in known], [seconds for _, seconds in known], shape.length, unknown=1.0) or 0.0
        total += max(plan.seconds, plan.repeats * one) + 5 * one + SECONDS_OF_A_PROCESS
    return total


def _exponent(line: Sequence[Row], cost: str) -> float | None:
    points = [(row["length"], row[cost]) for row in line if row[cost]]
    return exponent([length for length, _ in points], [value for _, value in points])


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


def _memory_fields(outcome: Outcome, max_seconds: float) -> Row:
    if outcome.status != "ok":
        return _failure_fields(outcome)
    memory = outcome.value
    fields = {"memory_bytes": memory.allocated_bytes, "resident_bytes": memory.resident_bytes}
    fields["first_pass_seconds"] = memory.seconds
    if memory.seconds > max_seconds:
        reason = f"not timed: one pass took {memory.seconds:.2g} s, more than {max_seconds:g} s"
        return {**fields, "status": "too slow", "reason": reason}
    return fields


def _time_fields(outcome: Outcome, reference: Outcome | None) -> Row:
    if outcome.status != "ok":
        return _failure_fields(outcome)
    samples: Samples = outcome.value
    fields: Row = {"status": "ok", "passes_in_a_sample": samples.passes, "samples": len(samples.all())}
    fields |= _median_and_quantiles("seconds", samples.all())
    if reference is not None and reference.status == "ok":
        fields |= _median_and_quantiles("ratio", ratios(samples, reference.value))
    return fields


def _median_and_quantiles(key: str, values: Sequence[float]) -> Row:
    return {
        key: statistics.median(values),
        f"{key}_p20": quantile(values, 0.2),
        f"{key}_p80": quantile(values, 0.8),
    }


def _failure_fields(outcome: Outcome) -> Row:
    return {"status": outcome.status, "reason": outcome.reason, "needed_bytes": outcome.needed_bytes}


def _is_cuda(shape: Shape) -> bool:
    return torch.device(shape.device).type == "cuda"
