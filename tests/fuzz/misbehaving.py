"""Readers that do what no reader may, for the tests of what watches them."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from ealinformer.errors import InputError


def well(path: Path) -> None:
    """Reads, or refuses as it should."""
    if path.read_bytes() != b"good":
        raise InputError(f"{path}: is not good; expected good")


def works_for_ever(path: Path) -> None:
    """Never comes back."""
    while True:
        pass


def waits_for_ever(path: Path) -> None:
    """Never comes back and does nothing."""
    time.sleep(1000)


def dies(path: Path) -> None:
    """Takes its process with it, as a fault in a library's memory does."""
    os.kill(os.getpid(), signal.SIGSEGV)


def leaves(path: Path) -> None:
    """Ends the program."""
    raise SystemExit(3)


def takes_memory(path: Path) -> None:
    """Wants more than it may have."""
    np.ones(2**28)


def hides_memory(path: Path) -> None:
    """The same, and blames the file."""
    try:
        np.ones(2**28)
    except MemoryError as error:
        raise InputError(f"{path}: cannot be read; expected another file") from error


def raises_other(path: Path) -> None:
    """Raises what a command line would show as a bug."""
    raise KeyError("data")


def names_nothing(path: Path) -> None:
    """Refuses without saying what."""
    raise InputError("it is damaged")


def says_two_lines(path: Path) -> None:
    """Lets the file write into the message."""
    raise _with_message(f"{path}: is bad\nerror: all is well")


def talks(path: Path) -> None:
    """Quotes the whole file."""
    raise _with_message(f"{path}: holds {'a' * 10_000}")


def _with_message(message: str) -> InputError:
    """A refusal whose message is that, whatever the class makes of messages."""
    error = InputError("")
    error.args = (message,)
    return error
