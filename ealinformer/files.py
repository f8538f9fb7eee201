"""Files that are there whole or not at all."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ealinformer.errors import InputError


@contextmanager
def replaced_whole(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour of `path` to write to, and rename it to `path` once the block ends well.

    The neighbour keeps the suffix of `path`, by which libraries choose a format.

    Raises:
        InputError: the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # what went wrong before says more
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file that then becomes `path`."""
    with replaced_whole(path) as temporary:
        write(temporary)
