"""The error for a name that is not known, with the nearest one that is."""

import difflib
from collections.abc import Iterable


def unknown_name(what: str, got: object, known: Iterable[str]) -> ValueError:
    """The error to raise: `what` is one of `known`, and this is what came, with the nearest known name if one is near.

    Args:
        what: what is named, as the message begins: `"entropy"`.
        got: what came; no string is near to anything.
        known: the names there are, in the order in which the message lists them.

    Returns:
        ValueError, such as `entropy is one of taylor, gaussian, got 'gausian' (did you mean 'gaussian'?)`.
    """
    known = list(known)
    near = difflib.get_close_matches(got, known, n=1) if isinstance(got, str) else []
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return ValueError(f"{what} is one of {', '.join(known)}, got {got!r}{hint}")
