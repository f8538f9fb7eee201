"""experiments/table.py: rows of results as one table."""

import json


def test_floor_and_runs_stand_in_one_table(call, town, trained, tmp_path):
    floor, run_row, table = tmp_path / "floor.json", tmp_path / "run.json", tmp_path / "table.txt"
    assert call("floor", *town.arguments, "--row", floor).status == 0
    assert call("record", trained.folder, run_row).status == 0
    done = call("table", floor, run_row, "--output", table)
    assert done.status == 0, done.err
    assert table.read_text(encoding="utf-8") == done.out

    title, _, _, _, *body = done.out.splitlines()
    recorded = json.loads(run_row.read_text(encoding="utf-8"))
    assert title == f"TOWN: test part, {recorded['windows']} windows, all horizons"
    assert [line.split("  ")[0] for line in body] == [
        "last value",
        "weekly profile",
        "historical inertia",
        "ELinFormer",
    ]
    assert f"{recorded['average']['MAE']:.2f}" in body[-1]
    assert body[-1].endswith("INCOMPLETE: --max-steps 12")
    assert {"rows", "machine", "versions", "commit", "command", "date"} <= json.loads(floor.read_text()).keys()


def test_a_whole_run_is_called_complete(call, trained, tmp_path):
    row = tmp_path / "row.json"
    assert call("record", trained.folder, row).status == 0
    content = json.loads(row.read_text(encoding="utf-8")) | {"complete": True}
    row.write_text(json.dumps(content), encoding="utf-8")
    assert call("table", row).out.splitlines()[-1].split()[-1] == "complete"


def test_runs_of_one_model_are_told_apart_by_their_attention(call, trained, tmp_path):
    row = tmp_path / "row.json"
    assert call("record", trained.folder, row).status == 0
    content = json.loads(row.read_text(encoding="utf-8"))
    content["config"]["model_params"] |= {"attention": "entropy_equal", "entropy": "skewed"}
    row.write_text(json.dumps(content), encoding="utf-8")
    assert call("table", row).out.splitlines()[-1].startswith("ELinFormer, entropy_equal, skewed  ")


def test_rows_that_cannot_be_compared_are_refused(call, refused, trained, tmp_path):
    row, other = tmp_path / "row.json", tmp_path / "other.json"
    assert call("record", trained.folder, row).status == 0
    content = json.loads(row.read_text(encoding="utf-8"))
    other.write_text(json.dumps(content | {"split": "val"}), encoding="utf-8")
    assert refused("table", "row.json", "other.json").startswith("the rows are of 2 kinds")
    other.write_text(json.dumps({"model": "ELinFormer"}), encoding="utf-8")
    assert refused("table", "other.json") == "other.json is not a row of results: 'dataset' is missing"
    assert refused("table", "absent.json").startswith("absent.json cannot be read")
