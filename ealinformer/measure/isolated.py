"""A function in a process of its own: whatever happens to it there, the caller lives and is told."""

import multiprocessing
import pickle
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from ealinformer.measure.memory import OutOfMemoryError, first_line, is_out_of_memory, requested_bytes

Status = Literal["ok", "out of memory", "too slow", "failed"]

# Imported once, before any process is forked; autograd and optimizers import the second and the third, a second's worth
# each, when they are first used.
_PRELOADED = ["torch", "torch._dynamo", "torch.fx.experimental.symbolic_shapes", __name__]
_LONGEST_WAIT = 1e6  # seconds; the system counts milliseconds in 32 bits
_OOM_SCORE = Path("/proc/self/oom_score_adj")


@dataclass(frozen=True)
class Outcome:
    """How a function ended: with a `value`, or with a one-line `reason` why not.

    `needed_bytes`: what it would have needed at least, where memory ran out and that is known.
    """

    status: Status
    value: Any = None
    reason: str | None = None
    needed_bytes: int | None = None


def attempt(function: Callable[..., object], *arguments: object) -> Outcome:
    """Call `function` here and tell how it ended; running out of memory is an outcome as good as others."""
    try:
        return Outcome("ok", function(*arguments))
    except Exception as error:
        if not is_out_of_memory(error):
            return Outcome("failed", reason=f"{type(error).__name__}: {first_line(error)}")
        needed = error.needed_bytes if isinstance(error, OutOfMemoryError) else requested_bytes(error)
        return Outcome("out of memory", reason=first_line(error), needed_bytes=needed)


def isolated(function: Callable[..., object], *arguments: object, time_limit: float | None = None) -> Outcome:
    """Call `function` in a fresh process, which nothing ran in before, and tell how it ended.

    Args:
        function: importable by its name; its arguments and its value are pickled.
        arguments: what it is called with.
        time_limit: seconds after which the process is stopped; None waits as long as it takes.
    """
    context = _context()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()  # else the receiver would wait for ever on a child that died
    try:
        if not receiver.poll(None if time_limit is None else min(time_limit, _LONGEST_WAIT)):
            return Outcome("too slow", reason=f"stopped after {time_limit:.0f} s")
        try:
            return pickle.loads(receiver.recv_bytes())
        except EOFError:
            process.join()
            return _died(process.exitcode)
    finally:
        process.kill()
        process.join()
        receiver.close()


def _context() -> Any:
    """Processes forked by a server that has imported torch and run nothing: fresh, and without torch's two seconds."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def _child(sender: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller, who ends this process
    with suppress(OSError):
        _OOM_SCORE.write_text("1000")  # where the system has to kill, then this process and not the caller
    # Not sender.send: tensors would travel as files that are gone with this process.
    pickled = attempt(pickle.dumps, attempt(function, *arguments))
    sender.send_bytes(pickled.value if pickled.status == "ok" else pickle.dumps(pickled))
    sender.close()


def _died(exitcode: int | None) -> Outcome:
    if exitcode == -signal.SIGKILL:
        return Outcome("out of memory", reason="killed by the system, as it does when memory runs out")
    if exitcode is not None and exitcode < 0:
        return Outcome("failed", reason=f"the process was ended by {signal.Signals(-exitcode).name}")
    return Outcome("failed", reason=f"the process ended with status {exitcode} and said nothing")
