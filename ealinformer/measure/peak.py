"""Peak memory and seconds of work that this process does for the first time, or how it ran out."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ealinformer.measure.isolated import Outcome, attempt
from ealinformer.measure.memory import allocated_peak, release, resident_peak
from ealinformer.measure.timing import synchronize


@dataclass(frozen=True)
class Memory:
    """Peak bytes over what was held before: allocated by torch, and seen by the system (None on CUDA).

    `seconds` are those of the very first pass, pages and all. `reserved_bytes`: what CUDA's caching allocator held at
    most of the device in that pass, with all that it held before.
    """

    allocated_bytes: int
    resident_bytes: int | None
    seconds: float
    reserved_bytes: int | None = None


def peak_of(work: Callable[[], object], device: str) -> Outcome:
    """The `Memory` of work, which runs twice; where it runs out, what it would have needed at least."""
    seen = attempt(_first_pass, work, device)
    if seen.status == "failed":
        return seen
    # Also where memory ran out: this says how much it would have needed.
    release(device)
    counted = attempt(allocated_peak, work, device)
    if counted.status != "ok" or seen.status != "ok":
        return counted if counted.status != "ok" else seen
    resident, reserved, seconds = seen.value
    return Outcome("ok", Memory(counted.value, resident, seconds, reserved))


def _first_pass(work: Callable[[], object], device: str) -> tuple[int | None, int | None, float]:
    start = time.perf_counter()
    resident: int | None = None
    reserved: int | None = None
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        synchronize(device)
        reserved = torch.cuda.max_memory_reserved(device)
    else:
        resident = resident_peak(work)
    return resident, reserved, time.perf_counter() - start
