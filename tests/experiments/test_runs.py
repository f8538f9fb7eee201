"""Lists, pages and comparisons of runs by command line, and what cleaning removes; damage is named, not raised."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from ealinformer.files import write_text
from ealinformer.training.runs.folder import at_work, read_json, write_json

DAY = 24 * 3600


def edit(path: Path, **changes: Any) -> None:
    write_json(path, {**read_json(path), **changes})


def make_old(folder: Path, days: float) -> None:
    then = time.time() - days * DAY
    for path in folder.rglob("*"):
        os.utime(path, (then, then), follow_symlinks=False)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def line_of(text: str, word: str) -> list[str]:
    """The cells of the one line of a table that starts with `word`."""
    (line,) = [line for line in text.splitlines() if line.split("  ")[0].endswith(word)]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


@pytest.fixture
def copy(trained, tmp_path: Path) -> Callable[..., Path]:
    """`copy("name", status="failed")`: the trained run under another name in `runs`, with another run.json."""

    def make(name: str, *, metrics: bool = True, **status: Any) -> Path:
        folder = tmp_path / "runs" / name
        shutil.copytree(trained.folder, folder)
        here = {"host": socket.gethostname(), "pid": 2**31 - 7, "started": "never"}
        edit(folder / "run.json", **{"process": here, **status})
        if not metrics:
            (folder / "metrics.json").unlink()
        return folder

    return make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def listed(call, root: Path) -> Callable[..., list[dict[str, Any]]]:
    """`listed("--state", "failed")`: what `list --json` says."""

    def ask(*options: str) -> list[dict[str, Any]]:
        done = call("runs", "list", root, "--json", *options)
        assert (done.status, done.err) == (0, ""), done.err
        return json.loads(done.out)

    return ask


def names(runs: list[dict[str, Any]]) -> list[str]:
    return [Path(run["folder"]).name for run in runs]


# list


def test_a_run_is_listed_with_what_its_files_say(call, trained, copy) -> None:
    folder = copy("one")
    metrics, history = read_json(folder / "metrics.json"), (folder / "history.csv").read_text().splitlines()
    best = min(float(line.split(",")[history[0].split(",").index("val_loss")]) for line in history[1:])
    done = call("runs", "list", folder.parent)
    assert (done.status, done.err) == (0, "")
    heading, _, line = done.out.splitlines()
    cells = line_of(done.out, "one")
    assert heading.startswith("run")
    assert cells[1:5] == ["ELinFormer", "TOWN", "42", "finished, incomplete"]  # --max-steps
    assert cells[5:9] == [f"{len(history) - 1}/2", f"{best:.4f}", "loss", f"{metrics['average']['MAE']:.4f}"]
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert float(cells[-1]) == pytest.approx(size / 1e6, abs=0.06)
    assert line.startswith(str(folder))


def test_runs_are_listed_newest_first_wherever_they_lie(copy, listed, root: Path) -> None:
    for name, day in (("b/deep/er", 2), ("a", 3), ("c", 1)):
        copy(name, date=f"2024-05-0{day}T00:00:00+00:00")
    (root / "no run").mkdir()
    (root / "link").symlink_to(root / "a")
    assert names(listed()) == ["a", "er", "c"]


def test_filters_leave_what_fits(copy, listed, call, root: Path) -> None:
    copy("finished")
    copy("failed", status="failed", exit_reason="no")
    edit(copy("other") / "config.json", model="STAEformer")
    assert names(listed("--state", "failed")) == ["failed"]
    assert names(listed("--model", "STAEformer")) == ["other"]
    assert set(names(listed("--dataset", "TOWN", "--model", "ELinFormer"))) == {"finished", "failed"}
    assert call("runs", "list", root, "--dataset", "PEMS08").out == f"{root}: none of 3 runs fits\n"


def test_a_folder_without_runs_says_so(call, tmp_path: Path, refused) -> None:
    assert call("runs", "list", tmp_path).out == f"{tmp_path}: no run\n"
    assert refused("runs", "list", "nowhere") == "folder nowhere is not there, expected one with runs below it"
    assert refused("runs", "list") == "folder checkpoints is not there, expected one with runs below it"


DAMAGES: dict[str, tuple[str, str | bytes | None]] = {
    "empty": ("run.json", ""),
    "truncated": ("run.json", '{"status": "fini'),
    "binary": ("run.json", b"\xff\xfe\x00"),
    "list": ("run.json", "[]"),
    "no state": ("run.json", "{}"),
    "deep": ("run.json", "[" * 100_000),
    "no date": ("run.json", '{"status": "finished", "date": "yesterday"}'),
    "date of 7": ("run.json", '{"status": "finished", "date": 7}'),
    "starts of 7": ("run.json", '{"status": "finished", "starts": 7}'),
    "no config": ("config.json", None),
    "config of a list": ("config.json", '{"model": [1], "series": "TOWN", "recipe": {"num_epochs": "many"}}'),
    "no metrics": ("metrics.json", None),
    "text as a metric": ("metrics.json", '{"average": {"MAE": "low"}, "horizons": {"one": 3}, "parameters": "many"}'),
    "average of 3": ("metrics.json", '{"average": 3, "steps": null}'),
    "no history": ("history.csv", None),
    "half a history": ("history.csv", "epoch,val_loss\n1"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_nothing_fails(damage: str, copy, listed, call, root: Path) -> None:
    folder, (name, content) = copy("bad"), DAMAGES[damage]
    copy("good")
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    table, page = call("runs", "list", root), call("runs", "show", folder)
    assert (table.status, table.err, page.status, page.err) == (0, "", 0, "")
    if damage != "starts of 7":  # which a list does not read
        assert f"damaged: {name}" in table.out
        assert names(listed("--state", "damaged")) == ["bad"]
    assert f"damaged: {name}" in page.out
    assert json.loads(call("runs", "show", folder, "--json").out)["damage"]
    before = files_below(root)
    assert call("runs", "clean", root, "--yes").status == 0
    assert files_below(root) == before
    done = call("runs", "compare", root / "good", folder)
    if done.status:  # of what can be read, wrong values are compared like any others
        assert (done.status, done.out) == (2, "")
        assert done.err.startswith(f"error: {folder} is damaged: {name}")
        assert done.err.count("\n") == 1


def test_two_hundred_runs_are_listed_without_torch_and_in_a_second_beyond_the_imports(copy, root: Path) -> None:
    folder = copy("run-0")
    head, row = (folder / "history.csv").read_text().splitlines()[:2]
    (folder / "history.csv").write_text("\n".join([head, *[row] * 80]) + "\n")
    for path in (*folder.glob("*.pt"), *folder.glob("*.npz"), *folder.glob("*.png")):
        path.unlink()
    for number in range(1, 200):
        shutil.copytree(folder, root / f"run-{number}")
    (root / "run-7").rename(root / os.fsdecode(b"run-\xff"))  # a name that is no text
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2] / "experiments")!r})
import runs
started = time.process_time()
runs.main(["list", {str(root)!r}])
print(time.process_time() - started, "torch" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, torch = done.stderr.split()
    assert len(done.stdout.splitlines()) == 202
    assert torch == "False"
    assert float(seconds) < 2  # a quarter of a second of a processor


# show


def test_one_run_is_shown_with_all_that_is_needed_to_do_it_again(call, copy) -> None:
    folder = copy("one")
    status, metrics = read_json(folder / "run.json"), read_json(folder / "metrics.json")
    done = call("runs", "show", folder)
    assert (done.status, done.err) == (0, "")
    found = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in done.out.splitlines()]
    assert ["command", status["command"]] in found
    assert ["state", "finished, incomplete: --max-steps 12"] in found
    assert ["recipe.lr", "0.005", "0.001"] in found
    assert ["model_params.n_heads", "2", "-"] in found
    assert not any("recipe.gamma" in cells for cells in found)  # as by default
    assert ["average", *(f"{metrics['average'][name]:.4f}" for name in ("MAE", "RMSE", "MAPE"))] in found
    assert f"torch {status['versions']['torch']}" in done.out
    assert [cells[2] for cells in found if cells and cells[0] == "best.pt"] == [f"whole, epoch {metrics['epoch']}"]


def test_checkpoints_that_are_not_whole_are_named(call, copy) -> None:
    folder = copy("one")
    (folder / "last.pt").write_bytes((folder / "last.pt").read_bytes()[:-50])
    (folder / "previous.pt").write_text("nothing")
    page = json.loads(call("runs", "show", folder, "--json").out)
    whole = {one["file"]: one["whole"] for one in page["checkpoints"]}
    assert whole == {"best.pt": True, "last.pt": False, "previous.pt": False}
    assert all("damaged" in one["problem"] for one in page["checkpoints"] if not one["whole"])
    assert call("runs", "show", folder).status == 0


def test_a_killed_start_is_shown_as_one(call, copy) -> None:
    starts = [{"date": "2024-05-06T07:08:09+00:00", "commit": None, "ended": None, "exit_reason": None}]
    folder = copy("one", status="running", starts=starts)
    assert line_of(call("runs", "show", folder).out, "2024-05-06 07:08")[3] == "killed"


def test_what_is_no_run_is_refused(refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused("runs", "show", "nothing") == "nothing is not there, expected the folder of a run"
    assert refused("runs", "show", "file") == "file is a file, expected the folder of a run"
    assert refused("runs", "show", ".") == ". is not the folder of a run: it holds no run.json"
    assert refused("runs", "compare", ".", ".") == ". is not the folder of a run: it holds no run.json"
    assert refused("runs", "compare", ".") == "two runs or more can be compared, got 1"
    assert "COMMAND" in refused("runs")


# compare


def test_runs_differ_in_what_was_changed_and_in_nothing_else(call, copy) -> None:
    one, two = copy("one"), copy("two")
    config, metrics, status = (read_json(two / name) for name in ("config.json", "metrics.json", "run.json"))
    config["recipe"]["lr"] = 0.25
    config["model_params"]["attention"] = "elu"
    metrics["average"]["MAE"] += 0.5
    status["versions"]["torch"] = "9.9"
    for name, content in (("config.json", config), ("metrics.json", metrics), ("run.json", status)):
        write_json(two / name, content)
    found = json.loads(call("runs", "compare", one, two, "--json").out)
    assert {line["key"]: line["values"] for line in found["config"]} == {
        "recipe.lr": [0.005, 0.25],
        "model_params.attention": [None, "elu"],
    }
    assert [line["key"] for line in found["code"]] == ["versions.torch"]
    differences = {line["metric"]: line["differences"][1] for line in found["metrics"]}
    assert differences.pop("average.MAE") == pytest.approx(0.5)
    assert set(differences.values()) <= {0, None}
    assert found["same_data"]
    page = call("runs", "compare", one, two).out
    assert line_of(page, "recipe.lr") == ["recipe.lr", "0.005", "0.25"]
    assert line_of(page, "average.MAE")[3] == "+0.5000"


def test_runs_on_other_data_do_not_compare(call, copy) -> None:
    one, two = copy("one", data={"name": "TOWN", "checksum": "a"}), copy("two", data={"name": "TOWN", "checksum": "b"})
    assert "DIFFERENT data" in call("runs", "compare", one, two).out
    edit(two / "run.json", data={"name": "TOWN", "checksum": "a"})
    assert "DIFFERENT data" not in call("runs", "compare", one, two).out


def test_a_run_without_metrics_is_compared_by_its_config(call, copy) -> None:
    one, two = copy("one"), copy("two", status="failed", metrics=False)
    found = json.loads(call("runs", "compare", one, two, "--json").out)
    assert (found["config"], found["states"]) == ([], ["finished", "failed"])
    assert all(line["values"][1] is None for line in found["metrics"])


# clean


def test_only_runs_that_came_to_nothing_go_and_only_when_told_so(call, copy, root: Path) -> None:
    copy("finished")
    copy("scored before it failed", status="failed")
    for state in ("failed", "failed: ValueError('old')", "interrupted", "running"):  # the last one is nobody's
        copy(state.replace(":", "").replace("(", "").replace(")", "").replace("'", ""), status=state, metrics=False)
    copy("deep/in/killed", status="running", metrics=False)
    before = files_below(root)
    told = call("runs", "clean", root)
    assert (told.status, told.err) == (0, "")
    assert files_below(root) == before
    assert "would be freed; --yes removes these files" in told.out
    plan = json.loads(call("runs", "clean", root, "--json").out)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    done = call("runs", "clean", root, "--yes")
    assert (done.status, done.err) == (0, "")
    assert {path.name for path in root.iterdir()} == {"finished", "scored before it failed", "deep"}
    assert not (root / "deep" / "in" / "killed").exists()
    assert plan["size_bytes"] == size - sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert call("runs", "clean", root).out.endswith(f"{root}: nothing to remove\n")


def test_a_run_at_work_is_left_alone(call, copy, root: Path) -> None:
    folder = copy("one", status="running", metrics=False)
    before = files_below(root)
    with at_work(folder):
        # This process knows its own locks; another one sees a run.
        command = [sys.executable, "experiments/runs.py", "clean", str(root), "--yes"]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
        assert done.stdout == f"{root}: nothing to remove\n"
        assert files_below(root) == before | {"one/.lock"}
        refused = call("runs", "clean", root, "--yes")
        assert (refused.status, files_below(root)) == (2, before | {"one/.lock"})
        assert "is training in it" in refused.err


def test_what_may_run_on_another_machine_is_left_alone_for_a_day(call, copy, root: Path) -> None:
    elsewhere = {"host": "node7", "pid": 5, "started": None}
    folder = copy("one", status="running", metrics=False, process=elsewhere)
    make_old(folder, 0.5)
    assert "killed, or still at work on node7: a file changed within a day" in call("runs", "clean", root, "--yes").out
    assert folder.exists()
    make_old(folder, 1.1)
    call("runs", "clean", root, "--yes")
    assert not folder.exists()


def test_what_changed_lately_stays(call, copy, root: Path) -> None:
    for name, days in (("old", 8), ("new", 6)):
        make_old(copy(name, status="failed", metrics=False), days)
    call("runs", "clean", root, "--older-than", 7, "--yes")
    assert [path.name for path in root.iterdir()] == ["new"]


@pytest.mark.parametrize("days", ["-1", "nan", "inf", "soon"])
def test_days_that_are_none_are_refused(refused, days: str) -> None:
    assert "--older-than" in refused("runs", "clean", ".", "--older-than", days)


def test_files_of_others_and_what_links_point_to_stay(call, copy, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "events.out.tfevents.1").write_text("mine")
    (outside / "best.pt").write_text("mine")
    folder = copy("one", status="failed", metrics=False)
    write_text(folder / "notes.txt", "mine")
    shutil.rmtree(folder / "tensorboard")
    (folder / "tensorboard").symlink_to(outside)
    (folder / "best.pt").unlink()
    (folder / "best.pt").symlink_to(outside / "best.pt")
    shutil.copytree(folder, outside / "run", symlinks=True)
    (root / "way out").symlink_to(outside)
    before = files_below(outside)
    done = call("runs", "clean", root, "--yes")
    assert (done.status, files_below(outside)) == (0, before)
    assert files_below(folder) == {"best.pt", "notes.txt", "tensorboard"}
    for name in ("best.pt", "notes.txt", "tensorboard"):
        assert f"{folder}/{name} stays: no run has written it" in done.out


def test_of_finished_runs_only_what_serves_to_go_on_goes(call, copy, root: Path) -> None:
    folder, without_best = copy("one"), copy("two")
    (without_best / "best.pt").unlink()
    copy("three", status="failed", metrics=False)
    shutil.copy(folder / "last.pt", folder / "previous.pt")
    before = files_below(root)
    done = call("runs", "clean", root, "--checkpoints", "--yes")
    assert files_below(root) == before - {"one/last.pt", "one/previous.pt"}
    assert f"{without_best} stays: finished without a best.pt" in done.out


def test_what_cannot_be_removed_is_one_line_and_the_rest_goes(call, copy, root: Path) -> None:
    folder, other = (copy(name, status="failed", metrics=False) for name in ("one", "two"))
    (folder / ".lock").mkdir()  # as good as a read-only folder, for root too
    done = call("runs", "clean", root, "--yes")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert f"1 of 2 could not be removed: output folder {folder} cannot be written to" in done.err
    assert not other.exists()


# A training as it happens


def test_a_training_is_running_then_killed_and_can_be_cleaned(call, start, town, root: Path, listed) -> None:
    with start("train", *town.arguments, "--epochs", 5000, "--output-dir", root / "run") as training:
        try:
            deadline = time.monotonic() + 60
            while not (root / "run" / "history.csv").exists():
                assert training.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            (run,) = listed()
            assert run["state"] == "running"
            assert call("runs", "clean", root, "--yes").out == f"{root}: nothing to remove\n"
            assert training.poll() is None
        finally:
            training.send_signal(signal.SIGKILL)
    (run,) = listed("--state", "killed")
    assert run["epochs"] >= 1
    assert datetime.now(timezone.utc) - datetime.fromisoformat(run["started"]) < timedelta(minutes=2)
    done = call("runs", "clean", root, "--yes")
    assert (done.status, list(root.iterdir())) == (0, []), done.out + done.err
