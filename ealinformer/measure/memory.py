"""Peak memory of a stretch of work in this process."""

import gc
import json
import os
import re
import resource
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

MIB = 1024**2
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
# How torch on the CPU says that memory ran out. The last is of a thread that got no room for its stack.
_SIGNS = ("can't allocate memory", "not enough memory", "bad_alloc", "Resource temporarily unavailable")
_UNITS = {"bytes": 1, "KiB": 1024, "MiB": MIB, "GiB": 1024 * MIB, "TiB": 1024**2 * MIB}


class PeakMemory:
    """Peak since its construction: allocated CUDA memory where `cuda`, else resident memory (RSS) over the start.

    The CPU's peak is the process's own high-water mark; work before that used more than the stretch hides it.
    """

    def __init__(self, *, cuda: bool) -> None:
        self.cuda = cuda
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            self._start = _resident_bytes("VmRSS")

    @property
    def kind(self) -> str:
        """What `mib` counts, for tables."""
        return "allocated CUDA memory" if self.cuda else "RSS over the start"

    def mib(self) -> float:
        """The peak in MiB."""
        if self.cuda:
            return torch.cuda.max_memory_allocated() / MIB
        return max(0, _resident_bytes("VmHWM") - self._start) / MIB


class OutOfMemoryError(MemoryError):
    """Memory ran out; `needed_bytes` is what was held for the work and the request that failed, where known."""

    def __init__(self, message: str, needed_bytes: int | None) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes


def allocated_peak(work: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes that torch's allocator held at a time for `work`, its result included, over what it held before.

    Exact and the same in every run, on the CPU as on CUDA: memory that torch's caches keep, that libraries take past
    its allocator (buffers of a matrix product, a few MiB) or that is never touched plays no part.

    Raises:
        OutOfMemoryError: memory ran out; `needed_bytes` counts from the same start. A limit set before is lifted then.
    """
    if torch.device(device).type == "cuda":
        return _allocated_peak_cuda(work)
    sizes, failure = _allocations(work)
    held = peak = 0
    for size in sizes:
        held += size
        peak = max(peak, held)
    if failure is None:
        return peak
    raise OutOfMemoryError(first_line(failure), held + (requested_bytes(failure) or 0)) from failure


def resident_peak(work: Callable[[], object]) -> int:
    """By how many bytes `work` raised the resident memory (RSS) of this process at most: what the system saw.

    What the process freed before and kept is used again without being seen, so only a fresh process tells the whole.
    """
    with suppress(OSError):
        _CLEAR_REFS.write_text("5")  # the high-water mark falls back to the present (man 5 proc)
    start = _resident_bytes("VmRSS")
    work()
    return max(0, _resident_bytes("VmHWM") - start)


def limit_memory(limit: int, device: str = "cpu") -> bool:
    """From here on, refuse this process more than `limit` bytes over what it holds; False where that cannot be done.

    On the CPU the system refuses (Linux alone, data segment and anonymous maps), and torch raises RuntimeError.
    """
    if torch.device(device).type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)
        return True
    if not _STATUS.exists():
        return False
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_resident_bytes("VmData") + limit, hard))
    return True


def release(device: str = "cpu") -> None:
    """Give back what work that ended early left behind."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def available_bytes(device: str = "cpu") -> int | None:
    """What could be allocated now: free CUDA memory, or what the system calls available; None where it does not say."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    found = re.search(r"^MemAvailable:\s*(\d+) kB", meminfo.read_text(), flags=re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch raises RuntimeError on the CPU, a class of its own on CUDA."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def requested_bytes(error: BaseException) -> int | None:
    """The bytes that the failed request asked for, as torch's message has them; None where it does not."""
    found = re.search(r"[Tt]ried to allocate ([\d.]+) (bytes|[KMGT]iB)", str(error))
    return round(float(found[1]) * _UNITS[found[2]]) if found else None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class: torch appends its C++ stack."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _allocated_peak_cuda(work: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    start = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    try:
        work()
        torch.cuda.synchronize()
    except torch.OutOfMemoryError as error:
        needed = torch.cuda.max_memory_allocated() - start + (requested_bytes(error) or 0)
        raise OutOfMemoryError(first_line(error), needed) from error
    return torch.cuda.max_memory_allocated() - start


def _allocations(work: Callable[[], object]) -> tuple[list[int], BaseException | None]:
    """Bytes taken (above 0) and given back (below 0) in order, and the error if memory ran out."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else some versions announce each start and stop
    failure: BaseException | None = None
    # What torch.profiler is built on, without the second and the 80 MiB that it takes to import a compiler.
    with torch.autograd.profiler.profile(profile_memory=True) as profiler:
        try:
            work()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            failure = error
            _lift_limit()  # the profiler needs a little more to say what it saw
    if failure is not None:
        # Until here its frames kept the tensors of the work, so that the list ends with what was held when it failed.
        failure = failure.with_traceback(None)
    with tempfile.TemporaryDirectory() as folder:  # the trace is the public way to single allocations
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    found = [event for event in events if event.get("name") == "[memory]" and event["args"]["Device Type"] == 0]
    return [event["args"]["Bytes"] for event in sorted(found, key=lambda event: event["ts"])], failure


def _lift_limit() -> None:
    if _STATUS.exists():
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _resident_bytes(field: str) -> int:
    # getrusage would do, but a process that was forked by a larger one inherits that one's peak.
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
