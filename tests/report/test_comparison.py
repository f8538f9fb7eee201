"""Tables and figures of comparisons: means over seeds, marks, failures as lines, points where the numbers say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Annotation

from ealinformer.report.comparison import best_marks, comparison_page, measured_on, summaries
from ealinformer.report.comparison_figure import LARGEST, build_comparison_figure, comparison_figure

CPU = {"cpu": "a processor", "cores": 4, "threads": 2, "gpus": []}


def row(model: str, mae: float | None, *, seed: int = 1, **values: Any) -> dict[str, Any]:
    average = {"MAE": mae, "RMSE": None if mae is None else 2 * mae, "MAPE": 12.5}
    return {
        "model": model,
        "seed": seed,
        "average": average,
        "parameters": 1234,
        "seconds_per_epoch": 3.0,
        "peak_memory_mib": 100.0,
        "peak_memory_of": "RSS over the start",
        "epochs": 2,
        "complete": True,
        "stopped_by": "all epochs done",
        "recipe": "demo",
        "machine": CPU,
        "versions": {"torch": "2.6.0"},
        **values,
    }


def failure(model: str, reason: str, seed: int = 1) -> dict[str, Any]:
    return {"model": model, "seed": seed, "reason": reason}


def page(rows: list[dict], failures: list[dict] = [], models: tuple[str, ...] = ("A", "B", "C")) -> list[str]:  # noqa: B006
    return comparison_page(rows, failures, models=models, title="a title").splitlines()


def test_each_model_has_a_line_in_the_order_asked_for() -> None:
    lines = page([row("B", 20.0), row("A", 19.5, parameters=1234567), row("C", 30.0)])
    assert lines[0] == "a title"
    assert [line.split() for line in lines[4:7]] == [
        ["A", "**19.50", "**39.00", "**12.50", "1,234,567", "3.0", "100", "2", "demo"],
        ["B", "*20.00", "*40.00", "**12.50", "1,234", "3.0", "100", "2", "demo"],
        ["C", "30.00", "60.00", "**12.50", "1,234", "3.0", "100", "2", "demo"],
    ]
    assert lines[8] == "** best, * second best"
    assert lines[9] == "measured on a processor, 2 threads on 4 cores, no GPU; torch 2.6.0; MiB are RSS over the start"


def test_what_prints_alike_shares_a_mark() -> None:
    assert best_marks([2.004, 1.001, None, 1.004, 3.0, 2.0]) == ["*", "**", "", "**", "", "*"]


def test_a_single_value_is_not_the_best_of_anything() -> None:
    assert best_marks([1.0]) == [""]
    assert best_marks([None, 1.0, None]) == ["", "", ""]
    assert best_marks([]) == []


def test_seeds_become_a_mean_with_its_deviation() -> None:
    rows = [row("A", 19.0, seed=1), row("A", 21.0, seed=2, seconds_per_epoch=5.0, epochs=4), row("B", 19.9)]
    first, second = page(rows, models=("A", "B"))[4:6]
    # The sample's deviation, of 2 degrees less 1: sqrt(2).
    assert first.split()[1:4] == ["*20.00", "±", "1.41"]
    assert first.split()[-6:] == ["4.0", "100", "2-4", "demo", "2", "seeds"]
    assert second.split()[1] == "**19.90"


def test_runs_of_one_seed_are_not_called_seeds() -> None:
    (one,) = summaries([row("A", 19.0), row("A", 21.0)])
    assert one["note"] == "2 runs"


def test_a_number_that_one_seed_lacks_has_no_mean() -> None:
    (one,) = summaries([row("A", 19.0), row("A", None, seed=2), row("A", 20.0, seed=3)])
    assert (one["MAE"], one["MAE_deviation"]) == (None, None)


def test_a_model_that_failed_is_a_line_that_says_why() -> None:
    lines = page([row("A", 19.0), row("C", 20.0)], [failure("B", "out of memory: B with 883 sensors")])
    assert lines[2].endswith("note")
    assert lines[5].split() == ["B", *"--------", "seed", "1:", "out", "of", "memory:", "B", "with", "883", "sensors"]
    assert lines[4].endswith("demo    -")


def test_a_seed_that_failed_is_told_beside_the_mean_of_the_others() -> None:
    lines = page([row("A", 19.0), row("A", 20.0, seed=3)], [failure("A", "no luck", seed=2)], models=("A",))
    assert lines[4].endswith("2 seeds; seed 2: no luck")


def test_a_long_reason_is_cut_in_the_table() -> None:
    line = page([], [failure("A", "x" * 500)], models=("A",))[4]
    assert len(line) < 220
    assert line.endswith("x ...")


def test_without_any_result_the_table_holds_reasons_alone() -> None:
    lines = page([], [failure("A", "no luck"), failure("B", "no luck either")], models=("A", "B"))
    assert len(lines) == 6
    assert lines[5].endswith("seed 1: no luck either")


def test_a_run_that_was_cut_short_or_moved_says_so() -> None:
    cut = row("A", 19.0, complete=False, stopped_by="--max-steps 9")
    moved = row("B", 19.0, resumed=[{"commit": "abc"}])
    lines = page([cut, moved], models=("A", "B"))
    assert lines[4].endswith("INCOMPLETE: --max-steps 9")
    assert lines[5].endswith("resumed with other code or on another machine")


def test_two_machines_do_not_compare() -> None:
    other = {**CPU, "gpus": ["a card"]}
    said = measured_on([row("A", 1.0), row("B", 1.0, machine=other), row("C", 1.0)])
    assert said[0] == "measured in different places: seconds and MiB do NOT compare"
    assert said[1].startswith("  A, C: a processor")
    assert said[2].startswith("  B: a processor, 2 threads on 4 cores, a card")


# Figure


def names(figure: Figure) -> dict[str, Annotation]:
    (axes,) = figure.axes
    return {text.get_text(): text for text in axes.texts if isinstance(text, Annotation)}


def test_a_point_stands_at_seconds_and_error_and_its_area_is_memory() -> None:
    rows = [
        row("A", 19.0, seconds_per_epoch=2.0, peak_memory_mib=400.0),
        row("B", 21.0, seconds_per_epoch=200.0, peak_memory_mib=100.0),
        row("B", 23.0, seconds_per_epoch=100.0, peak_memory_mib=100.0, seed=2),
    ]
    figure = build_comparison_figure(rows, unit="vehicles", note="simulated series")
    (axes,) = figure.axes
    points = {line.get_label(): line for line in axes.get_lines()}
    assert {name: (line.get_xdata()[0], line.get_ydata()[0]) for name, line in points.items()} == {
        "A": (2.0, 19.0),
        "B": (150.0, 22.0),
    }
    assert axes.get_xscale() == "log"
    assert points["A"].get_markersize() == LARGEST
    assert points["A"].get_markersize() / points["B"].get_markersize() == pytest.approx(2)
    assert axes.get_ylabel() == "MAE (vehicles)"
    assert figure.get_suptitle() == "simulated series"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["peak memory 400 MiB", "peak memory 100 MiB"]


def test_what_was_not_measured_has_no_point() -> None:
    rows = [row("A", 19.0), row("B", 20.0, seconds_per_epoch=None), row("C", None)]
    assert list(names(build_comparison_figure(rows, unit="v"))) == ["A"]
    with pytest.raises(ValueError, match="nothing to draw in 1 rows"):
        build_comparison_figure(rows[1:2], unit="v")


def test_memory_that_is_not_known_is_drawn_as_the_smallest_point() -> None:
    figure = build_comparison_figure([row("A", 19.0, peak_memory_mib=None)], unit="v")
    assert list(names(figure)) == ["A"]
    assert not figure.legends


def test_no_name_covers_another() -> None:
    rng = np.random.default_rng(3)
    rows = [
        row(f"MODEL{i}", 19 + 3 * rng.random(), seconds_per_epoch=10 ** (3 * rng.random()), peak_memory_mib=100.0 * i)
        for i in range(1, 13)
    ]
    figure = build_comparison_figure(rows, unit="v")
    boxes = [name.get_window_extent() for name in names(figure).values()]
    assert len(boxes) == 12
    assert not [1 for i, one in enumerate(boxes) for other in boxes[:i] if one.overlaps(other)]
    (axes,) = figure.axes
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_the_figure_is_a_png_that_shows_more_than_paper(tmp_path: Path) -> None:
    path = comparison_figure([row("A", 19.0), row("B", 21.0)], tmp_path / "new" / "figure.png", unit="v")
    pixels = imread(path)
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 10
