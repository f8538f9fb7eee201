"""What was measured as fields of rows, and what the rows of smaller N say of a larger one."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ealinformer.measure.isolated import Outcome
from ealinformer.measure.peak import Memory
from ealinformer.measure.scaling import exponent, predicted
from ealinformer.measure.timing import Samples, quantile, ratios

Row = dict[str, Any]


def memory_fields(outcome: Outcome, max_seconds: float) -> Row:
    """Of a `Memory`, or why there is none; a first pass of more than `max_seconds` is too slow to be timed."""
    if outcome.status != "ok":
        return failure_fields(outcome)
    memory: Memory = outcome.value
    fields: Row = {"memory_bytes": memory.allocated_bytes, "resident_bytes": memory.resident_bytes}
    fields["first_pass_seconds"] = memory.seconds
    if memory.seconds > max_seconds:
        reason = f"not timed: one pass took {memory.seconds:.2g} s, more than {max_seconds:g} s"
        return {**fields, "status": "too slow", "reason": reason}
    return fields


def time_fields(outcome: Outcome, reference: Outcome | None) -> Row:
    """Of timing `Samples`, with ratios to those of the reference where it has any; or why there are none."""
    if outcome.status != "ok":
        return failure_fields(outcome)
    samples: Samples = outcome.value
    fields: Row = {"status": "ok", "passes_in_a_sample": samples.passes, "samples": len(samples.all())}
    fields |= median_and_quantiles("seconds", samples.all())
    if reference is not None and reference.status == "ok":
        fields |= median_and_quantiles("ratio", ratios(samples, reference.value))
    return fields


def median_and_quantiles(key: str, values: Sequence[float]) -> Row:
    """`key`, `key_p20` and `key_p80`."""
    return {
        key: statistics.median(values),
        f"{key}_p20": quantile(values, 0.2),
        f"{key}_p80": quantile(values, 0.8),
    }


def failure_fields(outcome: Outcome) -> Row:
    """Why nothing was measured."""
    return {"status": outcome.status, "reason": outcome.reason, "needed_bytes": outcome.needed_bytes}


def why_not(line: Sequence[Mapping[str, Any]], length: int, max_seconds: float) -> Row:
    """`status` and `reason` where the shorter lengths of the same line say that this one is not to be tried, or {}."""
    for row in line:
        if row["status"] == "out of memory":
            return {"status": "skipped", "reason": f"out of memory at N = {row['length']:,} already"}
    points = [(row["length"], row["seconds"] or row["first_pass_seconds"]) for row in line]
    known = sorted(point for point in points if point[1])
    # After a single length as if time were linear: what grows faster is stopped soon, what does not would be lost.
    expected = predicted([n for n, _ in known], [seconds for _, seconds in known], length, unknown=1.0)
    if expected is not None and expected > max_seconds:
        reason = f"not tried: a pass would take about {expected:.2g} s, more than {max_seconds:g} s"
        return {"status": "too slow", "reason": reason}
    stopped = [row["length"] for row in line if row["status"] == "too slow"]
    if stopped:
        return {"status": "skipped", "reason": f"too slow at N = {stopped[0]:,} already"}
    return {}


def line_of(row: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> list[Mapping[str, Any]]:
    """The rows that agree with `row` in all `keys`: those that tell two lines over N apart."""
    return [other for other in rows if all(other[key] == row[key] for key in keys)]


def fits_of(rows: Sequence[Row], from_length: int, keys: Sequence[str]) -> list[Row]:
    """Exponents of time and memory in N for every line, over its lengths from `from_length` up, two at least."""
    fits = []
    for first in {tuple(row[key] for key in keys): row for row in rows}.values():
        line = [row for row in line_of(first, rows, keys) if row["length"] >= from_length]
        lengths = [row["length"] for row in line if row["seconds"]]
        if len(lengths) > 1:
            reach = {"from_length": min(lengths), "to_length": max(lengths)}
            exponents = {
                "time_exponent": _exponent(line, "seconds"),
                "memory_exponent": _exponent(line, "memory_bytes"),
            }
            fits.append({**{key: first[key] for key in keys}, **reach, **exponents})
    return fits


def _exponent(line: Sequence[Mapping[str, Any]], cost: str) -> float | None:
    points = [(row["length"], row[cost]) for row in line if row[cost]]
    return exponent([length for length, _ in points], [value for _, value in points])
