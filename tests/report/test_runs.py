"""Pages about run folders, out of plain dicts."""

from typing import Any

import pytest

from ealinformer.report.runs import comparison_page, removals_table, run_page, runs_table

SUMMARY: dict[str, Any] = {
    "folder": "runs/one",
    "state": "finished",
    "complete": True,
    "damage": [],
    "model": "ELinFormer",
    "dataset": "TOWN",
    "recipe": "short",
    "seed": 3,
    "epochs": 2,
    "max_epochs": 300,
    "select_by": "loss",
    "best_score": 18.5236,
    "test_mae": 20.1,
    "seconds_per_epoch": 50.04,
    "started": "2024-05-06T09:08:09+02:00",
    "changed": 0.0,
    "size_bytes": 1_300_000,
}
DETAILS: dict[str, Any] = {
    **SUMMARY,
    "exit_reason": "all epochs done",
    "simulated": True,
    "parameters": 3903,
    "settings": {
        "recipe.lr": {"value": 0.002, "default": 0.001},
        "series.raw_source.url": {"value": "https://", "default": None},
    },
    "command": "python experiments/train.py -c 'my town.py'",
    "commit": "0123456789abcdef+dirty",
    "versions": {"torch": "2.13.0"},
    "machine": {"cpu": "EPYC", "cores": 2, "threads": 1, "gpus": []},
    "environment": {"OMP_NUM_THREADS": "1"},
    "data": {"name": "TOWN", "checksum": "c0ffee"},
    "process": {"host": "node7", "pid": 4},
    "starts": [{"date": "2024-05-06T07:08:09+00:00", "commit": "0123456789abcdef", "exit_reason": "SIGTERM"}],
    "last_epochs": [{"epoch": 1.0, "val_loss": 18.5236}],
    "metrics": {
        "split": "test",
        "windows": 75,
        "epoch": 2,
        "average": {"MAE": 20.1, "RMSE": 30.0, "MAPE": None},
        "horizons": {"1": {"MAE": 20.1, "RMSE": 30.0, "MAPE": None}},
    },
    "checkpoints": [
        {"file": "best.pt", "size_bytes": 2_000_000, "whole": True, "epoch": 2},
        {"file": "last.pt", "size_bytes": 7, "whole": False, "problem": "cannot be read: it is damaged"},
    ],
}
COMPARISON: dict[str, Any] = {
    "runs": ["a", "b", "c"],
    "states": ["finished", "finished", "killed"],
    "same_data": True,
    "config": [{"key": "recipe.lr", "values": [0.001, 0.002, None]}],
    "code": [],
    "metrics": [
        {"metric": "average.MAE", "values": [20.0, 20.5, None], "differences": [None, 0.5, None]},
        {"metric": "average.RMSE", "values": [30.0, 30.0, None], "differences": [None, 0.0, None]},
        {"metric": "average.MAPE", "values": [1.0, 1.0, None], "differences": [None, -2e-9, None]},
        {"metric": "horizons.5.MAE", "values": [1.0, 1.0, None], "differences": [None, 0.0, None]},
        {"metric": "steps", "values": [1200, 600, None], "differences": [None, -600, None]},
    ],
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_a_run_is_one_line_of_the_list() -> None:
    lines = runs_table([SUMMARY, {**SUMMARY, **dict.fromkeys(("model", "best_score", "max_epochs", "started"))}])
    _, _, one, other = lines.splitlines()
    assert cells(one) == [
        *("runs/one", "ELinFormer", "TOWN", "3", "finished", "2/300", "18.5236", "loss", "20.1000", "50.0"),
        *("2024-05-06 07:08", "1.3"),
    ]
    assert cells(other)[5:7] == ["2/-", "-"]


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"complete": False}, "finished, incomplete"),
        ({"complete": None, "state": "killed"}, "killed"),
        ({"damage": ["run.json cannot be read: no", "and more"]}, "damaged: run.json cannot be read: no"),
    ],
)
def test_the_state_is_that_of_the_files(change: dict[str, Any], state: str) -> None:
    assert cells(runs_table([{**SUMMARY, **change}]).splitlines()[2])[4] == state


def test_a_page_says_all_there_is() -> None:
    page = run_page(DETAILS)
    facts = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in page.split("\n\n")[0].splitlines()}
    assert facts["state"] == "finished: all epochs done"
    assert facts["model"] == "ELinFormer, 3,903 parameters"
    assert facts["data set"] == "TOWN, simulated, checksum c0ffee"
    assert facts["command"] == DETAILS["command"]
    assert facts["machine"] == "EPYC, 2 cores, 1 threads, no GPU on node7"
    assert facts["commit"] == "0123456789abcdef, changed since"
    assert facts["environment"] == "OMP_NUM_THREADS=1"
    found = [cells(line) for line in page.splitlines()]
    assert ["recipe.lr", "0.002", "0.001"] in found
    assert ["2024-05-06 07:08", "-", "-", "SIGTERM", "0123456789"] in found
    assert ["1", "-", "-", "18.5236", "-", "-", "-"] in found
    assert ["average", "20.1000", "30.0000", "-"] in found
    assert ["best.pt", "2.0", "whole, epoch 2"] in found
    assert ["last.pt", "0.0", "cannot be read: it is damaged"] in found
    assert "raw_source" not in page


def test_a_page_of_a_run_of_which_nothing_is_known_is_a_page() -> None:
    kinds = {str: None, dict: None, list: [], int: 0, float: 0.0, bool: None}
    empty = {key: kinds[type(value)] for key, value in DETAILS.items()} | {"settings": {}, "damage": ["no run.json"]}
    assert "damaged: no run.json" in run_page(empty)


@pytest.mark.parametrize("value", ["text", 3, [], [1], {"a": {"b": 1}}, True])
@pytest.mark.parametrize("key", ["commit", "versions", "machine", "environment", "data", "process", "command"])
def test_a_page_does_not_depend_on_what_strangers_write_into_run_json(key: str, value: object) -> None:
    assert run_page({**DETAILS, key: value}).startswith("run ")


def test_a_comparison_puts_runs_side_by_side() -> None:
    page = comparison_page(COMPARISON)
    found = [cells(line) for line in page.splitlines()]
    assert found[:3] == [["1", "a", "(finished)"], ["2", "b", "(finished)"], ["3", "c", "(killed)"]]
    assert ["recipe.lr", "0.001", "0.002", "-"] in found
    assert "code, machine and data: no difference" in page
    assert ["average.MAE", "20.0000", "20.5000", "-", "+0.5000", "-"] in found
    assert ["steps", "1,200", "600", "-", "-600", "-"] in found
    assert "horizons.5" not in page  # only the horizons of the metrics' table


def test_only_equal_numbers_differ_by_0() -> None:
    lines = comparison_page(COMPARISON).splitlines()
    assert cells(next(line for line in lines if "RMSE" in line))[4] == "0"
    assert cells(next(line for line in lines if "MAPE" in line))[4] == "-2e-09"


def test_metrics_of_different_data_say_so() -> None:
    assert "DIFFERENT" not in comparison_page(COMPARISON)
    assert "metrics, of DIFFERENT data: they do not compare" in comparison_page({**COMPARISON, "same_data": False})


def test_removals_say_what_goes() -> None:
    removal = {"run": "a", "state": "failed", "changed": 86400.0, "files": ["x", "y"], "size_bytes": 3e6, "foreign": []}
    assert cells(removals_table([removal]).splitlines()[2]) == ["a", "failed", "1970-01-02 00:00", "2", "3.0"]
