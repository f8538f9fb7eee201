"""Robustness row to tables and figure: which number stands where, and what a reader has to be told."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ealinformer.report.robustness import build_robustness_figure, robustness_figure, robustness_tables


def scored(label: str, mae: float | None, lost: float = 0.0, **about: Any) -> dict[str, Any]:
    other = None if mae is None else mae + 1
    return {"label": label, **about, "MAE": mae, "RMSE": other, "MAPE": other, "lost_share": lost, "seconds": 1.0}


def noisy(label: str, strength: float, mae: float | None) -> dict[str, Any]:
    return scored(label, mae, perturbation="noise", strength=strength)


@pytest.fixture
def row() -> dict[str, Any]:
    """Two models; noise and missing readings, eps for the second, and other attentions for both."""
    return {
        "dataset": "DEMO",
        "simulated": True,
        "unit": "vehicles",
        "split": "test",
        "windows": 20,
        "output_len": 3,
        "training_std": 50.0,
        "held_at_zero": True,
        "perturbations": {
            "noise": {"meaning": "noise at every reading", "axis": "std of the noise"},
            "missing": {"meaning": "readings missing", "axis": "share missing"},
        },
        "checkpoints": [{"label": "softmax"}, {"label": "linear"}],
        "perturbed": [
            noisy("softmax", 0.0, 10.0),
            noisy("softmax", 1.0, 15.0),
            scored("softmax", 10.0, perturbation="missing", strength=0.0),
            scored("softmax", 12.0, 0.21, perturbation="missing", strength=0.2),
            noisy("linear", 0.0, 20.0),
            noisy("linear", 1.0, 22.0),
            scored("linear", 20.0, perturbation="missing", strength=0.0),
            scored("linear", None, 0.21, perturbation="missing", strength=0.2),
        ],
        "eps": [
            scored("linear", 20.0, eps=1e-8, trained=True),
            scored("linear", 30.0, eps=3.0, trained=False),
        ],
        "swaps": [
            scored("softmax", 10.0, attention="softmax", trained=True),
            scored("softmax", 11.0, attention="taylor", trained=False),
            scored("linear", 20.0, attention="taylor", trained=True),
            scored("linear", 19.0, attention="softmax", trained=False),
        ],
    }


def cells(table: str) -> list[list[str]]:
    """The body of a table under its rule."""
    lines = table.split("\n")
    rule = next(number for number, line in enumerate(lines) if line.startswith("---"))
    return [line.split() for line in lines[rule + 1 :]]


def line(axes: Axes, label: str) -> Line2D:
    (found,) = [drawn for drawn in axes.get_lines() if drawn.get_label() == label]
    return found


def test_the_first_table_has_the_models_side_by_side_at_every_strength(row) -> None:
    table, notes, *_ = robustness_tables(row).split("\n\n")[1:]
    assert " ".join(table.split("\n")[0].split()) == "inputs strength model MAE RMSE MAPE % MAE +% lost %"
    assert cells(table) == [
        ["noise", "0", "softmax", "10.0000", "11.0000", "11.0000", "+0.0", "0.0"],
        ["noise", "0", "linear", "20.0000", "21.0000", "21.0000", "+0.0", "0.0"],
        ["noise", "1", "softmax", "15.0000", "16.0000", "16.0000", "+50.0", "0.0"],
        ["noise", "1", "linear", "22.0000", "23.0000", "23.0000", "+10.0", "0.0"],
        ["missing", "0", "softmax", "10.0000", "11.0000", "11.0000", "+0.0", "0.0"],
        ["missing", "0", "linear", "20.0000", "21.0000", "21.0000", "+0.0", "0.0"],
        ["missing", "0.2", "softmax", "12.0000", "13.0000", "13.0000", "+20.0", "21.0"],
        ["missing", "0.2", "linear", "-", "-", "-", "-", "21.0"],
    ]
    assert "noise: noise at every reading" in notes
    assert "50.00 vehicles" in notes
    assert "made missing or held at 0" in notes


def test_the_other_tables_compare_with_what_was_trained(row) -> None:
    blocks = robustness_tables(row).split("\n\n")
    assert cells(blocks[4]) == [
        ["linear", "1e-08", "20.0000", "21.0000", "21.0000", "+0.0", "trained"],
        ["linear", "3", "30.0000", "31.0000", "31.0000", "+50.0"],
    ]
    assert [(r[0], r[1], *r[5:]) for r in cells(blocks[6])] == [
        ("softmax", "softmax", "+0.0", "trained"),
        ("softmax", "taylor", "+10.0"),
        ("linear", "taylor", "+0.0", "trained"),
        ("linear", "softmax", "-5.0"),
    ]
    assert [block.split(": ")[-1] for block in blocks[3:6:2]] == [
        "other eps on the same weights",
        "other attentions on the same weights",
    ]


def test_every_table_and_the_figure_call_a_simulated_series_simulated(row) -> None:
    titles = [line for line in robustness_tables(row).split("\n") if line.startswith("DEMO")]
    assert len(titles) == 3
    assert all(title.startswith("DEMO, SIMULATED series: test part, 20 windows") for title in titles)
    assert build_robustness_figure(row).get_suptitle().startswith("DEMO, SIMULATED series")
    row["simulated"] = False
    assert "SIMULATED" not in robustness_tables(row) + build_robustness_figure(row).get_suptitle()


def test_the_figure_has_a_panel_for_each_perturbation_with_a_named_line_for_each_model(row) -> None:
    noise, missing, *_ = build_robustness_figure(row).axes
    assert (noise.get_xlabel(), noise.get_ylabel()) == ("std of the noise", "MAE (vehicles)")
    assert missing.get_xlabel() == "share missing"
    assert line(noise, "softmax").get_xydata().tolist() == [[0, 10], [1, 15]]
    assert line(noise, "linear").get_xydata().tolist() == [[0, 20], [1, 22]]
    np.testing.assert_array_equal(line(missing, "linear").get_ydata(), [20, np.nan])
    assert {text.get_text() for text in noise.texts} == {"softmax", "linear"}
    colours = [line(panel, label).get_color() for panel in (noise, missing) for label in ("softmax", "linear")]
    assert colours[:2] == colours[2:]
    assert colours[0] != colours[1]


def test_eps_and_other_attentions_are_changes_from_what_was_trained(row) -> None:
    eps, swaps = build_robustness_figure(row).axes[2:]
    assert eps.get_xscale() == "log"
    assert [drawn.get_label() for drawn in eps.get_lines()] == ["linear", "_trained"]
    np.testing.assert_allclose(line(eps, "linear").get_xydata(), [[1e-8, 0], [3, 50]])
    assert line(eps, "_trained").get_xydata().tolist() == [[1e-8, 0]]
    assert [tick.get_text() for tick in swaps.get_xticklabels()] == ["softmax", "taylor"]
    softmax, linear = line(swaps, "softmax"), line(swaps, "linear")
    np.testing.assert_allclose(softmax.get_ydata(), [0, 10])
    np.testing.assert_allclose(linear.get_ydata(), [-5, 0])  # in the order of the axis, not of the row
    assert [round(x) for x in (*softmax.get_xdata(), *linear.get_xdata())] == [0, 1, 0, 1]
    assert set(softmax.get_xdata()).isdisjoint(linear.get_xdata())
    assert softmax.get_linestyle() == "None"


def test_parts_that_were_not_measured_leave_no_trace(row) -> None:
    bare = {**copy.deepcopy(row), "eps": [], "swaps": []}
    figure = build_robustness_figure(bare)
    assert len(figure.axes) == 2
    assert not figure.legends
    assert robustness_tables(bare).count("DEMO") == 1
    only_eps = {**row, "perturbations": {}, "perturbed": [], "swaps": []}
    assert len(build_robustness_figure(only_eps).axes) == 1
    assert robustness_tables(only_eps).count("DEMO") == 1
    with pytest.raises(ValueError, match="the row holds no measurement"):
        build_robustness_figure({**only_eps, "eps": []})


def test_the_figure_is_a_png_alone_in_its_folder(row, tmp_path: Path) -> None:
    path = robustness_figure(row, tmp_path / "new" / "row.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [child.name for child in path.parent.iterdir()] == ["row.png"]
