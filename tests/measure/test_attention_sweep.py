"""Rows of a sweep over N: what is tried, what is left out and why, and that no failure ends it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ealinformer.measure import attention_sweep
from ealinformer.measure.attention_cost import BOTH, FORWARD, Case, Shape
from ealinformer.measure.attention_sweep import Plan, attention_fits, measure_shape, rows_at, seconds_left
from ealinformer.measure.isolated import Outcome
from ealinformer.measure.peak import Memory
from ealinformer.measure.rows import why_not
from ealinformer.measure.timing import Samples

PLAN = Plan(
    attentions=("sdpa", "ours"),
    passes=(FORWARD, BOTH),
    lengths=(100, 200, 400),
    head_sizes=(8,),
    heads=(2,),
    dtypes=("float32",),
    batch=1,
    device="cpu",
    causal=False,
    threads=1,
    repeats=3,
    seconds=0.5,
    max_seconds=10.0,
    memory_limit=None,
    fit_from=100,
)


def row(length: int, **values: Any) -> dict[str, Any]:
    nothing = {"status": "ok", "seconds": None, "first_pass_seconds": None, "memory_bytes": None}
    line = {"attention": "ours", "pass": BOTH, "batch": 1, "heads": 2, "head_size": 8, "dtype": "float32"}
    return {**line, "length": length, **nothing, **values}


class Machine:
    """Stands for the processes: sdpa costs N^2 microseconds and bytes, ours N; memory ends at `memory`."""

    def __init__(self, memory: int = 10**12) -> None:
        self.memory = memory
        self.asked: list[tuple[str, list[Case], int]] = []

    def cost(self, name: str, length: int) -> int:
        return length**2 if name == "sdpa" else length

    def isolated(self, function: Callable, shape: Shape, cases: list[Case], *_: object, time_limit: float) -> Outcome:
        self.asked.append((function.__name__, list(cases), shape.length))
        if function.__name__ == "memory_of":
            return Outcome("ok", {case: self._memory(case, shape.length) for case in cases})
        seconds = {case: 1e-6 * self.cost(case[0], shape.length) for case in cases}
        return Outcome("ok", {case: Outcome("ok", Samples([[s, s], [s]], 1)) for case, s in seconds.items()})

    def _memory(self, case: Case, length: int) -> Outcome:
        needed = self.cost(case[0], length)
        if needed > self.memory:
            return Outcome("out of memory", reason="no room", needed_bytes=needed)
        return Outcome("ok", Memory(needed, 2 * needed, 1e-6 * needed))


def sweep(machine: Machine, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setattr(attention_sweep, "isolated", machine.isolated)
    rows: list[dict[str, Any]] = []
    for shape in plan.shapes():
        rows += measure_shape(plan, shape, rows, build=lambda *_: None)  # type: ignore[arg-type, return-value]
    return rows


def test_every_case_at_every_shape_is_a_row_with_the_same_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sweep(Machine(), PLAN, monkeypatch)
    assert len(rows) == 3 * 4
    assert len({tuple(row) for row in rows}) == 1
    assert {row["status"] for row in rows} == {"ok"}
    ours = next(row for row in rows if row["attention"] == "ours" and row["length"] == 200 and row["pass"] == BOTH)
    assert ours["seconds"] == pytest.approx(200e-6)
    assert ours["ratio"] == pytest.approx(200 / 200**2)
    assert (ours["memory_bytes"], ours["resident_bytes"], ours["samples"]) == (200, 400, 3)
    assert (ours["batch"], ours["heads"], ours["head_size"], ours["dtype"]) == (1, 2, 8, "float32")


def test_memory_is_measured_apart_and_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    sweep(machine, replace(PLAN, lengths=(100,)), monkeypatch)
    cases = PLAN.cases()
    assert machine.asked == [*(("memory_of", [case], 100) for case in cases), ("seconds_of", cases, 100)]


def test_on_a_gpu_one_process_measures_all_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    sweep(machine, replace(PLAN, lengths=(100,), device="cuda"), monkeypatch)
    assert [what for what, _, _ in machine.asked] == ["memory_of", "seconds_of"]


def test_out_of_memory_is_a_row_and_ends_its_line_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sweep(Machine(memory=30_000), replace(PLAN, lengths=(400, 100, 200)), monkeypatch)
    found = {(row["attention"], row["length"]): row for row in rows if row["pass"] == FORWARD}
    assert [found["sdpa", n]["status"] for n in (100, 200, 400)] == ["ok", "out of memory", "skipped"]
    assert found["sdpa", 200]["needed_bytes"] == 40_000
    assert found["sdpa", 200]["seconds"] is None
    assert found["sdpa", 400]["reason"] == "out of memory at N = 200 already"
    assert [found["ours", n]["status"] for n in (100, 200, 400)] == ["ok", "ok", "ok"]
    assert found["ours", 400]["ratio"] is None  # there is nothing to compare with


def test_what_would_take_too_long_is_a_row_and_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    rows = sweep(machine, replace(PLAN, passes=(BOTH,), max_seconds=0.05), monkeypatch)
    found = {(row["attention"], row["length"]): row for row in rows}
    assert [found["sdpa", n]["status"] for n in (100, 200, 400)] == ["ok", "ok", "too slow"]
    assert found["sdpa", 400]["reason"] == "not tried: a pass would take about 0.16 s, more than 0.05 s"
    assert ("memory_of", [("sdpa", BOTH)], 400) not in machine.asked
    assert found["ours", 400]["status"] == "ok"


def test_a_first_pass_that_took_too_long_is_not_repeated_and_keeps_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sweep(Machine(), replace(PLAN, passes=(BOTH,), lengths=(400,), max_seconds=0.05), monkeypatch)
    sdpa, ours = rows
    assert (sdpa["status"], sdpa["memory_bytes"]) == ("too slow", 160_000)
    assert sdpa["reason"] == "not timed: one pass took 0.16 s, more than 0.05 s"
    assert ours["status"] == "ok"


def test_a_process_that_died_fails_its_own_rows_and_the_sweep_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Crashing(Machine):
        def isolated(
            self, function: Callable, shape: Shape, cases: list[Case], *_: object, time_limit: float
        ) -> Outcome:
            if cases == [("ours", FORWARD)] and shape.length == 100:
                return Outcome("failed", reason="the process was ended by SIGSEGV")
            return super().isolated(function, shape, cases, time_limit=time_limit)

    rows = sweep(Crashing(), replace(PLAN, lengths=(100, 200)), monkeypatch)
    bad = [row for row in rows if row["status"] != "ok"]
    assert [(row["attention"], row["pass"], row["length"]) for row in bad] == [("ours", FORWARD, 100)]
    assert bad[0]["reason"] == "the process was ended by SIGSEGV"


def test_a_line_that_was_stopped_is_not_tried_again() -> None:
    stopped = row(100, status="too slow", reason="stopped after 70 s")
    assert why_not([stopped], 200, 10.0) == {"status": "skipped", "reason": "too slow at N = 100 already"}
    assert why_not([row(100, seconds=1.0)], 200, 10.0) == {}
    assert why_not([row(100, status="failed")], 200, 10.0) == {}
    assert why_not([], 200, 10.0) == {}


def test_a_first_pass_stands_in_where_nothing_was_timed() -> None:
    slow = row(100, status="too slow", first_pass_seconds=20.0)
    assert why_not([row(100, seconds=2.0)], 400, 10.0) == {}  # of one length nobody knows how it grows
    assert why_not([slow], 200, 10.0)["reason"] == "not tried: a pass would take about 40 s, more than 10 s"


def test_exponents_are_fitted_over_the_large_lengths_of_each_line() -> None:
    linear = [row(n, seconds=1e-6 * n, memory_bytes=8 * n) for n in (2048, 4096, 65536)]
    small = [row(12, seconds=1.0, memory_bytes=10**9)]
    quadratic = [row(n, attention="sdpa", seconds=1e-9 * n * n, memory_bytes=0) for n in (2048, 4096)]
    alone = [row(2048, attention="alone", seconds=1.0, memory_bytes=1)]
    ours, sdpa = attention_fits([*small, *linear, *quadratic, *alone], 2048)
    assert ours["time_exponent"] == pytest.approx(1.0)
    assert ours["memory_exponent"] == pytest.approx(1.0)
    assert (ours["attention"], ours["from_length"], ours["to_length"]) == ("ours", 2048, 65536)
    assert sdpa["time_exponent"] == pytest.approx(2.0)
    assert sdpa["memory_exponent"] is None  # nothing was allocated


def test_shapes_rise_in_n_within_each_group() -> None:
    plan = replace(PLAN, lengths=(400, 100), head_sizes=(8, 16), dtypes=("float32", "float64"))
    found = [(shape.dtype, shape.head_size, shape.length) for shape in plan.shapes()]
    assert found[:4] == [("float32", 8, 100), ("float32", 8, 400), ("float32", 16, 100), ("float32", 16, 400)]
    assert len(found) == 8


def test_rows_of_a_shape_are_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(PLAN, head_sizes=(8, 16))
    rows = sweep(Machine(), plan, monkeypatch)
    for shape in plan.shapes():
        assert [(row["length"], row["head_size"]) for row in rows_at(shape, rows)] == [
            (shape.length, shape.head_size)
        ] * 4


def test_the_time_left_falls_to_nothing_and_follows_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = PLAN.shapes()
    rows = sweep(Machine(), replace(PLAN, lengths=(100, 200)), monkeypatch)
    assert seconds_left(PLAN, [], rows) == 0
    assert seconds_left(PLAN, shapes, []) > seconds_left(PLAN, shapes[1:], []) > 4 * PLAN.seconds
    far = [replace(shapes[0], length=2000)]
    assert seconds_left(PLAN, far, rows) > 2 * (PLAN.repeats * 4.0)  # sdpa, both passes: 4 s each
