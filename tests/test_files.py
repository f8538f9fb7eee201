"""Files are there whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ealinformer.errors import InputError
from ealinformer.files import is_running, remove_leftovers, replaced_whole, write_text


def write_with(path, write):
    with replaced_whole(path) as temporary:
        write(temporary)


def test_text_is_written_in_utf_8_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "eins\n")
    write_text(path, "zwei £ – 二\n")
    assert path.read_bytes() == "zwei £ – 二\n".encode()
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_the_temporary_file_is_a_hidden_neighbour_with_the_same_suffix(tmp_path: Path) -> None:
    with replaced_whole(tmp_path / "data.v1.npz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".npz"
        assert temporary.name.startswith(".")
        temporary.write_text("new")
        assert not (tmp_path / "data.v1.npz").exists()
    assert os.listdir(tmp_path) == ["data.v1.npz"]


def test_the_old_file_is_whole_until_the_new_one_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "old")

    def write(temporary: Path) -> None:
        temporary.write_text("n")
        assert path.read_text() == "old"
        temporary.write_text("new")

    write_with(path, write)
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt(), MemoryError()])
def test_an_error_half_way_passes_on_and_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_with(path, write)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "old")

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match=rf"^cannot write {path}: No space left on device$"):
        write_with(path, write)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_folder_that_is_not_there_or_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*notes\.txt: No such file or directory"):
        write_text(tmp_path / "nowhere" / "notes.txt", "new")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"cannot write .*notes\.txt: Not a directory"):
        write_text(tmp_path / "file" / "notes.txt", "new")
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*notes\.txt"):
        write_text(tmp_path / "notes.txt", "new")
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_block_that_writes_nothing_is_an_error_and_not_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*notes\.txt"), replaced_whole(tmp_path / "notes.txt"):
        pass
    assert os.listdir(tmp_path) == []


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after any of these steps finds the old file or the new one."""
    steps: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        steps.append(("sync", f"folder {path.name}" if path.is_dir() else path.read_text()))
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        steps.append(("rename", target.name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_text(tmp_path / "notes.txt", "new")
    assert steps == [("sync", "new"), ("rename", "notes.txt"), ("sync", f"folder {tmp_path.name}")]


def test_a_disk_that_cannot_take_the_bytes_on_syncing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match=rf"^cannot write {path}: Input/output error$"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, which can be mounted again with other options."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("only the administrator can mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full_is_one_line_and_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "notes.txt"
    write_text(path, "old")
    with pytest.raises(InputError, match=rf"^cannot write {path}: No space left on device$"):
        write_text(path, "n" * 100_000)
    assert path.read_text() == "old"
    assert os.listdir(small_disk) == ["notes.txt"]


def test_a_disk_that_is_read_only_is_one_line_and_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "notes.txt"
    write_text(path, "old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(InputError, match=rf"^cannot write {path}: Read-only file system$"):
        write_text(path, "new")
    remove_leftovers(small_disk)
    assert path.read_text() == "old"
    assert os.listdir(small_disk) == ["notes.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may write to every folder")
def test_a_folder_that_is_read_only_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match=r"cannot write .*notes\.txt: Permission denied"):
            write_text(tmp_path / "notes.txt", "new")
    finally:
        tmp_path.chmod(0o700)
    assert os.listdir(tmp_path) == []


WRITE_AND_DIE = """
import os, sys, signal
from pathlib import Path
from ealinformer.files import replaced
with replaced(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last.v1.pt"
    write_text(path, "old")
    killed = subprocess.Popen([sys.executable, "-c", WRITE_AND_DIE, str(path)])
    assert killed.wait() == -signal.SIGKILL
    leftover = f".last.v1.{killed.pid}.part.pt"
    assert sorted(os.listdir(tmp_path)) == [leftover, "last.v1.pt"]
    others = [f".last.{os.getpid()}.part.pt", ".notes.1.part", f"last.{killed.pid}.part.pt", ".last.x.part.pt", ".part"]
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / f".folder.{killed.pid}.part").mkdir()
    (tmp_path / f".notes.{killed.pid}.part").write_text("half")
    remove_leftovers(tmp_path)
    assert set(os.listdir(tmp_path)) == {"last.v1.pt", *others, f".folder.{killed.pid}.part"}
    remove_leftovers(tmp_path / "nowhere")


@pytest.mark.parametrize("pid", ["", "x", "9" * 30])
def test_what_is_no_process_does_not_run(pid: str) -> None:
    assert is_running(str(os.getpid()))
    assert is_running("1")
    assert not is_running(pid)
