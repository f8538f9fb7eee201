"""Tables of attentions, and targets that are reached, missed or not measured."""

from typing import Any

import pytest

from ealinformer.report.attention_cost import BOTH, OURS, fits_table, shape_table, targets, targets_table

SETTING = {"batch": 8, "heads": 4, "head_size": 38, "dtype": "float32", "pass": BOTH}


def row(attention: str, length: int, seconds: float | None, **values: Any) -> dict[str, Any]:
    empty = {"status": "ok", "reason": None, "needed_bytes": None, "memory_bytes": None, "resident_bytes": None}
    times = {"seconds": seconds, "seconds_p20": seconds, "seconds_p80": seconds, "ratio": None}
    return {"attention": attention, "length": length, **SETTING, **empty, **times, **values}


def rows(ours: float = 0.01, sdpa: float = 0.1, softmax: float = 0.2) -> list[dict[str, Any]]:
    costs = {OURS: ours, "sdpa": sdpa, "softmax": softmax}
    return [
        row(name, length, seconds, ratio=seconds / sdpa)
        for length in (170, 883, 2048)
        for name, seconds in costs.items()
    ]


def fit(**exponents: float) -> dict[str, Any]:
    return {"attention": OURS, **SETTING, "from_length": 2048, "to_length": 65536, **exponents}


def test_a_shape_is_shown_in_milliseconds_and_mib() -> None:
    shown = shape_table(
        [
            row("sdpa", 170, 0.0125, ratio=1.0, memory_bytes=3 * 2**20, resident_bytes=2**22),
            row("softmax", 170, None, status="out of memory", reason="no", needed_bytes=2**34),
            row("linformer", 170, None, status="failed", reason="ValueError: no causal form"),
        ],
        title="N = 170",
    ).split("\n")
    assert shown[0] == "N = 170"
    assert shown[4].split() == ["sdpa", BOTH, "12.500", "12.500", "12.500", "1.000", "3.00", "4.0", "-"]
    assert shown[5].endswith("out of memory: needs at least 16,384 MiB")
    assert shown[6].endswith("failed: ValueError: no causal form")
    assert len({line.index(BOTH) for line in shown[4:]}) == 1


def test_targets_are_reached() -> None:
    judged = targets(rows(), [fit(time_exponent=1.02, memory_exponent=1.0)])
    assert [line["verdict"] for line in judged] == ["reached"] * 7
    assert [line["wanted"] for line in judged][:5] == [f"at least {n}x" for n in (2, 4, 5, 12, 10)]
    assert judged[0] == {
        "target": "faster than sdpa at N = 170",
        "wanted": "at least 2x",
        "found": "10.000x",
        "verdict": "reached",
    }
    assert judged[5]["target"] == "exponent of time in N from N = 2,048 to 65,536"


def test_targets_are_missed_with_the_number() -> None:
    judged = targets(rows(sdpa=0.0199), [fit(time_exponent=1.0501, memory_exponent=2.0)])
    assert (judged[0]["found"], judged[0]["verdict"]) == ("1.990x", "MISSED")
    assert judged[1]["verdict"] == "reached"
    assert (judged[5]["found"], judged[5]["verdict"]) == ("1.050", "MISSED")
    assert judged[6]["verdict"] == "MISSED"


@pytest.mark.parametrize("other", [{"batch": 4}, {"heads": 2}, {"head_size": 16}, {"dtype": "bfloat16"}])
def test_rows_of_another_setting_do_not_count(other: dict[str, Any]) -> None:
    judged = targets([{**row, **other} for row in rows()], [{**fit(time_exponent=1.0, memory_exponent=1.0), **other}])
    assert {line["verdict"] for line in judged} == {"not measured"}


def test_what_was_not_measured_is_said() -> None:
    found = targets([row for row in rows() if row["attention"] != "softmax"], [])
    assert [line["verdict"] for line in found] == ["reached", "not measured"] * 2 + ["reached"] + ["not measured"] * 2
    assert "not measured" in targets_table([], [])


def test_exponents_are_shown_by_line() -> None:
    shown = fits_table([fit(time_exponent=1.0234, memory_exponent=1.0)]).split("\n")
    assert shown[4].split() == [OURS, BOTH, "float32", "4", "38", "2,048", "65,536", "1.023", "1.000"]
