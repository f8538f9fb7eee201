"""Tables: alignment, formats, gaps, and the horizons that a metrics table shows."""

import numpy as np
import pytest

from ealinformer.errors import InputError
from ealinformer.report.tables import Column, metrics_table, render_table


def scores(mae: float | None) -> dict[str, float | None]:
    return {"MAE": mae, "RMSE": 20.0, "MAPE": 9.5}


def test_table_aligns_names_left_and_numbers_right() -> None:
    columns = [Column("name", "model"), Column("mae", "MAE", ".2f"), Column("size", "parameters", ",d")]
    rows = [{"name": "ELinFormer", "mae": 13.456, "size": 1223460}, {"name": "HI", "mae": 100, "size": 0}]
    assert render_table(columns, rows, title="PEMS08").split("\n") == [
        "PEMS08",
        "",
        "model          MAE  parameters",
        "----------  ------  ----------",
        "ELinFormer   13.46   1,223,460",
        "HI          100.00           0",
    ]


def test_none_and_absent_values_print_as_a_dash() -> None:
    lines = render_table([Column("a", "a"), Column("b", "b", ".1f")], [{"a": "x", "b": None}, {"a": None}]).split("\n")
    assert lines[2].split() == ["x", "-"]
    assert lines[3].split() == ["-", "-"]


def test_zero_and_nan_are_not_taken_for_nothing() -> None:
    lines = render_table([Column("b", "b", ".1f")], [{"b": 0.0}, {"b": float("nan")}]).split("\n")
    assert [line.strip() for line in lines[2:]] == ["0.0", "nan"]


def test_text_in_a_column_of_numbers_is_kept_and_keeps_to_the_right() -> None:
    lines = render_table([Column("mb", "MiB", ".0f")], [{"mb": 12.0}, {"mb": "out of\nmemory"}]).split("\n")
    assert lines[2:] == ["           12", "out of memory"]


def test_numbers_without_a_format_stand_right_and_numpy_numbers_count() -> None:
    columns = [Column("n", "sensors"), Column("m", "MAE", ".1f")]
    lines = render_table(columns, [{"n": np.int64(7), "m": np.float32(1.25)}, {"n": 170, "m": 3}]).split("\n")
    assert lines[2:] == ["      7  1.2", "    170  3.0"]


def test_truth_values_are_names() -> None:
    assert render_table([Column("on", "compiled")], [{"on": True}]).split("\n")[2] == "True"


def test_table_without_rows_has_its_header() -> None:
    assert render_table([Column("a", "name")], []) == "name\n----"


def test_table_without_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one column"):
        render_table([], [{"a": 1}])


def test_format_that_does_not_fit_names_the_column() -> None:
    with pytest.raises(ValueError, match=r"column 'epochs': format 'd' does not fit 1\.5"):
        render_table([Column("epochs", "epochs", "d")], [{"epochs": 1.5}])


def test_metrics_table_shows_15_30_60_minutes_and_the_average() -> None:
    # JSON written with sorted keys has "10", "11", "12" before "2".
    horizons = {str(h): scores(10 + h / 8) for h in sorted(range(1, 13), key=str)}
    table = metrics_table({"average": {"MAE": 13.40625, "RMSE": 23.1, "MAPE": 8.87654}, "horizons": horizons})
    assert table.split("\n") == [
        "horizon      MAE     RMSE  MAPE %",
        "-------  -------  -------  ------",
        "3        10.3750  20.0000  9.5000",
        "6        10.7500  20.0000  9.5000",
        "12       11.5000  20.0000  9.5000",
        "average  13.4062  23.1000  8.8765",
    ]


@pytest.mark.parametrize(
    ("horizon_count", "shown"),
    [(1, ["1"]), (3, ["3"]), (4, ["3", "4"]), (12, ["3", "6", "12"]), (24, ["3", "6", "12", "24"]), (0, [])],
)
def test_metrics_table_shows_the_horizons_that_exist_and_the_last(horizon_count: int, shown: list[str]) -> None:
    horizons = {str(h): scores(1.0) for h in range(1, horizon_count + 1)}
    lines = metrics_table({"average": scores(1.0), "horizons": horizons}).split("\n")[2:]
    assert [line.split()[0] for line in lines] == [*shown, "average"]


def test_metrics_table_prints_nothing_to_measure_as_a_dash() -> None:
    table = metrics_table({"average": {"MAE": None, "RMSE": None, "MAPE": None}, "horizons": {"1": scores(None)}})
    assert table.split("\n")[2].split() == ["1", "-", "20.0000", "9.5000"]
    assert table.split("\n")[3].split() == ["average", "-", "-", "-"]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"horizons": {}}, "'average' is None"),
        ({"average": {}, "horizons": []}, r"'horizons' is \[\]"),
        ({"average": {}, "horizons": {"15 min": {}}}, "'15 min' is not a number of steps"),
        ({"average": {}, "horizons": {"1": 3.0}}, r"'1' is 3\.0"),
    ],
)
def test_metrics_built_differently_are_refused_in_one_line(metrics: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        metrics_table(metrics)
    assert "\n" not in str(caught.value)
