"""train.py in a process of its own: its lines are passed on, signals reach it once, and it is told why it ended."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
ERROR = "error: "  # how a command line begins what a user can mend
KEPT_LINES = 200


@dataclass(frozen=True)
class Ended:
    """How a training ended: `reason`, one line, where it did not end well; `signal` where one came to this process."""

    reason: str | None
    signal: int | None = None


def train_apart(words: Sequence[str]) -> Ended:
    """Run `train.py` with these words, so that peak memory and seconds are those of one run alone.

    SIGINT, SIGTERM and SIGHUP that come meanwhile are passed on: the run keeps a checkpoint and leaves.
    """
    script = os.path.relpath(Path(__file__).with_name("train.py"))  # the run records its command
    with _Signals() as signals:
        # In a session of its own: a terminal would send Ctrl-C to both, and twice means to leave at once.
        process = subprocess.Popen(
            [sys.executable, script, *words],
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        signals.pass_on_to(process)
        assert process.stderr is not None
        said = _relay(process.stderr)
        status = process.wait()
    received = signals.received[0] if signals.received else None
    return Ended(_reason(status, said) if status else None, received)


class _Signals:
    """Within the block signals are kept, and passed on to a process as soon as there is one."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._waiting: list[int] = []
        self._process: subprocess.Popen[str] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            self._before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in self._before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pass_on_to(self, process: subprocess.Popen[str]) -> None:
        """From now on; what came while the process was being started reaches it now."""
        self._process = process
        while self._waiting:
            process.send_signal(self._waiting.pop(0))

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if self._process is None:
            self._waiting.append(number)
        else:
            self._process.send_signal(number)


def _relay(lines: Iterable[str]) -> Sequence[str]:
    """Print the lines as they come, and keep the last ones."""
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    for line in lines:
        kept.append(line.strip())
        if sys.stderr is not None:
            with suppress(OSError):  # the terminal may be gone, and the run goes on all the same
                print(line, end="", file=sys.stderr, flush=True)
    return kept


def _reason(status: int, said: Sequence[str]) -> str:
    errors = [line.removeprefix(ERROR) for line in said if line.startswith(ERROR)]
    if errors:
        return errors[-1]
    if status < 0:
        name = signal.Signals(-status).name
        return f"ended by {name}{', as the system does when memory runs out' if name == 'SIGKILL' else ''}"
    return next((line for line in reversed(said) if line), f"ended with status {status} and said nothing")
