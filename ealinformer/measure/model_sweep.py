"""Models side by side at a shape: memory and counts apart, time in turns, as rows of results."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ealinformer.measure.ceilings import Ceilings
from ealinformer.measure.counts import Counts, roofline
from ealinformer.measure.isolated import Outcome, Status, isolated
from ealinformer.measure.rows import Row, failure_fields, median_and_quantiles, memory_fields, time_fields
from ealinformer.measure.timing import ratios
from ealinformer.measure.train_step import PHASES, Build, Setting, memory_and_counts, step_seconds

SECONDS_TO_START = 120  # of a process, a compiler's included where that is wanted
COMPILING = 15
_NO_MEMORY: Status = "out of memory"


@dataclass(frozen=True)
class Plan:
    """Models by name, the first of `references` what ratios are to, the second what `ratio_to_second` are to.

    `max_seconds`: a step that takes longer is not repeated; `memory_limit`: bytes that a process may take.
    """

    models: tuple[str, ...]
    references: tuple[str, str]
    rounds: int
    max_seconds: float
    memory_limit: int | None


def measure_models(
    plan: Plan, setting: Setting, ceilings: Ceilings, build: Build, tell: Callable[[str], None] = lambda what: None
) -> list[Row]:
    """One row a model, whatever happens.

    Args:
        plan: which models, how often, how long.
        setting: the shape and how it is computed.
        ceilings: of the same device and dtype.
        build: makes a model of its name; importable by its name.
        tell: is told what comes next.
    """
    rows = {name: _empty_row(name, setting) for name in plan.models}
    factor = COMPILING if setting.compile != "off" else 1
    for name, row in rows.items():
        tell(f"memory, {name}")
        limit = factor * SECONDS_TO_START + 8 * plan.max_seconds
        outcome = isolated(memory_and_counts, setting, name, build, plan.memory_limit, time_limit=limit)
        memory, counts = outcome.value if outcome.status == "ok" else (outcome, outcome)
        row |= memory_fields(memory, plan.max_seconds)
        if memory.status == "ok":
            row["reserved_bytes"] = memory.value.reserved_bytes
        if counts.status == "ok":
            row |= asdict(counts.value)
    fitting = [name for name, row in rows.items() if row["status"] is None]
    while fitting:
        tell(f"time, {len(fitting)} in turns")
        once = sum(rows[name]["first_pass_seconds"] for name in fitting)
        limit = factor * SECONDS_TO_START * len(fitting) + 3 * (plan.rounds + 4) * once
        task = (setting, fitting, build, plan.memory_limit, plan.rounds)
        outcome = isolated(step_seconds, *task, time_limit=limit)
        # What a step that failed had freed stays with its process, so that the others had to do with the rest.
        lacking = [name for name in fitting if outcome.status == "ok" and outcome.value[name].status == _NO_MEMORY]
        if outcome.status == "ok" and not lacking:
            _add_times(rows, outcome.value, plan)
            break
        # All together could not: without the largest, the others may.
        largest = max(lacking or fitting, key=lambda name: rows[name]["memory_bytes"])
        if lacking:  # what it needs by itself is known
            reason = "in turns with others, as freed memory is kept; alone it fits"
            outcome = Outcome(_NO_MEMORY, reason=reason)
        rows[largest] |= failure_fields(outcome)
        fitting.remove(largest)
    first = rows.get(plan.references[0], {})
    for row in rows.values():
        row |= _compared(row, first, ceilings)
    return list(rows.values())


def _empty_row(name: str, setting: Setting) -> Row:
    kept = {key: value for key, value in asdict(setting).items() if key in ("num_sensors", "batch_size", "dtype")}
    measured = ("status", "reason", "needed_bytes", "memory_bytes", "memory_ratio", "resident_bytes", "reserved_bytes")
    timed = ("first_pass_seconds", "seconds", "seconds_p20", "seconds_p80", "samples", "passes_in_a_sample")
    compared = ("ratio", "ratio_p20", "ratio_p80", "ratio_to_second", "ratio_to_second_p20", "ratio_to_second_p80")
    phases = (f"{phase}_seconds{end}" for phase in PHASES for end in ("", "_p20", "_p80"))
    counted = ("flops", "bytes", "flop_per_byte", "roofline_seconds", "roofline_share")
    return {"model": name, **kept, **dict.fromkeys((*measured, *timed, *compared, *phases, *counted))}


def _add_times(rows: Mapping[str, Row], timed: Mapping[str, Outcome], plan: Plan) -> None:
    samples = {
        name: Outcome("ok", outcome.value[0]) if outcome.status == "ok" else outcome for name, outcome in timed.items()
    }
    first, second = (samples.get(name) for name in plan.references)
    for name, outcome in timed.items():
        row = rows[name]
        row |= time_fields(samples[name], first)
        if outcome.status != "ok":
            continue
        if second is not None and second.status == "ok":
            row |= median_and_quantiles("ratio_to_second", ratios(samples[name].value, second.value))
        for phase, seconds in outcome.value[1].items():
            row |= median_and_quantiles(f"{phase}_seconds", seconds)


def _compared(row: Row, reference: Mapping[str, Any], ceilings: Ceilings) -> Row:
    fields: Row = {}
    if row["memory_bytes"] and reference.get("memory_bytes"):
        fields["memory_ratio"] = row["memory_bytes"] / reference["memory_bytes"]
    if row["bytes"]:
        fields |= roofline(Counts(row["flops"], row["bytes"]), ceilings, row["seconds"])
    return fields
