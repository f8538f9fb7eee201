"""The folder of a run: who may work in it, what it says of how the run came about and ended, and strict JSON."""

import errno
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import ealinformer
from ealinformer.errors import InputError
from ealinformer.training import RunConfig
from ealinformer.training.runs import lock
from ealinformer.training.runs.folder import (
    STATES,
    at_work,
    begin,
    birth,
    create,
    end,
    is_run,
    logging_to,
    read_json,
    read_row,
    state_of,
    write_json,
)
from ealinformer.training.runs.history import History, read_history
from ealinformer.training.runs.lock import LOCK, is_alive, this_process

# Without the package around it, which takes a second to import.
HEAD = f"""
import json, os, runpy, sys, time
from pathlib import Path
lock = runpy.run_path({lock.__file__!r})
at_work, this_process, InputError = lock["at_work"], lock["this_process"], lock["InputError"]
folder = Path(sys.argv[1])
"""
WORKER = """
with at_work(folder):
    (folder / "run.json").write_text(json.dumps({"status": "running", "process": this_process()}))
    print("ready", flush=True)
    time.sleep(60)
"""


@contextmanager
def process(code: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `code`; killed in the end, where it still runs."""
    command = [sys.executable, "-c", HEAD + code, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as popen:
        try:
            yield popen
        finally:
            popen.kill()


def said(popen: subprocess.Popen[str]) -> str:
    assert popen.stdout is not None
    return popen.stdout.readline().strip()


@pytest.fixture
def run(configure: Callable[..., RunConfig]) -> RunConfig:
    return configure()


@pytest.fixture
def folder(run: RunConfig, tmp_path: Path) -> Path:
    """The folder of a run that has not begun."""
    create(tmp_path / "run", run)
    return tmp_path / "run"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of its own around the package, with one commit; the file to change is in it."""
    root = tmp_path / "clone"
    package = root / "ealinformer" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text("one = 1\n")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    for words in (["init"], ["add", "."], ["commit", "-m", "one"]):
        subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True)
    monkeypatch.setattr(ealinformer, "__file__", str(package))
    return package


def start(folder: Path, run: RunConfig, resumed_from: str | None = None) -> dict[str, Any]:
    begin(folder, run, data_checksum="abc", resumed_from=resumed_from)
    return read_json(folder / "run.json")


# Who may work in it


def test_a_second_process_is_refused_by_the_number_and_host_of_the_first_one(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with process(WORKER, folder) as other:
        assert said(other) == "ready"
        assert state_of(folder) == "running"
        named = re.escape(f"another process ({other.pid} on {socket.gethostname()}) is training in it")
        with pytest.raises(InputError, match=named), at_work(folder):
            pass
        assert {path.name for path in folder.iterdir()} == {LOCK, "run.json"}  # the first one's, untouched


def test_after_kill_9_the_run_is_killed_and_the_next_process_is_let_in(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with process(WORKER, folder) as other:
        assert said(other) == "ready"
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert state_of(folder) == "killed"
    assert (folder / LOCK).exists()
    with at_work(folder):
        assert state_of(folder) == "killed"  # what the one who resumes it wants to know
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_a_worker_that_outlives_its_killed_run_does_not_hold_the_folder(tmp_path: Path) -> None:
    """A loader's workers are forked; they notice seconds later that their parent is gone."""
    code = """
with at_work(folder):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""
    with process(code, tmp_path) as other:
        child = int(said(other))
        try:
            other.send_signal(signal.SIGKILL)
            other.wait()
            os.kill(child, 0)  # is there
            with at_work(tmp_path):
                pass
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_that_leaves_the_block_does_not_let_go_of_it(tmp_path: Path) -> None:
    child = -1
    try:
        with at_work(tmp_path):
            child = os.fork()
            if child:
                os.waitpid(child, 0)
                assert lock.is_held(tmp_path)
                assert (tmp_path / LOCK).exists()
    finally:
        if not child:
            os._exit(0)


def test_a_lock_file_that_is_removed_between_opening_and_locking_lets_nobody_in_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, flock = ExitStack(), lock.fcntl.flock
    first.enter_context(at_work(tmp_path))

    def leave_and_lock(descriptor: int, operation: int) -> None:
        first.close()
        flock(descriptor, operation)

    monkeypatch.setattr(lock.fcntl, "flock", leave_and_lock)
    with at_work(tmp_path):
        monkeypatch.undo()
        with pytest.raises(InputError, match="is training in it"), at_work(tmp_path):
            pass


def test_processes_that_come_and_go_are_never_two_in_the_folder(tmp_path: Path) -> None:
    """The lock file is removed and made anew each time."""
    code = """
done = 0
while done < 30:
    try:
        with at_work(folder):
            (folder / "busy").touch(exist_ok=False)
            (folder / "busy").unlink()
            done += 1
    except InputError as error:
        assert "is training in it" in str(error)
print("done")
"""
    with process(code, tmp_path) as one, process(code, tmp_path) as two, process(code, tmp_path) as three:
        assert [said(one), said(two), said(three)] == ["done"] * 3


def test_what_was_made_for_nothing_is_removed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"), at_work(tmp_path / "ELinFormer" / "TINY" / "run"):
        raise InputError("no checkpoint")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_or_written_stays(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with at_work(tmp_path / "old"):
        pass
    with at_work(tmp_path / "a" / "new"):
        (tmp_path / "a" / "new" / "config.json").touch()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "a",
        "a/new",
        "a/new/config.json",
        "old",
    ]


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = r"output folder .*file/run cannot be made: Not a directory"
    with pytest.raises(InputError, match=said), at_work(tmp_path / "file" / "run"):
        pass


def test_without_locks_a_run_goes_on_and_is_known_by_its_process(
    folder: Path, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some file systems of networks."""

    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with at_work(folder):
        status = start(folder, run)
        assert state_of(folder) == "running"
        with process("print('here', flush=True); time.sleep(60)", folder) as other:
            assert said(other) == "here"
            theirs = {**status["process"], "pid": other.pid, "started": lock._start_of(other.pid)}
            write_json(folder / "run.json", {**status, "process": theirs})
            assert state_of(folder) == "running"
        assert state_of(folder) == "killed"


@pytest.mark.parametrize(
    ("change", "alive"),
    [
        ({}, True),
        ({"started": "some other boot 17"}, False),  # a later process of the same number
        ({"host": "elsewhere"}, False),
        ({"pid": 2**31 - 5}, False),
        ({"pid": -1}, False),
        ({"pid": "1"}, False),
    ],
)
def test_a_process_is_known_by_host_number_and_start(change: dict[str, Any], alive: bool) -> None:
    assert is_alive({**this_process(), **change}) is alive


def test_what_is_no_process_is_not_alive() -> None:
    assert not any(is_alive(thing) for thing in (None, 3, "pid", []))


# Its beginning


def test_a_folder_that_holds_files_is_refused(run: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="already holds files; name another one with --output-dir"):
        create(tmp_path, run)
    assert not (tmp_path / "config.json").exists()


def test_what_a_killed_process_left_half_written_is_nothing(run: RunConfig, tmp_path: Path) -> None:
    for name in (LOCK, ".config.123.part.json", ".best.77.part.pt"):
        (tmp_path / name).write_text("{")
    create(tmp_path, run)
    assert RunConfig.model_validate_json((tmp_path / "config.json").read_text()) == run


def test_again_takes_the_place_of_a_run(folder: Path, configure: Callable[..., RunConfig]) -> None:
    create(folder, configure("seed=9"), again=True)
    assert read_json(folder / "config.json")["seed"] == 9


def test_a_run_is_known_as_soon_as_it_could_be_killed(run: RunConfig, tmp_path: Path) -> None:
    with at_work(tmp_path):
        assert not is_run(tmp_path)
        create(tmp_path, run)
        assert is_run(tmp_path)
        start(tmp_path, run)
    assert is_run(tmp_path)


@pytest.mark.parametrize("text", ["{}", "{", '{"model": "bert"}', "[]"])
def test_the_config_of_something_else_makes_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert not is_run(tmp_path)


# What it says


def test_a_start_says_where_how_and_on_what(folder: Path, run: RunConfig, checkout: Path) -> None:
    status = start(folder, run)
    assert (status["status"], status["exit_reason"], status["seed"]) == ("running", None, 1)
    assert status["data"] == {"name": "TINY", "checksum": "abc"}
    assert status["process"] == this_process()
    assert {"machine", "versions", "commit", "environment", "command", "date"} <= status.keys()
    assert status["starts"] == [
        {
            **{key: status[key] for key in ("date", "command", "commit")},
            "code_diff": None,
            "packages": "packages.txt",
            "resumed_from": None,
            "ended": None,
            "exit_reason": None,
        }
    ]
    assert {path.name for path in folder.iterdir()} == {"config.json", "run.json", "packages.txt"}
    assert f"pytest=={pytest.__version__}" in (folder / "packages.txt").read_text().splitlines()


def test_the_end_says_when_and_why(folder: Path, run: RunConfig) -> None:
    begun = start(folder, run)
    end(folder, "interrupted", "SIGTERM in epoch 2")
    status = read_json(folder / "run.json")
    assert (status["status"], status["exit_reason"]) == ("interrupted", "SIGTERM in epoch 2")
    (one,) = status["starts"]
    assert one["ended"] >= one["date"]
    assert one["exit_reason"] == "SIGTERM in epoch 2"
    assert {**status, **{key: begun[key] for key in ("status", "exit_reason", "starts")}} == begun


def test_a_resume_is_a_start_more_and_the_top_stays_that_of_the_first(
    folder: Path, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(folder, run)
    end(folder, "interrupted", "SIGINT")
    start(folder, run, "epoch 1 done")  # and killed
    monkeypatch.setattr(sys, "argv", ["train.py", "--another"])
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    last = start(folder, run, "epoch 3, step 120 of 669")
    assert {key: last[key] for key in ("date", "command", "commit")} == {
        key: first[key] for key in ("date", "command", "commit")
    }
    assert [one["resumed_from"] for one in last["starts"]] == [None, "epoch 1 done", "epoch 3, step 120 of 669"]
    assert [one["exit_reason"] for one in last["starts"]] == ["SIGINT", "killed", None]
    assert last["starts"][2]["command"].endswith("train.py --another")
    assert last["starts"][2]["environment"]["OMP_NUM_THREADS"] == "17"
    assert not {"environment", "versions", "machine", "data"} & last["starts"][1].keys()  # as at the first start
    assert last["status"] == "running"


def test_the_code_of_each_start_can_be_had_again(folder: Path, run: RunConfig, checkout: Path) -> None:
    root = checkout.parents[1]
    checkout.write_text("one = 2\r\n")
    start(folder, run)
    start(folder, run, "epoch 1 done")
    (root / "mine.py").touch()
    checkout.write_text("one = 3\n")
    status = start(folder, run, "epoch 2 done")
    assert [one["code_diff"] for one in status["starts"]] == ["code.diff", "code.diff", "code-2.diff"]
    assert [one["packages"] for one in status["starts"]] == ["packages.txt"] * 3
    assert "#   mine.py" in (folder / "code-2.diff").read_text().splitlines()
    for name, text in (("code.diff", b"one = 2\r\n"), ("code-2.diff", b"one = 3\n")):
        subprocess.run(["git", "-C", str(root), "checkout", "--quiet", "."], check=True)
        subprocess.run(["git", "-C", str(root), "apply", str(folder / name)], check=True)
        assert checkout.read_bytes() == text


def test_a_run_that_starts_from_nothing_again_forgets_what_was_before(
    folder: Path, run: RunConfig, checkout: Path
) -> None:
    checkout.write_text("one = 2\n")
    start(folder, run)
    checkout.write_text("one = 1\n")
    create(folder, run, again=True)
    assert len(start(folder, run)["starts"]) == 1
    assert not (folder / "code.diff").exists()


@pytest.mark.parametrize(
    ("status", "state"),
    [*((word, word) for word in STATES if word != "running"), ("failed: RuntimeError('no')", "failed")],
)
def test_the_state_is_what_the_file_says_where_the_run_is_over(tmp_path: Path, status: str, state: str) -> None:
    write_json(tmp_path / "run.json", {"status": status})
    assert state_of(tmp_path) == state


def test_a_run_of_before_there_were_locks_that_runs_for_ever_was_killed(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"status": "running", "command": "python train.py"})
    assert state_of(tmp_path) == "killed"


@pytest.mark.parametrize("status", [None, 3, "", "done", ["running"]])
def test_an_unknown_state_is_named(tmp_path: Path, status: object) -> None:
    write_json(tmp_path / "run.json", {"status": status})
    with pytest.raises(InputError, match=r"run.json: status is .*, expected one of running, finished"):
        state_of(tmp_path)


# Rows of results


def finish(folder: Path) -> None:
    metrics = {"model": "M", "dataset": "TINY", "average": {}, "horizons": {}, "steps": 6, "stopped_by": "all done"}
    write_json(folder / "metrics.json", metrics)
    History(folder / "history.csv").add({"epoch": 1, "val_loss": 2.5})
    end(folder, "finished", "all done")


def test_a_row_says_nothing_of_who_ran_it(folder: Path, run: RunConfig) -> None:
    start(folder, run)
    finish(folder)
    row = read_row(folder)
    assert {"machine", "versions", "commit", "environment", "command", "date", "seed", "data"} <= row.keys()
    assert not {"status", "process", "starts", "exit_reason", "resumed"} & row.keys()
    for public in (row, birth(folder)):
        assert socket.gethostname() not in json.dumps({**public, "command": ""})
        assert str(os.getpid()) not in re.findall(r"\d+", json.dumps({**public, "commit": "", "command": ""}))


def test_a_row_says_what_else_the_run_went_on_with(
    folder: Path, run: RunConfig, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MALLOC_TOP_PAD_", raising=False)
    first = start(folder, run)
    start(folder, run, "epoch 1 done")
    checkout.write_text("one = 2\n")
    last = start(folder, run, "epoch 2 done")
    finish(folder)
    row = read_row(folder)
    assert row["commit"] == first["commit"]
    assert row["resumed"] == [{"date": last["starts"][2]["date"], "commit": f"{first['commit']}+dirty"}]


def test_a_row_of_before_there_were_starts_is_read_as_ever(folder: Path) -> None:
    old = {"machine": {"cpu": "x"}, "versions": {}, "commit": None, "command": "python", "date": "2026-01-01"}
    write_json(folder / "run.json", {"status": "running", **old})
    finish(folder)
    status = read_json(folder / "run.json")
    del status["exit_reason"]
    write_json(folder / "run.json", status)
    row = read_row(folder)
    assert {key: row[key] for key in old} == old
    assert (row["complete"], row["history"]) == (True, [{"epoch": 1, "val_loss": 2.5}])


# JSON, history and log


def test_json_is_strict_and_a_number_that_is_none_is_null(tmp_path: Path) -> None:
    content = {"a": math.nan, "b": [math.inf, {"c": (-math.inf, 1.5)}], "d": {"e": 3, "f": True, "g": "NaN"}}
    write_json(tmp_path / "x.json", content)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse)
    assert found == {"a": None, "b": [None, {"c": [None, 1.5]}], "d": {"e": 3, "f": True, "g": "NaN"}}


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": 1}x', "\0", "9" * 5000, "[]", "3", "null"])
def test_what_is_no_json_object_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json (cannot be read|holds a)") as caught:
        read_json(tmp_path / "run.json")
    assert "\n" not in str(caught.value)


def test_a_history_restored_and_continued_is_that_of_a_run_without_a_break(tmp_path: Path) -> None:
    rows = [{"epoch": n, "lr": 0.1 / 3**n, "val_loss": math.nan if n == 2 else n / 7} for n in range(1, 5)]
    through, broken = History(tmp_path / "through.csv"), History(tmp_path / "broken.csv")
    for row in rows:
        through.add(row)
    broken.path.write_text("of,another,try\n1,2,3\n")
    broken.restore(rows[:2])
    assert read_history(broken.path)[0] == rows[0]
    for row in rows[2:]:
        broken.add(row)
    assert broken.path.read_bytes() == through.path.read_bytes()
    assert rows[0] == {"epoch": 1, "lr": 0.1 / 3, "val_loss": 1 / 7}  # nobody has changed the checkpoint's
    broken.restore([])
    assert not broken.path.exists()


def test_rows_may_lack_columns_of_others(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "val_loss": 0.5}, {"epoch": 2, "val_loss": 0.25, "skipped": 3}]
    History(tmp_path / "history.csv").restore(rows)
    assert read_history(tmp_path / "history.csv") == rows


@pytest.mark.parametrize(
    "text", ["epoch,lr\n1\n", "epoch,lr\n1,2,3\n", "epoch\nx\n", 'epoch\n"1', "epoch\n\0\n", "a\n" + "1" * 200_000]
)
def test_what_is_no_history_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(InputError, match=r"history.csv cannot be read as the history of a run: ."):
        read_history(tmp_path / "history.csv")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_costs_the_log_and_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.log").symlink_to("/dev/full")
    with logging_to(tmp_path) as logger:
        logger.info("epoch 1")
        logger.info("epoch 2")
    assert capsys.readouterr().err == "epoch 1\nepoch 2\n"
