"""The processes ("ranks") of one run, on torch's engine: who they are, how they meet and part, what they agree on.

The helpers that agree do nothing in a process that is alone, so that a runner calls them without asking.
"""

import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ealinformer.errors import InputError
from ealinformer.training.distributed.ranks import Ranks
from ealinformer.training.distributed.rendezvous import meet

EXIT_RANK_LOST = 69  # "service unavailable" among the exit codes of sysexits.h
LONGEST_WAIT = timedelta(minutes=30)
_SECONDS_TO_PART = 5.0
_SECONDS_BEHIND = 1.0  # a launcher names the rank that ended first, which should be the one with the error
_SECONDS_TO_END = 20
# What gloo says when the other end is gone or silent; it raises plain RuntimeErrors.
_LOST = re.compile(r"\bgloo\b|connection (closed|reset|refused)|broken pipe|socket (closed|timeout)", re.IGNORECASE)
_PARENT = os.getppid()

_control: dist.ProcessGroup | None = None  # gloo, on GPUs too: flags and small messages between the processors


class RankLost(SystemExit):
    """Another rank is gone. That one says why; this one leaves with `EXIT_RANK_LOST`, without a traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = EXIT_RANK_LOST


@contextmanager
def join(ranks: Ranks, *, cuda: bool, timeout: timedelta = LONGEST_WAIT) -> Iterator[None]:
    """Within the block the ranks of a run are connected: NCCL between GPUs, gloo between CPUs. Alone, nothing happens.

    `timeout` is for ranks that live and are silent; one that is gone is noticed at once on the CPU, and on GPUs when
    ranks next agree. The GPU of this rank has to be the current device. Whatever ends the block, the process is not
    held up by the others: where parting takes too long it is left to the end of the process, which then is near.

    Raises:
        InputError: the ranks did not find each other.
        RankLost: in place of the error that a collective raised as another rank was gone.
    """
    if ranks.world_size == 1:
        yield
        return
    _end_with_the_launcher()
    _connect(ranks, cuda, timeout)
    try:
        yield
    except BaseException as error:
        lost = _is_lost(error)
        if lost:
            # The launcher ends the ranks that are left, which this one does not wait for; it has a record to close.
            _handle(signal.SIGTERM, signal.SIG_IGN)
        if not _part():
            _end_soon()
        if not lost:
            raise
        message = f"rank {ranks.rank} has lost another rank ({_first_line(error)})"
        print(message, file=sys.stderr, flush=True)
        time.sleep(_SECONDS_BEHIND)
        raise RankLost(message) from error
    else:
        if not _part():
            _end_soon()


def wrap(model: nn.Module, cuda: bool, local_rank: int, *, find_unused_parameters: bool = False) -> nn.Module:
    """The model with its gradients averaged over the ranks of `join`, all starting from the weights of rank 0.

    The average counts every rank alike. For the gradient of a mean over all readings a rank scales its mean loss by
    `world_size * own readings / readings of all`.
    """
    if not dist.is_initialized():
        return model
    devices = [local_rank] if cuda else None
    return DistributedDataParallel(model, device_ids=devices, find_unused_parameters=find_unused_parameters)


# Agreement


def agree_max(*values: float) -> tuple[float, ...]:
    """The largest of each value over the ranks, the same on all of them; NaN is not allowed.

    For flags that one rank may raise and all have to act on in the same step.
    """
    if _control is None:
        return tuple(float(value) for value in values)
    largest = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=_control)
    return tuple(largest.tolist())


def broadcast_bytes(data: bytes | None) -> bytes:
    """What rank 0 gives, on every rank; the others give None."""
    if _control is None or dist.get_rank() == 0:
        if data is None:
            raise ValueError("data None: rank 0 has to give the bytes")
        if _control is None:
            return data
    size = torch.tensor([len(data or b"")])
    dist.broadcast(size, src=0, group=_control)
    if data is not None and dist.get_rank() == 0:
        content = torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8)
    else:
        content = torch.empty(max(1, int(size)), dtype=torch.uint8)
    dist.broadcast(content, src=0, group=_control)
    return content.numpy().tobytes()[: int(size)]


def gather_objects(value: Any) -> list[Any] | None:
    """The values of all ranks by rank, on rank 0; None on the others. They are pickled on the way."""
    if _control is None:
        return [value]
    values: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, values, dst=0, group=_control)
    return values


def barrier() -> None:
    """Wait until all ranks are here."""
    agree_max(0)


def sum_in_place(*tensors: Tensor) -> None:
    """Make every tensor the sum of those of all ranks, to the same last digit on all of them."""
    if _control is None:
        return
    for tensor in tensors:
        dist.all_reduce(tensor, group=None if tensor.is_cuda else _control)


# Meeting and parting


def _connect(ranks: Ranks, cuda: bool, timeout: timedelta) -> None:
    global _control
    try:
        with _default_signals():
            dist.init_process_group(
                "nccl" if cuda else "gloo",
                store=meet(ranks, timeout),
                rank=ranks.rank,
                world_size=ranks.world_size,
                timeout=timeout,
            )
            _control = dist.new_group(backend="gloo", timeout=timeout)
            barrier()
    except (RuntimeError, ValueError) as error:
        _part()
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise InputError(
            f"rank {ranks.rank} of {ranks.world_size} did not find the others at {address}: {_first_line(error)}"
        ) from error


def _part() -> bool:
    """Close the groups; False when that takes longer than a rank may wait.

    Closing waits for collectives under way, and whoever is to take part in them may be gone or stuck elsewhere.
    """
    global _control
    _control = None
    if not dist.is_initialized():
        return True
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def close() -> None:
        if device is not None:
            torch.cuda.set_device(device)  # every thread has its own
        dist.destroy_process_group()

    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    closing.join(_SECONDS_TO_PART)
    return not closing.is_alive()


def _end_soon() -> None:
    """Have the system end this process even if the interpreter hangs when it closes what could not be closed."""
    if hasattr(signal, "SIGALRM") and _handle(signal.SIGALRM, signal.SIG_DFL):
        signal.alarm(_SECONDS_TO_END)


def _end_with_the_launcher() -> None:
    """Have Linux send SIGTERM when the launcher of this rank dies, however it does."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or not sys.platform.startswith("linux"):
        return  # started by hand: the shell may close without meaning us
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of sys/prctl.h
    ctypes.CDLL(None).prctl(set_parent_death_signal, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != _PARENT:
        raise RankLost("the launcher of this rank is gone")


@contextmanager
def _default_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end the process: while it waits for others, torch does not let Python handle them."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] != signal.SIG_IGN:
            _handle(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            _handle(number, handler)


def _handle(number: int, handler: Any) -> bool:
    if threading.current_thread() is not threading.main_thread():
        return False  # only the main thread may
    signal.signal(number, handler)
    return True


def _is_lost(error: BaseException) -> bool:
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and bool(_LOST.search(str(error))))


def _first_line(error: BaseException) -> str:
    line = (str(error) or repr(error)).splitlines()[0]
    return re.sub(r"^\[\S*\] *", "", line).split(". ")[0].rstrip(".")  # without the place in torch's sources
