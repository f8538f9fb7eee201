"""What ends a command line in good order: something that a user can mend, or a signal."""

import difflib
import signal
from collections.abc import Iterable

_LONGEST = 900  # characters of a message


class InputError(ValueError):
    """A file, config, argument or checkpoint cannot be used: command lines exit with status 2.

    The message is a single line that names the thing, says what was found and what was expected. Line ends and what a
    terminal would obey are written out, and the middle of a long one is left out: files and arguments are quoted in it.
    """

    def __init__(self, message: str) -> None:
        line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)
        super().__init__(line if len(line) <= _LONGEST else f"{line[: _LONGEST - 205]} ... {line[-200:]}")


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to leave, and what could be saved is saved."""

    def __init__(self, number: int, said: str = "") -> None:
        name = signal.Signals(number).name
        super().__init__(f"interrupted by {name}{': ' if said else ''}{said}")
        self.number = number


def suggestion(name: str, known: Iterable[str]) -> str:
    """`" (did you mean 'batch_size'?)"` for the nearest of `known`, or an empty string when none is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""
