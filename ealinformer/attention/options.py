"""Values of options, checked where an attention is built and not where it first runs."""

from numbers import Integral


def positive_whole(name: str, value: object) -> int:
    """The value as an int.

    Raises:
        ValueError: it is not a whole number of at least 1. The message names the option and what came.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} has to be a positive whole number, got {value!r}")
    return int(value)
