"""Tables and figures of what models cost, and that gaps are said and not drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from ealinformer.report.performance import ceilings_line, epoch_table, model_fits_table, model_scaling_table, step_table
from ealinformer.report.performance_figures import (
    PHASES,
    build_phases_figure,
    build_roofline_figure,
    phases_figure,
    roofline_figure,
)
from ealinformer.report.scaling import build_scaling_figure

CEILINGS = {"dtype": "float32", "flops_per_second": 90e9, "bytes_per_second": 20e9}


def step_row(model: str, seconds: float | None, **values: Any) -> dict[str, Any]:
    phases = {f"{phase}_seconds": None if seconds is None else seconds / 4 for phase in PHASES}
    nothing = dict.fromkeys(("ratio", "ratio_p20", "ratio_p80", "ratio_to_second", "memory_ratio", "needed_bytes"))
    size = {"memory_bytes": 3 * 2**20, "resident_bytes": 5 * 2**20, "reserved_bytes": None}
    counted = {"flops": 4e9, "bytes": 1e9, "flop_per_byte": 4.0, "roofline_seconds": 0.05, "roofline_share": 0.25}
    shape = {"dataset_shape": "PEMS08", "num_sensors": 170, "model": model, "status": "ok", "reason": None}
    return {**shape, **nothing, **size, **counted, **phases, "seconds": seconds, **values}


def without_memory(model: str) -> dict[str, Any]:
    gone = dict.fromkeys(("memory_bytes", "resident_bytes", "flops", "bytes", "flop_per_byte", "roofline_seconds"))
    return step_row(model, None, status="out of memory", reason="no", needed_bytes=2**34, **gone)


ROWS = [without_memory("explicit"), step_row("fused", 0.4, ratio=1.0), step_row("ours", 0.2, ratio=0.5)]


def test_a_step_has_a_table_of_costs_and_one_of_phases() -> None:
    costs, phases = step_table(ROWS, title="PEMS08").split("\n\n")[1:]
    lines = costs.split("\n")
    assert lines[2].endswith("out of memory: needs at least 16,384 MiB")
    assert lines[4].split()[:2] == ["ours", "0.200"]
    assert [line.split()[0] for line in phases.split("\n")[2:]] == ["fused", "ours"]
    assert phases.split("\n")[2].split()[1:] == [
        "0.1000",
        "0.100",
        "0.100",
        "0.1000",
        "4.0",
        "1.00",
        "4.0",
        "0.050",
        "25%",
    ]


def test_what_a_gpu_reserved_stands_for_what_the_system_saw() -> None:
    text = step_table([step_row("ours", 0.2, resident_bytes=None, reserved_bytes=7 * 2**20)], title="x")
    assert text.split("\n")[4].split()[-2] == "7"


def test_ceilings_are_said_in_words() -> None:
    assert ceilings_line(CEILINGS) == "measured ceilings: 90.0 GFLOP/s (float32), 20.0 GB/s"


def test_epochs_name_model_and_loop() -> None:
    row = {"model": "ours", "runner": "stock", "status": "ok", "epoch_seconds": 2.0, "ratio": 0.5, "overhead": 0.031}
    failed = {"model": "explicit", "runner": "stock", "status": "failed", "reason": "no luck", "needed_bytes": None}
    lines = epoch_table([row, failed], title="x").split("\n")
    assert lines[4].split() == ["ours,", "stock", "2.00", "0.500", "-", "-", "3.1%", "-", "-"]
    assert lines[5].endswith("failed: no luck")


def scaling_row(length: int, **values: Any) -> dict[str, Any]:
    measured = {"seconds": 1e-3 * length, "seconds_p20": 1e-3, "seconds_p80": 2e-3, "memory_bytes": 2**20 * length}
    rest = {"resident_bytes": None, "reserved_bytes": None, "needed_bytes": None, "status": "ok", "reason": None}
    return {"model": "ours", "pass": "train step", "length": length, **measured, **rest, **values}


def test_models_over_n_have_a_table_and_exponents() -> None:
    rows = [
        scaling_row(2048),
        scaling_row(4096, status="skipped", reason="too slow at N = 2,048 already", seconds=None),
    ]
    lines = model_scaling_table(rows, title="x").split("\n")
    assert lines[4].split()[:5] == ["ours", "train", "step", "2,048", "2.048"]
    assert lines[5].endswith("skipped: too slow at N = 2,048 already")
    fit = {"model": "ours", "pass": "train step", "from_length": 2048, "to_length": 4096, "time_exponent": 1.021}
    assert model_fits_table([fit]).split("\n")[4].split()[-4:] == ["2,048", "4,096", "1.021", "-"]


def test_exponents_stand_behind_the_names_of_whole_models() -> None:
    rows = [{**scaling_row(n), "attention": "ours"} for n in (2048, 4096)]
    fit = {"attention": "ours", "pass": "train step", "time_exponent": 1.021, "memory_exponent": 0.95}
    figure = build_scaling_figure(rows, fits=[fit])
    labels = [axes.get_lines()[0].get_label() for axes in figure.axes]
    assert labels == ["ours: $N^{1.02}$", "ours: $N^{0.95}$"]
    assert figure.axes[1].get_ylabel() == "peak memory (MiB)"


def test_bars_are_as_long_as_the_phases_and_gaps_are_named() -> None:
    figure = build_phases_figure(ROWS)
    (axes,) = figure.axes
    ends = {bar.get_y() + bar.get_height() / 2: bar.get_x() + bar.get_width() for bar in axes.patches}
    assert ends == pytest.approx({1.0: 0.4, 2.0: 0.2})
    assert len(axes.patches) == 2 * len(PHASES)
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["out of memory", "0.40 s  (1.00)", "0.20 s  (0.50)"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["explicit", "fused", "ours"]


def test_dots_lie_at_intensity_and_rate_below_the_ceilings() -> None:
    (axes,) = build_roofline_figure(ROWS, CEILINGS).axes
    dots = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    assert [line.get_xdata()[0] for line in dots] == pytest.approx([4.0, 4.0])
    assert [line.get_ydata()[0] for line in dots] == pytest.approx([10.0, 20.0])
    (roof,) = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
    assert roof.get_xdata()[1] == pytest.approx(4.5)
    assert list(roof.get_ydata())[1:] == [90, 90]
    assert roof.get_ydata()[0] == pytest.approx(roof.get_xdata()[0] * 20)


@pytest.mark.parametrize("figure", [phases_figure, roofline_figure])
def test_figures_are_written_whole_and_need_a_measurement(figure: Any, tmp_path: Path) -> None:
    path = figure({"rows": ROWS, "ceilings": CEILINGS}, tmp_path / "new" / "step.png", note="random values")
    assert np.ptp(imread(path)) > 0
    with pytest.raises(ValueError, match="nothing was timed in 1 rows"):
        figure({"rows": ROWS[:1], "ceilings": CEILINGS}, tmp_path / "none.png")
