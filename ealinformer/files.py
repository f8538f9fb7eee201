"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ealinformer.errors import InputError


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour of `path` to write to, and rename it to `path` once the block ends well.

    The neighbour keeps the suffix of `path`, by which libraries choose a format. OSError is the caller's to explain.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # what went wrong before says more
            temporary.unlink()


@contextmanager
def replaced_whole(path: Path) -> Iterator[Path]:
    """The same, for what a user asked to be written.

    Raises:
        InputError: the folder cannot be written to.
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
