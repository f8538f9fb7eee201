"""Peak memory of a stretch of work in this process."""

import resource
import sys
from pathlib import Path

import torch

MIB = 1024**2
_STATUS = Path("/proc/self/status")


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


def _resident_bytes(field: str) -> int:
    # getrusage would do, but a process that was forked by a larger one inherits that one's peak.
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
