"""Command lines in processes of their own, that may be killed: forked in no time, or started as a user starts them."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.fault import Conditions

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 90.0  # seconds, after which a process counts as one that hangs
_TURN = 0.005  # seconds between two looks


@dataclass(frozen=True)
class Ended:
    """How a process ended: `status` is negative for a signal that ended it, None where it had to be killed."""

    status: int | None
    out: str
    err: str
    seconds: float

    @property
    def errors(self) -> list[str]:
        """The lines that say what was refused."""
        return [line.removeprefix("error: ") for line in self.err.splitlines() if line.startswith("error: ")]

    @property
    def was_refused(self) -> bool:
        """Bad input, and told in one line. Lines of the log may stand above it."""
        lines = self.err.splitlines()
        return self.status == 2 and len(self.errors) == 1 and lines[-1].startswith("error: ") and not self.has_traceback

    @property
    def has_traceback(self) -> bool:
        """Whether somebody who is no programmer would be frightened."""
        return "Traceback" in self.err + self.out

    def __str__(self) -> str:
        return f"status {self.status} after {self.seconds:.1f} s: {self.err[-400:].strip()!r}"


class Zygote:
    """The process that forks; `folder` gets the output of what it runs."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, itertools.count()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=ROOT,
        )
        self.pid = self._answer()["ready"]

    def start(
        self, name: str, *arguments: object, conditions: Conditions | None = None, cwd: Path | None = None
    ) -> "Started":
        """Run train.py or evaluate.py from a folder."""
        number = next(self._numbers)
        out, err = self._folder / f"{number}.out", self._folder / f"{number}.err"
        answer = self._ask(
            run=name,
            arguments=[str(one) for one in arguments],
            out=str(out),
            err=str(err),
            cwd=str(cwd or self._folder),
            conditions=(conditions or Conditions()).as_json(),
        )
        return Started(
            answer["pid"], out, err, lambda seconds: self._ask(wait=answer["pid"], seconds=seconds)["status"]
        )

    def run(self, name: str, *arguments: object, conditions: Conditions | None = None) -> Ended:
        """The same, and wait until it ends."""
        return self.start(name, *arguments, conditions=conditions).wait()

    def mount(self, kind: str, folder: Path, size: int = 0) -> str | None:
        """A "tmpfs" of that many bytes, "resize" it, make a folder "read-only" or "writable" again; or why not.

        The processes that are run from now on see it, others do not.
        """
        return self._ask(kind=kind, folder=str(folder), size=size).get("error")

    def seen(self, folder: Path) -> Path:
        """A folder as the processes that are run see it."""
        return Path(f"/proc/{self.pid}/root{folder}")

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def _ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        content: dict[str, Any] = json.loads(self._process.stdout.readline())
        return content


class Started:
    """A process that runs, until it is waited for."""

    def __init__(self, pid: int, out: Path, err: Path, wait: Callable[[float], int | None]) -> None:
        self.pid, self._out, self._err, self._wait = pid, out, err, wait
        self._started = time.monotonic()

    def send(self, name: str) -> None:
        """Send it a signal. It has not been waited for, so the number is still its own."""
        os.kill(self.pid, getattr(signal, name))

    def said(self) -> str:
        """Its standard error so far."""
        return _text(self._err)

    def wait_until(self, word: str, seconds: float = LONGEST) -> None:
        """Wait until it has said that."""
        end = time.monotonic() + seconds
        while word not in self.said():
            if time.monotonic() > end:
                raise AssertionError(f"{word!r} is not said: {self.said()!r}")
            time.sleep(_TURN)

    def wait(self, seconds: float = LONGEST) -> Ended:
        """Wait for its end; it is killed where that does not come."""
        status = self._wait(seconds)
        return Ended(status, _text(self._out), self.said(), time.monotonic() - self._started)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""  # killed before it was opened


def start_fresh(folder: Path, name: str, *arguments: object) -> Started:
    """`python experiments/NAME.py ...`, as a user starts it."""
    number = time.monotonic_ns()
    out, err = folder / f"{number}.out", folder / f"{number}.err"
    command = [sys.executable, str(ROOT / "experiments" / f"{name}.py"), *map(str, arguments)]
    with out.open("wb") as out_file, err.open("wb") as err_file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out_file, stderr=err_file, env=environment(), cwd=folder
        )

    def wait(seconds: float) -> int | None:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    return Started(process.pid, out, err, wait)


def environment() -> dict[str, str]:
    """One thread, and this very checkout."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", "PYTHONPATH": path}
