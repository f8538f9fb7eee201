"""Taking turns: who is timed when and how often, and that a drift of the machine cancels."""

import statistics
from collections.abc import Callable

import pytest

from ealinformer.measure import timing
from ealinformer.measure.timing import Samples, interleaved, passes_in_a_sample, quantile, ratios, stopwatch, warm


class Machine:
    """A machine with a clock of its own; every pass makes it slower by `drift`."""

    def __init__(self, drift: float = 0.0) -> None:
        self.now = 0.0
        self.drift = drift
        self.log: list[str] = []

    def work(self, name: str, seconds: float) -> Callable[[], None]:
        def one_pass() -> None:
            self.log.append(name)
            self.now += seconds * (1 + self.drift * len(self.log))

        return one_pass

    def seconds_of(self, work: Callable[[], object], passes: int) -> float:
        start = self.now
        for _ in range(passes):
            work()
        return self.now - start


def test_turns_go_round_and_back() -> None:
    machine = Machine()
    works = {name: machine.work(name, 1.0) for name in "abc"}
    taken = interleaved(works, dict.fromkeys("abc", 1), rounds=4, turn_seconds=0, seconds_of=machine.seconds_of)
    assert "".join(machine.log) == "abc" + "cba" + "abc" + "cba"
    assert {name: samples.rounds for name, samples in taken.items()} == dict.fromkeys("abc", [[1.0]] * 4)


def test_short_work_is_repeated_within_a_sample_and_a_turn() -> None:
    machine = Machine()
    works = {"short": machine.work("s", 0.25), "long": machine.work("l", 5.0)}
    taken = interleaved(works, {"short": 2, "long": 1}, rounds=2, turn_seconds=2.0, seconds_of=machine.seconds_of)
    assert "".join(machine.log) == "s" * 8 + "l" + "l" + "s" * 8
    assert taken["short"] == Samples([[0.25] * 4] * 2, passes=2)
    assert taken["long"].all() == [5.0, 5.0]


def test_a_turn_takes_one_sample_where_the_clock_stands_still() -> None:
    calls = 0

    def stopped(work: Callable[[], object], passes: int) -> float:
        nonlocal calls
        calls += 1
        return 0.0 if calls < 5 else 1.0

    taken = interleaved({"a": lambda: None}, {"a": 1}, rounds=1, turn_seconds=0.5, seconds_of=stopped)
    assert taken["a"].all() == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_a_steady_drift_cancels_in_the_median_of_ratios() -> None:
    """Both take the same; timed one after the other, the second would look slower by half."""
    machine = Machine(drift=0.01)
    works = {name: machine.work(name, 1.0) for name in "ab"}
    taken = interleaved(works, {"a": 1, "b": 1}, rounds=50, turn_seconds=0, seconds_of=machine.seconds_of)
    assert statistics.median(ratios(taken["b"], taken["a"])) == pytest.approx(1, abs=0.005)
    a, b = taken["a"].all(), taken["b"].all()
    assert statistics.median(b) / statistics.median(a) == pytest.approx(1, abs=0.02)
    assert a[-1] > 1.9 * a[0]


def test_ratios_are_of_the_same_round() -> None:
    own, other = Samples([[2.0, 4.0, 3.0], [10.0]], 1), Samples([[1.0], [5.0, 5.0]], 1)
    assert ratios(own, other) == [3.0, 2.0]


def test_work_is_warm_after_its_first_pass() -> None:
    costs = iter([0.9, 0.2, 0.1, 0.3])
    assert warm(lambda: None, lambda work, passes: next(costs)) == 0.2


def test_long_work_is_not_run_again_to_be_warm() -> None:
    costs = iter([7.0])
    assert warm(lambda: None, lambda work, passes: next(costs)) == 7.0


def test_samples_last_long_enough() -> None:
    assert passes_in_a_sample(timing.SECONDS_OF_A_SAMPLE / 8) == 8
    assert passes_in_a_sample(10.0) == 1
    assert passes_in_a_sample(timing.SECONDS_OF_A_SAMPLE * 0.9) == 2


def test_quantiles_are_values_that_were_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0, 6.0]
    assert [quantile(values, share) for share in (0, 0.2, 0.8, 1)] == [1, 2, 5, 6]
    assert quantile([7.0], 0.2) == 7
    with pytest.raises(ValueError, match="at least one value"):
        quantile([], 0.5)


def test_the_clock_of_the_cpu_counts_every_pass() -> None:
    calls: list[int] = []
    seconds = stopwatch("cpu")(lambda: calls.append(1), 5)
    assert len(calls) == 5
    assert 0 < seconds < 1
