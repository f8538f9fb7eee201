"""Whatever a reader does in the worker's process is told in words, and the next file is read."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import misbehaving
from tests.fuzz.worker import Read, Worker


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(time_limit=0.3) as process:
        yield process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file.bin"
    file.write_bytes(b"good")
    return file


def test_good_files_are_valid_and_bad_ones_refused(worker: Worker, path: Path) -> None:
    assert worker.read(misbehaving.well, path).status == "valid"
    path.write_bytes(b"bad")
    outcome = worker.read(misbehaving.well, path)
    assert (outcome.status, outcome.reason) == ("refused", f"{path}: is not good; expected good")


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (misbehaving.works_for_ever, "worked for more than 0.3 s: fuzz/misbehaving.py"),
        (misbehaving.waits_for_ever, "waited for more than 1.8 s: fuzz/misbehaving.py"),
        (misbehaving.dies, "ended by SIGSEGV: fuzz/misbehaving.py"),
        (misbehaving.leaves, "SystemExit: 3"),
        (misbehaving.takes_memory, "MemoryError"),
        (misbehaving.hides_memory, "asked for more memory than it may"),
        (misbehaving.raises_other, "KeyError: 'data'"),
        (misbehaving.names_nothing, "does not name the file"),
        (misbehaving.says_two_lines, "is not one printable line"),
        (misbehaving.talks, "is too long: 10"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_everything_else_is_a_finding_and_the_next_file_is_read(
    worker: Worker, path: Path, read: Read, said: str
) -> None:
    outcome = worker.read(read, path)
    assert outcome.status == "finding"
    assert said in outcome.reason
    assert worker.read(misbehaving.well, path).status == "valid"


def test_memory_is_counted_from_what_the_process_held_before(worker: Worker, path: Path) -> None:
    assert worker.read(misbehaving.well, path).peak < 64 * 2**20


def test_no_process_is_left_behind(path: Path) -> None:
    with Worker() as process:
        assert process.read(os.fspath, path).status == "valid"
        number = process._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
