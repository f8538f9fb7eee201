"""Files are there whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from ealinformer.errors import InputError
from ealinformer.files import replaced_whole, write_text


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
