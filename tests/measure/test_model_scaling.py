"""Whole models over N in real processes: memory as it has to grow, and rows for what cannot be."""

from dataclasses import replace

import pytest
import torch

from ealinformer.measure.model_scaling import INFERENCE, LINE, TRAIN, Plan, cost_of, measure_scaling, work_of
from ealinformer.measure.rows import fits_of
from ealinformer.measure.train_step import Readings, Setting
from tests.measure.tiny import Scaling, build

SETTING = Setting(num_sensors=0, batch_size=2, threads=torch.get_num_threads())
PLAN = Plan(
    models=("scaling", "greedy"),
    passes=(TRAIN, INFERENCE),
    lengths=(5000, 10, 10000),
    setting=SETTING,
    rounds=2,
    max_seconds=1e6,  # from 10 to 5,000 sensors a step is taken to grow by their square
    memory_limit=None,
)


def test_every_case_is_a_row_and_out_of_memory_ends_its_line_alone() -> None:
    rows = list(measure_scaling(PLAN, build))
    assert len({tuple(row) for row in rows}) == 1
    found = {(row["model"], row["pass"], row["length"]): row for row in rows}
    assert list(found) == [(name, kind, n) for n in (10, 5000, 10000) for kind in PLAN.passes for name in PLAN.models]
    assert [found["greedy", TRAIN, n]["status"] for n in (10, 5000, 10000)] == ["ok", "out of memory", "skipped"]
    assert {row["status"] for row in rows if row["model"] == "scaling"} == {"ok"}
    train, inference = (found["scaling", kind, 10000] for kind in PLAN.passes)
    assert train["memory_bytes"] > inference["memory_bytes"] > 4 * 2 * 12 * 10000
    assert 0 < train["seconds_p20"] <= train["seconds"] <= train["seconds_p80"]
    fits = fits_of(rows, 5000, LINE)
    assert [fit["memory_exponent"] for fit in fits if fit["model"] == "scaling"] == pytest.approx([1, 1], abs=0.01)


def test_what_took_too_long_is_not_timed() -> None:
    (row,) = measure_scaling(
        replace(PLAN, models=("scaling",), passes=(TRAIN,), lengths=(50,), max_seconds=1e-9), build
    )
    assert row["status"] == "too slow"
    assert row["memory_bytes"] > 0
    assert row["seconds"] is None


def test_a_forecast_is_without_gradients_and_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def forward(model: Scaling, inputs: torch.Tensor, timestamps: torch.Tensor) -> torch.Tensor:
        seen.append((model.training, torch.is_grad_enabled()))
        return inputs * model.weight

    monkeypatch.setattr(Scaling, "forward", forward)
    setting = replace(SETTING, num_sensors=5)
    for kind in PLAN.passes:
        work_of(setting, "scaling", kind, build, Readings(setting))()
    assert seen == [(True, True), (False, False)]


def test_both_outcomes_say_that_memory_ran_out() -> None:
    memory, samples = cost_of(replace(SETTING, num_sensors=30), "greedy", TRAIN, build, None, 2, 60.0)
    assert memory.status == samples.status == "out of memory"
