"""What all command lines share: one-line errors, exit statuses, help that keeps its layout."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from ealinformer.errors import InputError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose help keeps the line breaks of its examples and whose errors are one line."""

    def __init__(self, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def run(main: Callable[[Sequence[str] | None], None]) -> NoReturn:
    """Run a command line and exit: 0 on success, 2 on bad input, 130 on Ctrl-C; our own bugs keep their traceback."""
    try:
        main(None)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)
