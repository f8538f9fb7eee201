"""Start the ranks of a run on this machine, as torchrun would, and say how they ended."""

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ealinformer.cli import EXIT_BAD_INPUT, EXIT_INTERRUPTED
from ealinformer.errors import InputError
from ealinformer.training.distributed.groups import EXIT_RANK_LOST

EXIT_FAILED = 1
_SECONDS_TO_SAVE = 300  # between a signal and SIGKILL: a step and a checkpoint have to fit in
_LAST_LINES = 50
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
_ENDED_BY_SIGNAL = {128 + number for number in _SIGNALS}


def start_processes(command: Sequence[str], processes: int, *, max_restarts: int = 0) -> int:
    """Run `command` as so many ranks of one run on this machine and return the exit status of the whole.

    A rank that fails ends the others. Rank 0 speaks for all: its output comes as it is, that of the others goes to
    stdout, and what they say on stderr is shown if they fail and rank 0 does not fail alike. SIGINT, SIGTERM and
    SIGHUP are passed on once, also those of a terminal, in whose foreground the ranks are not; the status then is 128
    and the number of the signal. It is 2 where a rank says that its input is bad, and 1 or 128 and the number of a
    signal, with a line on stderr, where a rank fails or is killed.

    OMP_NUM_THREADS, when not set, is an even share of the processors.

    Raises:
        InputError: the number of processes is less than one.
    """
    if processes < 1:
        raise InputError(f"{processes} processes: at least one is expected")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _num_processors() // processes)))
    for name in {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)  # else gloo takes the address that the host's name has
    folder = tempfile.mkdtemp(prefix="ealinformer-ranks-")
    try:
        with _quiet(), _handlers_kept():
            elastic_launch(_config(folder, processes, max_restarts), command[0])(*command[1:])
    except SignalException as error:
        return 128 + error.sigval
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ChildFailedError as error:
        return _explain({rank: failure.exitcode for rank, failure in error.failures.items()}, Path(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _config(folder: str, processes: int, max_restarts: int) -> LaunchConfig:
    settings: dict[str, Any] = {
        "min_nodes": 1,
        "max_nodes": 1,
        "nproc_per_node": processes,
        "run_id": uuid.uuid4().hex,
        "rdzv_backend": "c10d",
        "rdzv_endpoint": "127.0.0.1:0",
        "local_addr": "127.0.0.1",  # the name of the machine need not be one that resolves
        "max_restarts": max_restarts,
        "monitor_interval": 0.1,
        "logs_specs": DefaultLogsSpecs(folder, redirects=dict.fromkeys(range(1, processes), Std.ERR)),
    }
    # What is ignored here, as nohup and background shells have it, stays ignored.
    handled = [number.name for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    newer: dict[str, Any] = {"shutdown_timeout": _SECONDS_TO_SAVE, "signals_to_handle": ",".join(handled)}
    known = {field.name for field in fields(LaunchConfig)}  # older torch has 30 s, and no choice of signals
    return LaunchConfig(**settings, **{name: value for name, value in newer.items() if name in known})


def _explain(codes: dict[int, int], folder: Path) -> int:
    """Exit codes of the ranks that did not end well -> the status of the run, with its reason on stderr."""
    rank, code = min(codes.items(), key=lambda item: (_precedence(item[1]), item[0]))
    if code in _ENDED_BY_SIGNAL:
        return code  # the ranks were signalled one by one, and have said so
    if rank != 0:
        sys.stderr.write(_last_words(folder, rank))
    if code == EXIT_BAD_INPUT:
        return code
    if code == EXIT_RANK_LOST:
        reason = "the ranks lost each other"
    elif code < 0:
        reason = f"rank {rank} ended with exit code {code} ({signal.Signals(-code).name})"
    else:
        reason = f"rank {rank} ended with exit code {code}"
    print(f"error: {reason}; the run is ended", file=sys.stderr)
    return 128 - code if code < 0 else EXIT_FAILED


def _precedence(code: int) -> int:
    """How well an exit code explains the end of a run: 0 is best, 3 and 4 follow from the end of another rank."""
    if code in _ENDED_BY_SIGNAL:
        return 2
    return {EXIT_BAD_INPUT: 0, EXIT_RANK_LOST: 3, -signal.SIGTERM: 4}.get(code, 1)


def _last_words(folder: Path, rank: int) -> str:
    """The end of what a rank wrote to stderr, in the last of its starts."""
    files = sorted(folder.glob(f"*/attempt_*/{rank}/stderr.log"), key=lambda path: path.stat().st_mtime)
    lines = files[-1].read_text(errors="replace").splitlines(keepends=True) if files else []
    return "".join(lines[-_LAST_LINES:])


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's engine says nothing by itself: how a run ended is said here."""
    loggers = [logging.getLogger(f"torch.distributed.{name}") for name in ("elastic", "launcher")]
    nothing = logging.NullHandler()
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(nothing)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(nothing)
            logger.propagate = propagate


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """The engine sets handlers of signals and leaves them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
