"""The figure of time and memory over N: log-log, named lines, and lines that end where memory did."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from ealinformer.report.scaling import build_scaling_figure, scaling_figure

MIB = 2**20
LENGTHS = (170, 883, 2048, 8192)


def rows(passes: tuple[str, ...] = ("forward",)) -> list[dict[str, Any]]:
    """Softmax runs out of memory after 2,048, sdpa out of time; ours goes all the way."""
    found = []
    for kind in passes:
        for length in LENGTHS:
            for name, end in (("ours", None), ("softmax", "out of memory"), ("sdpa", "too slow")):
                row = {"attention": name, "pass": kind, "length": length, "status": "ok"}
                power = 1 if name == "ours" else 2
                row |= {"seconds": 1e-6 * length**power, "memory_bytes": 8 * length**power}
                if end and length > 2048:
                    row |= {"status": end, "seconds": None, "memory_bytes": None}
                found.append(row)
    return found


def lines(axes: Axes) -> dict[str, Any]:
    """Lines by name, those named elsewhere too."""
    return {str(line.get_label()).lstrip("_"): line for line in axes.get_lines() if line.get_label() != "_end"}


def ends(axes: Axes) -> list[tuple[str, float]]:
    return [(line.get_marker(), line.get_xdata()[0]) for line in axes.get_lines() if line.get_label() == "_end"]


def names(axes: Axes) -> set[str]:
    return {text.get_text() for text in axes.texts}


def test_time_and_memory_stand_side_by_side_in_log_log() -> None:
    time, memory = build_scaling_figure(rows()).axes
    assert {axes.get_xscale() for axes in (time, memory)} == {axes.get_yscale() for axes in (time, memory)} == {"log"}
    np.testing.assert_array_equal(lines(time)["ours"].get_xdata(), LENGTHS)
    np.testing.assert_allclose(lines(time)["ours"].get_ydata(), [1e-3 * n for n in LENGTHS])
    np.testing.assert_allclose(lines(memory)["softmax"].get_ydata(), [8 * n * n / MIB for n in LENGTHS[:3]])
    assert time.get_ylabel().endswith("(ms)")
    assert memory.get_ylabel().endswith("(MiB)")


def test_a_line_ends_where_memory_or_time_did() -> None:
    figure = build_scaling_figure(rows())
    for axes in figure.axes:
        assert ends(axes) == [("X", 2048), ("|", 2048)]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[1:] == ["the next N ran out of memory", "the next N would take too long"]


def test_no_end_no_mark() -> None:
    figure = build_scaling_figure([row for row in rows() if row["attention"] == "ours"])
    assert ends(figure.axes[0]) == []
    assert len(figure.legends[0].get_texts()) == 1


def test_every_line_is_named_once_in_its_colour() -> None:
    for axes in build_scaling_figure(rows()).axes:
        assert sorted(text.get_text() for text in axes.texts) == ["ours", "sdpa", "softmax"]
        for text in axes.texts:
            assert text.get_color() == lines(axes)[text.get_text()].get_color()


def test_ten_lines_can_be_told_apart() -> None:
    many = [{**row, "attention": f"{row['attention']} {place}"} for place in range(4) for row in rows()]
    drawn = lines(build_scaling_figure(many).axes[0])
    assert len(drawn) == 12
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in drawn.values()}) == 12
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn.values()}) == 12


def test_each_pass_has_its_row_of_panels() -> None:
    figure = build_scaling_figure(rows(("forward", "forward+backward")), note="batch 8")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["forward"] * 2 + ["forward+backward"] * 2
    assert figure.get_suptitle() == "batch 8"


def test_the_limit_is_drawn_across_the_memory_and_in_view() -> None:
    time, memory = build_scaling_figure(rows(), memory_limit=16 * 2**30).axes
    assert "limit 16 GiB" in names(memory)
    assert "limit 16 GiB" not in names(time)
    assert memory.get_ylim()[1] > 16 * 1024


def test_lengths_are_the_ticks_and_crowded_ones_give_way() -> None:
    crowded = [{**row, "length": length} for row in rows()[:1] for length in (100, 120, 170, 883)]
    time, _ = build_scaling_figure(crowded).axes
    assert sorted(time.get_xticks()) == [100, 170, 883]


def test_nothing_allocated_is_no_point_and_no_error() -> None:
    nothing = [{**row, "attention": "identity", "memory_bytes": 0} for row in rows() if row["attention"] == "ours"]
    time, memory = build_scaling_figure([*rows(), *nothing]).axes
    assert "identity" in lines(time)
    assert "identity" not in lines(memory)


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was measured in 3 rows"):
        build_scaling_figure([{**row, "memory_bytes": None} for row in rows()[:3]])


def test_the_figure_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cpu.png"
    assert scaling_figure(rows(), path, note="batch 8") == path
    assert imread(path)[..., :3].std() > 0.02
    assert [child.name for child in path.parent.iterdir()] == ["cpu.png"]
    assert isinstance(build_scaling_figure(rows()), Figure)
