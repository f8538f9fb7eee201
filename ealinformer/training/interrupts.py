"""Signals that end a run: the first one is kept until the step is done, the second one ends the process at once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from ealinformer.errors import Interrupted

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupts:
    """What has been asked of this process since `deferred` was entered."""

    def __init__(self, seconds_apart: float = 0.0) -> None:
        self.signal = 0  # number of the first signal, 0 while there was none
        self.seconds_apart = seconds_apart
        self._received_at = 0.0

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """Handler: note the signal, or leave at once when one was noted before."""
        now = time.monotonic()
        if self.signal and now - self._received_at < self.seconds_apart:
            return
        if self.signal:
            os._exit(128 + number)  # files are replaced whole, so whatever is being written may be left
        self.signal, self._received_at = number, now
        # os.write: a print here could cut into one that is under way. The terminal may be what is gone.
        with suppress(OSError):
            os.write(2, f"\n{signal.Signals(number).name}: saving and leaving; once more leaves at once\n".encode())

    def check(self) -> None:
        """Raise Interrupted when a signal came."""
        if self.signal:
            raise Interrupted(self.signal)


@contextmanager
def deferred(*, seconds_apart: float = 0.0) -> Iterator[Interrupts]:
    """Within the block SIGINT, SIGTERM and SIGHUP are noted; whoever works there has to ask for them.

    Signals less than `seconds_apart` are one: of several ranks each may get it from a scheduler and from its launcher.

    A signal that is ignored (as nohup and background shells have it) stays ignored. In a thread, where no handler can
    be set, nothing changes.
    """
    interrupts = Interrupts(seconds_apart)
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, interrupts.receive)
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
