"""experiments/closures.py writes rows, a table and three figures, and says that the scores are simulated."""

import json

import pytest


def test_rows_table_and_figures(call, tmp_path):
    done = call("closures", "--lengths", 8, 12, "--draws", 1, "--output-dir", tmp_path / "new" / "folder")
    assert done.status == 0, done.err
    folder = tmp_path / "new" / "folder"
    written = json.loads((folder / "closures.json").read_text())
    assert written["simulated"] is True
    assert {"commit", "machine", "command", "date", "versions"} <= set(written)
    assert {row["num_keys"] for row in written["rows"]} == {8, 12}
    table = (folder / "table.txt").read_text()
    assert table in done.out + "\n"
    assert "simulated scores, N = 12" in table
    for name in ("theta", "error", "domain"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("options", [("--lengths", "1"), ("--draws", "0")])
def test_bad_options_are_one_line(refused, options):
    assert "at least" in refused("closures", *options)
