"""What all command lines share: one-line errors, exit statuses, help that keeps its layout."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from ealinformer.errors import InputError, Interrupted

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose help keeps the line breaks of its examples and whose errors are one line."""

    def __init__(self, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def run(main: Callable[[Sequence[str] | None], None]) -> NoReturn:
    """Run a command line and exit: 0 on success, 2 on bad input, 130 on Ctrl-C, 141 on a broken pipe.

    A training that was asked to leave by a signal exits with 128 and its number: 143 on SIGTERM, 129 on SIGHUP.

    Our own bugs keep their traceback. What the machine refuses (a full disk, a file it may not read, no more memory) is
    bad input too. `... | head` ends a command line in silence.
    """
    if callable(signal.getsignal(signal.SIGINT)):  # it is not where Ctrl-C is ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in place of what was for the time of the imports
    try:
        main(None)
        if sys.stdout is not None:  # it is None where the caller closed it
            sys.stdout.flush()  # here, where a reader that is gone or a full disk is still caught
    except InputError as error:
        _fail(str(error))
    except MemoryError as error:
        _fail(f"out of memory: {error}" if str(error) else "out of memory")
    except BrokenPipeError:
        _drop_standard_output()
        sys.exit(EXIT_BROKEN_PIPE)
    except OSError as error:
        if error.errno is None:  # raised by Python code, not by the system
            raise
        _drop_standard_output()
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))
    except Interrupted as error:
        _say(str(error))
        sys.exit(128 + error.number)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)


def _fail(message: str) -> NoReturn:
    _say(f"error: {message}")
    sys.exit(EXIT_BAD_INPUT)


def _say(line: str) -> None:
    with suppress(OSError):  # the terminal, or who reads standard error, may be gone: the status still tells
        print(line, file=sys.stderr, flush=True)


def _drop_standard_output() -> None:
    """Where it cannot be written, keep the interpreter from complaining once more when it flushes at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
