"""Tables and figures of an attention analysis, on rows whose numbers tell where they belong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from ealinformer.report import attention_analysis as figures
from ealinformer.report.attention_analysis_tables import head_table, summarise, summary_table

NAMES = (*figures.ESTIMATORS, figures.EXACT)
SPREAD = ("mean", "min", "p10", "median", "p90", "max")


def spread(middle: float) -> dict[str, float]:
    return {"mean": middle, "min": middle / 2, "p10": middle / 1.1, "median": middle, "p90": middle * 1.1, "max": 9.0}


def head_row(axis: str, layer: int, head: int, number: float) -> dict[str, Any]:
    """A row whose estimator i has number x (i + 1) everywhere, and softmax number / 2."""
    softmax: dict[str, Any] = {
        name: spread(number / 2) for name in ("deficit", "entropy", "score_std", "score_skewness", "score_mean")
    }
    softmax |= {"outside_domain": 0.25, "variation_of_output": 0.4, "smallest_error_of_variation": number / 20}
    estimators = {}
    for place, name in enumerate(NAMES):
        own = number * (place + 1)
        estimators[name] = {
            "theta": spread(own),
            "deficit": spread(own),
            "log_theta_error": own,
            "log_theta_bias": -own,
            "l1_to_softmax": own / 100,
            "l1_to_exact_theta": own / 1000,
            "kl_softmax_to_clipped": own / 10,
            "kl_clipped_to_softmax": own / 5,
            "negative_share": own / 100,
            "negative_mass": own / 100,
            "output_error": own / 1000,
            "output_error_of_variation": own / 10,
        }
    return {
        "axis": axis,
        "layer": layer,
        "head": head,
        "num_keys": 12 if axis == "temporal" else 40,
        "softmax": softmax,
        "estimators": estimators,
    }


HEADS = [
    head_row(axis, layer, head, 1 + head + 2 * layer + 10 * (axis == "spatial"))
    for axis in ("temporal", "spatial")
    for layer in (1, 2)
    for head in (1, 2)
]
TEMPORAL_MEAN = np.mean([4, 5, 6, 7])


def by_label(axes: Axes, label: str) -> list[np.ndarray]:
    return [np.asarray(line.get_xdata()) for line in axes.get_lines() if line.get_label() == label]


def test_a_summary_is_the_mean_over_layers_and_heads_of_an_axis() -> None:
    rows = summarise(HEADS)
    assert [(row["axis"], row["entropy"]) for row in rows] == [(a, e) for a in ("temporal", "spatial") for e in NAMES]
    third = rows[2]
    assert third["log_theta_error"] == pytest.approx(3 * TEMPORAL_MEAN)
    assert third["log_theta_bias"] == pytest.approx(-3 * TEMPORAL_MEAN)
    assert third["output_error"] == pytest.approx(3 * TEMPORAL_MEAN / 1000)
    assert rows[9]["negative_share"] == pytest.approx(3 * (TEMPORAL_MEAN + 10) / 100)
    assert third["smallest_error_of_variation"] == pytest.approx(TEMPORAL_MEAN / 20)


def test_what_could_not_be_measured_is_left_out_of_the_mean() -> None:
    rows = [head_row("temporal", 1, 1, 1.0), head_row("temporal", 1, 2, 3.0)]
    rows[0]["estimators"]["taylor"]["output_error"] = None
    assert summarise(rows)[0]["output_error"] == pytest.approx(3.0 / 1000)
    rows[1]["estimators"]["taylor"]["output_error"] = None
    assert summarise(rows)[0]["output_error"] is None
    assert summary_table(summarise(rows)).splitlines()[4].split()[-2] == "-"


def test_the_summary_table_has_an_aligned_line_for_each_axis_and_estimator() -> None:
    lines = summary_table(summarise(HEADS)).splitlines()
    assert lines[2].split()[:2] == ["axis", "entropy"]
    assert [tuple(line.split()[:2]) for line in lines[4:18]] == [
        (axis, name) for axis in ("temporal", "spatial") for name in NAMES
    ]
    # error and bias of log theta, L1 to both, KL both ways, then percentages.
    assert lines[4].split()[2:] == ["5.500", "-5.500", "0.055", "0.005", "0.550", "1.100", "5.5", "0.5", "55.0"]
    assert {len(line) for line in lines[4:18]} == {len(lines[3])}
    assert lines[-4] == "temporal: with the best theta for each query the error would be 27.5 % of variation"
    assert lines[-3] == "temporal: 25.0 % of queries outside the domain of taylor_uncentred"


def test_the_head_table_shows_medians_and_the_theta_of_the_exact_entropy() -> None:
    lines = head_table(HEADS).splitlines()
    assert len(lines) == 4 + len(HEADS)
    assert " ".join(lines[4].split()) == "temporal 1 1 12 2.00 2.00 2.000 2.000 25.455 28.000 30.800 40.0"
    assert lines[-1].split()[:4] == ["spatial", "2", "2", "40"]


def deficits(seed: int, size: int = 500) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    exact = rng.uniform(0.05, 2, size)
    return {name: exact * (place + 1) if name != "exact" else exact for place, name in enumerate(NAMES)}


def test_the_deficit_figure_has_a_panel_for_each_axis_and_estimator(tmp_path: Path) -> None:
    calls = {
        "temporal": [{"num_keys": 12, "deficits": deficits(0)}, {"num_keys": 12, "deficits": deficits(1)}],
        "spatial": [{"num_keys": 40, "deficits": deficits(2)}],
    }
    figure = figures.build_deficit_figure(calls, note="simulated series")
    assert figure.get_suptitle() == "simulated series"
    assert len(figure.axes) == 2 * len(figures.ESTIMATORS)
    first, second = figure.axes[0], figure.axes[len(figures.ESTIMATORS)]
    assert [axes.get_title(loc="left") for axes in figure.axes[:6]] == list(figures.ESTIMATORS)
    assert first.get_ylabel() == "temporal\nestimated D (nats)"
    assert second.get_ylabel() == "spatial\nestimated D (nats)"
    assert second.get_xlabel() == "exact D (nats)"
    assert [text.get_text() for text in figure.axes[2].texts] == ["median error ×3.00"]
    heights = [line.get_ydata()[0] for line in first.get_lines() if len(set(line.get_ydata())) == 1]
    assert heights == [pytest.approx(np.log(12))]
    # Every query is in the panel, at its border where it is beyond.
    (mesh,) = figure.axes[5].collections
    assert mesh.get_array().sum() == 1000
    path = figures.deficit_figure(calls, tmp_path / "deficit.png")
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_the_theta_figure_draws_quantiles_by_layer_and_head(tmp_path: Path) -> None:
    figure = figures.build_theta_figure(HEADS)
    temporal, spatial = figure.axes
    labels = [text.get_text() for text in temporal.get_xticklabels()]
    assert labels == ["layer 1\nhead 1", "layer 1\nhead 2", "layer 2\nhead 1", "layer 2\nhead 2"]
    assert (temporal.get_ylabel(), spatial.get_ylabel()) == ("temporal: theta", "spatial: theta")
    exact_bars = temporal.collections[0].get_segments()
    expected = [[7 * number / 1.1, 7 * number * 1.1] for number in (4, 5, 6, 7)]
    np.testing.assert_allclose([bar[:, 1] for bar in exact_bars], expected)
    low, high = temporal.get_ylim()
    assert low < 0.5**0.5
    assert high > 7 * 7 * 1.1
    assert figures.theta_figure(HEADS, tmp_path / "theta.png").is_file()


def test_a_median_below_the_panel_is_a_triangle_at_its_border() -> None:
    row = head_row("temporal", 1, 1, 1.0)
    row["estimators"]["taylor_uncentred"]["theta"] = spread(1e-4)
    (axes,) = figures.build_theta_figure([row]).axes
    (triangle,) = [line for line in axes.get_lines() if line.get_marker() == "v"]
    low, high = axes.get_ylim()
    assert low < triangle.get_ydata()[0] < 1.1 * low < high
    assert low > 0.4


def test_the_error_figure_has_a_dot_for_each_head_and_their_mean(tmp_path: Path) -> None:
    figure = figures.build_error_figure(HEADS)
    output, distance, negative = figure.axes
    names = [text.get_text() for text in output.get_yticklabels()]
    assert names == [*figures.ESTIMATORS, "exact (softmax)", "best theta"]
    np.testing.assert_allclose(by_label(output, "temporal")[2], [3 * n / 10 for n in (4, 5, 6, 7)])
    np.testing.assert_allclose(by_label(output, "temporal")[7], [n / 20 for n in (4, 5, 6, 7)])
    np.testing.assert_allclose(by_label(output, "_temporal")[2], 3 * TEMPORAL_MEAN / 10)
    np.testing.assert_allclose(by_label(distance, "spatial")[0], [(n + 10) / 100 for n in (4, 5, 6, 7)])
    assert len(by_label(negative, "temporal")) == 7
    top, bottom = output.get_ylim()
    assert top > bottom  # the first estimator of the table is the uppermost
    assert figures.error_figure(HEADS, tmp_path / "error.png").is_file()


@pytest.mark.parametrize("number", [1e-9, 0.0])
def test_attention_that_is_flat_can_be_drawn(tmp_path: Path, number: float) -> None:
    """One sensor has nothing to attend to: no entropy, no distance, nothing to be relative to."""
    row = head_row("spatial", 1, 1, number)
    row["softmax"]["smallest_error_of_variation"] = None
    for found in row["estimators"].values():
        found["theta"], found["output_error_of_variation"] = spread(1.0), None
    calls = {"spatial": [{"num_keys": 1, "deficits": {name: np.full(5, number) for name in NAMES}}]}
    figures.deficit_figure(calls, tmp_path / "deficit.png")
    figures.theta_figure([row], tmp_path / "theta.png")
    figures.error_figure([row], tmp_path / "error.png")
    assert len(list(tmp_path.iterdir())) == 3


def test_nothing_to_draw_is_refused() -> None:
    for build in (figures.build_theta_figure, figures.build_error_figure):
        with pytest.raises(ValueError, match="at least one layer"):
            build([])
    with pytest.raises(ValueError, match="at least one layer"):
        figures.build_deficit_figure({})
