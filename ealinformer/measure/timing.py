"""Seconds of pieces of work that take turns, so that a drift of the machine hits all alike."""

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

Work = Callable[[], object]
Name = TypeVar("Name")
# work, how often in a row -> seconds of all of them together
Stopwatch = Callable[[Work, int], float]

SECONDS_OF_A_SAMPLE = 0.02
LONG_PASS = 1.0


@dataclass(frozen=True)
class Samples:
    """Seconds of one pass: one list of samples a round, each the mean over `passes` in a row."""

    rounds: list[list[float]]
    passes: int

    def all(self) -> list[float]:
        """The samples of all rounds."""
        return [seconds for samples in self.rounds for seconds in samples]


def synchronize(device: str | torch.device) -> None:
    """Wait for the GPU, if the device is one."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def stopwatch(device: str) -> Stopwatch:
    """The clock of a device: CUDA's own events on a GPU, else the system's."""
    return _cuda_seconds if torch.device(device).type == "cuda" else _cpu_seconds


def warm(work: Work, seconds_of: Stopwatch) -> float:
    """Run until first uses (allocation, choice of kernels) are over; returns the seconds of a pass after that."""
    first = seconds_of(work, 1)
    return first if first > LONG_PASS else statistics.median(seconds_of(work, 1) for _ in range(3))


def passes_in_a_sample(seconds: float) -> int:
    """How often work of `seconds` is repeated for a sample long enough for the clock and for the loop not to count."""
    return max(1, math.ceil(SECONDS_OF_A_SAMPLE / max(seconds, sys.float_info.min)))


def interleaved(
    works: Mapping[Name, Work], passes: Mapping[Name, int], *, rounds: int, turn_seconds: float, seconds_of: Stopwatch
) -> dict[Name, Samples]:
    """Let `works` take turns, in every second round in reverse order: a steady drift of the machine cancels.

    Args:
        works: what to time, by name; all of it warm.
        passes: how often each runs for a sample.
        rounds: turns of each.
        turn_seconds: a turn takes samples for about so long, and one at least.
        seconds_of: the clock.
    """
    rounds_of: dict[Name, list[list[float]]] = {name: [] for name in works}
    for turn in range(rounds):
        for name in list(works)[:: -1 if turn % 2 else 1]:
            rounds_of[name].append(_turn(works[name], passes[name], turn_seconds, seconds_of))
    return {name: Samples(rounds_of[name], passes[name]) for name in works}


def ratios(samples: Samples, reference: Samples) -> list[float]:
    """What a pass takes in units of the reference's pass, one figure a round: both saw the same machine."""
    pairs = zip(samples.rounds, reference.rounds, strict=True)
    return [statistics.median(own) / statistics.median(others) for own, others in pairs]


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie: the nearest one that was measured."""
    if not values:
        raise ValueError("a quantile needs at least one value, got none")
    return sorted(values)[round(share * (len(values) - 1))]


def _turn(work: Work, passes: int, turn_seconds: float, seconds_of: Stopwatch) -> list[float]:
    samples: list[float] = []
    spent = 0.0
    while not samples or spent + spent / len(samples) / 2 < turn_seconds:
        seconds = seconds_of(work, passes)
        samples.append(seconds / passes)
        spent += max(seconds, sys.float_info.min)
    return samples


def _cpu_seconds(work: Work, passes: int) -> float:
    start = time.perf_counter()
    for _ in range(passes):
        work()
    return time.perf_counter() - start


def _cuda_seconds(work: Work, passes: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(passes):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000
