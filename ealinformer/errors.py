"""The one exception for what a user can mend: command lines turn it into one line and exit status 2."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A file, config, argument or checkpoint cannot be used.

    The message is a single line that names the thing, says what was found and what was expected.
    """


def suggestion(name: str, known: Iterable[str]) -> str:
    """`" (did you mean 'batch_size'?)"` for the nearest of `known`, or an empty string when none is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""
