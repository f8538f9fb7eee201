"""benchmarks/train_step.py: ratios are taken round by round, and bad arguments are one line."""

import pytest

from benchmarks import train_step
from ealinformer.errors import InputError


def test_ratios_are_of_the_same_round() -> None:
    """The machine becomes ten times slower in the middle; the ratio of the two models does not change."""
    reference = [1.0, 1.0, 1.0, 10.0, 10.0, 10.0]
    found = train_step.summary([seconds / 4 for seconds in reference], reference)
    assert (found["ratio"], found["ratio_p20"], found["ratio_p80"]) == (0.25, 0.25, 0.25)
    spread = train_step.summary([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0] * 6)
    assert (spread["seconds"], spread["ratio_p20"], spread["ratio_p80"]) == (3.5, 2.0, 5.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["PEMS80"], "unknown data set 'PEMS80'"), (["PEMS08", "--rounds", "0"], "have to be at least 1")],
)
def test_bad_arguments_are_bad_input(arguments: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        train_step.main(arguments)
