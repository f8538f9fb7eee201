"""What a train step and a forecast of whole models cost over N: every case in a process of its own, as rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from ealinformer.measure.allocator import give_back_freed_memory, keep_freed_memory
from ealinformer.measure.isolated import Outcome, attempt, isolated
from ealinformer.measure.memory import limit_memory
from ealinformer.measure.peak import peak_of
from ealinformer.measure.rows import Row, line_of, memory_fields, time_fields, why_not
from ealinformer.measure.timing import interleaved, passes_in_a_sample, stopwatch, warm
from ealinformer.measure.train_step import (
    SENSORS_TO_WARM,
    SLACK,
    Build,
    Readings,
    Setting,
    TrainStep,
    autocast,
    built,
    prepare_process,
)

TRAIN, INFERENCE = "train step", "inference"
PASSES = (TRAIN, INFERENCE)
# What tells two lines over N apart.
LINE = ("model", "pass", "batch_size", "dtype")
SECONDS_TO_START = 120

Work = Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """Every model and pass at every length; `setting` has all but N.

    `max_seconds`: a pass that would take longer is left out; `memory_limit`: bytes that a process may take.
    """

    models: tuple[str, ...]
    passes: tuple[str, ...]
    lengths: tuple[int, ...]
    setting: Setting
    rounds: int
    max_seconds: float
    memory_limit: int | None


def measure_scaling(plan: Plan, build: Build, tell: Callable[[str], None] = lambda what: None) -> Iterator[Row]:
    """One row a case, N rising, each as soon as it is there; out of memory and too slow are rows."""
    rows: list[Row] = []
    for length in sorted(plan.lengths):
        setting = replace(plan.setting, num_sensors=length)
        for kind in plan.passes:
            for name in plan.models:
                row = _empty_row(name, kind, setting)
                row |= why_not(line_of(row, rows, LINE), length, plan.max_seconds)
                if row["status"] is None:
                    tell(f"N = {length:,}, {name}, {kind}")
                    row |= _measured(plan, setting, name, kind, build)
                rows.append(row)
                yield row


def cost_of(
    setting: Setting, name: str, kind: str, build: Build, limit: int | None, rounds: int, max_seconds: float
) -> tuple[Outcome, Outcome]:
    """`Memory` and timing `Samples` of one case, in this order, or why they are not there.

    Memory counts from before the model was built: its weights are in it, and of two train steps the optimizer's state.
    """
    small = replace(setting, num_sensors=SENSORS_TO_WARM, batch_size=1)
    work_of(small, name, kind, build, Readings(small))()  # loads libraries and starts threads
    give_back_freed_memory()
    prepare_process(setting, limit)
    readings = Readings(setting)

    def first() -> None:
        work = work_of(setting, name, kind, build, readings)
        work()
        if kind == TRAIN:
            work()

    memory = peak_of(first, setting.device)
    if memory.status != "ok" or memory.value.seconds > max_seconds:
        return memory, memory
    if limit is not None:
        limit_memory(limit + SLACK, setting.device)
    if setting.fast_malloc:
        keep_freed_memory()  # from here on, for memory is measured
    return memory, attempt(_samples, setting, work_of(setting, name, kind, build, readings), rounds)


def work_of(setting: Setting, name: str, kind: str, build: Build, readings: Readings) -> Work:
    """A train step, or the forecast of a batch on the original scale."""
    model = built(name, setting, build)
    if kind == TRAIN:
        return TrainStep(model, setting, readings)
    model.eval()

    def forecast() -> None:
        inputs, calendar, _, _ = readings.batch()
        with torch.no_grad(), autocast(setting):
            model(inputs, calendar).float() * readings.std + readings.mean

    return forecast


def _samples(setting: Setting, work: Work, rounds: int) -> object:
    clock = stopwatch(setting.device)
    passes = passes_in_a_sample(warm(work, clock))
    return interleaved({"": work}, {"": passes}, rounds=rounds, turn_seconds=0.0, seconds_of=clock)[""]


def _measured(plan: Plan, setting: Setting, name: str, kind: str, build: Build) -> Row:
    limit = SECONDS_TO_START + (6 + plan.rounds) * plan.max_seconds
    task = (setting, name, kind, build, plan.memory_limit, plan.rounds, plan.max_seconds)
    outcome = isolated(cost_of, *task, time_limit=limit)
    memory, samples = outcome.value if outcome.status == "ok" else (outcome, outcome)
    fields = memory_fields(memory, plan.max_seconds)
    if memory.status == "ok":
        fields["reserved_bytes"] = memory.value.reserved_bytes
    return fields if "status" in fields else fields | time_fields(samples, None)


def _empty_row(name: str, kind: str, setting: Setting) -> Row:
    size = {"batch_size": setting.batch_size, "length": setting.num_sensors, "dtype": setting.dtype}
    measured = ("status", "reason", "needed_bytes", "memory_bytes", "resident_bytes", "reserved_bytes")
    timed = ("first_pass_seconds", "seconds", "seconds_p20", "seconds_p80", "samples", "passes_in_a_sample")
    return {"model": name, "pass": kind, **size, **dict.fromkeys((*measured, *timed))}
