"""Imported first: Ctrl-C while the libraries are still being imported, which takes seconds, is one line too."""

import sys
from types import TracebackType


def _one_line(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)  # the interpreter then ends by SIGINT, which a shell shows as 130
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _one_line
