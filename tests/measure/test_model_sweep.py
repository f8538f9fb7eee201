"""Models side by side: one row each with the same keys, in units of the references, whatever happens to some."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from ealinformer.measure import model_sweep
from ealinformer.measure.ceilings import Ceilings
from ealinformer.measure.counts import Counts
from ealinformer.measure.isolated import Outcome
from ealinformer.measure.model_sweep import Plan, measure_models
from ealinformer.measure.peak import Memory
from ealinformer.measure.timing import Samples
from ealinformer.measure.train_step import PHASES, Setting
from tests.measure.tiny import build

SETTING = Setting(num_sensors=40, batch_size=2, threads=torch.get_num_threads())
CEILINGS = Ceilings("float32", flops_per_second=1e9, bytes_per_second=1e9, gemm_side=1, copy_bytes=1)
PLAN = Plan(("mixing", "scaling"), ("mixing", "scaling"), rounds=2, max_seconds=60.0, memory_limit=None)


def test_rows_of_real_processes() -> None:
    told: list[str] = []
    plan = replace(PLAN, models=("mixing", "scaling", "greedy", "broken"))
    mixing, scaling, greedy, broken = measure_models(plan, SETTING, CEILINGS, build, told.append)
    assert told == [*(f"memory, {name}" for name in plan.models), "time, 2 in turns"]
    assert mixing.keys() == scaling.keys() == greedy.keys() == broken.keys()
    assert [row["status"] for row in (mixing, scaling, greedy, broken)] == ["ok", "ok", "out of memory", "failed"]
    assert (mixing["ratio"], mixing["memory_ratio"], scaling["ratio_to_second"]) == (1, 1, 1)
    assert scaling["memory_ratio"] < 1
    assert scaling["flops"] == 0
    assert mixing["flops"] == 2 * 2 * 24 * 40 * 40
    assert mixing["roofline_share"] == pytest.approx(mixing["roofline_seconds"] / mixing["seconds"])
    assert 0 < mixing["forward_seconds_p20"] <= mixing["forward_seconds"] <= mixing["forward_seconds_p80"]
    assert greedy["needed_bytes"] > 2**50
    assert greedy["seconds"] is greedy["ratio"] is None
    assert broken["reason"] == "ValueError: no such sensor"


class Machine:
    """Stands for the processes: a model takes what its name says, and at most `together` of them at once.

    What it took its process keeps, at most `room`.
    """

    def __init__(self, together: int = 9, room: int = 99) -> None:
        self.together, self.room, self.timed = together, room, [[""]]

    def isolated(
        self, function: Callable, setting: Setting, names: Any, *_: object, time_limit: float | None
    ) -> Outcome:
        if function.__name__ == "memory_and_counts":
            size = int(names)
            return Outcome("ok", (Outcome("ok", Memory(size, 2 * size, 1.0)), Outcome("ok", Counts(size, size))))
        self.timed.append(list(names))
        if len(names) > self.together:
            return Outcome("out of memory", reason="killed")
        phases = {phase: [0.1, 0.2, 0.3] for phase in PHASES}
        outcomes, kept = {}, 0
        for name in names:
            kept += int(name)
            samples = Outcome("ok", (Samples([[int(name)]] * 3, 1), phases))
            outcomes[name] = samples if kept <= self.room else Outcome("out of memory", None, "lacks 1 byte", 1)
        return Outcome("ok", outcomes)


def test_ratios_are_to_both_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_sweep, "isolated", Machine().isolated)
    plan = replace(PLAN, models=("8", "4", "2"), references=("8", "4"))
    rows = measure_models(plan, SETTING, CEILINGS, build)
    assert [row["ratio"] for row in rows] == [1, 0.5, 0.25]
    assert [row["ratio_to_second"] for row in rows] == [2, 1, 0.5]
    assert [row["memory_ratio"] for row in rows] == [1, 0.5, 0.25]
    assert rows[0]["optimizer_seconds"] == 0.2


def test_where_all_together_do_not_fit_the_largest_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(together=2)
    monkeypatch.setattr(model_sweep, "isolated", machine.isolated)
    plan = replace(PLAN, models=("2", "8", "4"), references=("8", "4"))
    small, large, middle = measure_models(plan, SETTING, CEILINGS, build)
    assert machine.timed[1:] == [["2", "8", "4"], ["2", "4"]]
    assert (large["status"], large["seconds"], large["memory_bytes"]) == ("out of memory", None, 8)
    assert (small["status"], middle["status"]) == ("ok", "ok")
    assert small["ratio"] is None  # against nothing
    assert small["ratio_to_second"] == 0.5
    assert small["memory_ratio"] == 0.25  # memory was measured


def test_a_model_that_does_not_fit_beside_others_leaves_them_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(room=7)
    monkeypatch.setattr(model_sweep, "isolated", machine.isolated)
    plan = replace(PLAN, models=("8", "4", "2"), references=("8", "4"))
    large, middle, small = measure_models(plan, SETTING, CEILINGS, build)
    assert machine.timed[1:] == [["8", "4", "2"], ["4", "2"]]
    assert (large["status"], large["seconds"], large["needed_bytes"]) == ("out of memory", None, None)
    assert large["reason"] == "in turns with others, as freed memory is kept; alone it fits"
    assert (middle["status"], small["status"], small["ratio_to_second"]) == ("ok", "ok", 0.5)


def test_a_step_that_takes_too_long_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr(model_sweep, "isolated", machine.isolated)
    (row,) = measure_models(replace(PLAN, models=("8",), max_seconds=0.5), SETTING, CEILINGS, build)
    assert (row["status"], row["memory_bytes"], len(machine.timed)) == ("too slow", 8, 1)
