"""Freed memory that is kept: counted in page faults, in processes of their own."""

import platform
import resource
import statistics
from collections.abc import Callable

import pytest
import torch

from ealinformer.measure.allocator import give_back_freed_memory, keep_freed_memory
from ealinformer.measure.isolated import isolated
from ealinformer.measure.memory import _resident_bytes

# Above the 32 MiB at which glibc's own threshold for mapping blocks stops growing.
BYTES, TIMES = 100_000_000, 8
FIRST, SECOND = (40, 3, 64, 0, 17, 50), (39, 60, 5)  # MiB
PAGES_OF_A_ROUND = sum(FIRST + SECOND) * 2**20 // resource.getpagesize()

BLOCK, BLOCKS = 2**23, 20  # bytes, and how many

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt's settings are glibc's")


def faults_of(work: Callable[[], object], times: int) -> float:
    """Minor page faults of a typical call: the median, as the system may take pages away itself, one call now and then.

    Moving pages between the memories of several processors, or to make huge ones, counts as faults of the process.
    """
    counts = []
    for _ in range(times):
        start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        work()
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)
    return statistics.median(counts)


def faults(keep: bool) -> float:
    """Of filling a large tensor again, after the first times."""
    assert not keep or keep_freed_memory()

    def fill() -> None:
        torch.zeros(BYTES // 4).add_(1)

    for _ in range(3):
        fill()
    return faults_of(fill, TIMES)


def several_sizes(rounds: int) -> float:
    """Minor page faults of temporaries of many sizes that live side by side, once the heap has settled."""
    assert keep_freed_memory()

    def step() -> None:
        alive = [torch.ones(size * 2**18) for size in FIRST]
        del alive[::2]
        alive += [torch.ones(size * 2**18) for size in SECOND]

    for _ in range(4):
        step()
    return faults_of(step, rounds)


def test_kept_memory_is_not_fetched_again() -> None:
    given_back, kept = isolated(faults, False), isolated(faults, True)
    assert (given_back.status, kept.status) == ("ok", "ok"), (given_back.reason, kept.reason)
    assert given_back.value > 20 * max(1, kept.value)


def test_temporaries_of_many_sizes_share_the_kept_memory() -> None:
    found = isolated(several_sizes, 5)
    assert found.status == "ok", found.reason
    assert found.value < 0.05 * PAGES_OF_A_ROUND


def test_a_caller_may_ask_twice() -> None:
    assert isolated(keep_freed_memory).value is True


def resident_after(setting: Callable[[], bool]) -> float:
    """The share of large blocks between small ones that is still resident when the large ones are freed."""
    for _ in range(3):  # after which glibc by itself keeps blocks of this size
        torch.ones(BLOCK // 4)
    assert setting()
    before = _resident_bytes("VmRSS")
    small = []
    large = []
    for _ in range(BLOCKS):
        large.append(torch.ones(BLOCK // 4))
        small.append(torch.ones(2**10))
    held = _resident_bytes("VmRSS") - before
    assert held > 0.8 * BLOCKS * BLOCK  # one or two may lie in memory that was kept before
    large.clear()
    return (_resident_bytes("VmRSS") - before) / held


def test_memory_is_kept_or_given_back_as_asked() -> None:
    # By itself glibc does the one or the other, as the holes happen to lie, so neither is compared with that.
    kept, given_back = isolated(resident_after, keep_freed_memory), isolated(resident_after, give_back_freed_memory)
    assert (kept.status, given_back.status) == ("ok", "ok"), (kept.reason, given_back.reason)
    assert kept.value > 0.8
    assert given_back.value < 0.2
