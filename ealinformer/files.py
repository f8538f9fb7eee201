"""Files that are there whole or not at all, after a power cut too."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ealinformer.errors import InputError

_TEMPORARY = re.compile(r"\..+\.(?P<pid>[0-9]+)\.part(\.[^.]*)?")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour of `path` to write to, and rename it to `path` once the block ends well.

    The neighbour keeps the suffix of `path`, by which libraries choose a format. OSError is the caller's to explain.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        # A rename can reach the disk before the bytes do; a power cut would then leave an empty file.
        sync_file(temporary)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):  # what went wrong before says more
            temporary.unlink()


@contextmanager
def replaced_whole(path: Path) -> Iterator[Path]:
    """The same, for what a user asked to be written.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    try:
        with replaced(path) as temporary:
            yield temporary
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole; InputError as in `replaced_whole`."""
    with replaced_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk; OSError where it cannot be put there."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def remove_leftovers(folder: Path) -> None:
    """Clear away the temporary files that processes which were killed left in `folder`.

    Those of a running process stay: it may be writing.
    """
    with suppress(OSError):  # a folder that is not there, or is read-only, loses nothing by it
        for path in folder.iterdir():
            match = _TEMPORARY.fullmatch(path.name)
            if match and path.is_file() and not is_running(match["pid"]):
                path.unlink()


def is_running(pid: str) -> bool:
    """Whether this machine has a process of that number; False for what is no number."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    # The new name is in place by now, and some file systems cannot sync a folder.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
