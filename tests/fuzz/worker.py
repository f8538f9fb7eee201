"""A process of its own that readers are tried in: what kills it, hangs it or eats its memory is told, not suffered."""

import faulthandler
import multiprocessing
import os
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

MIB = 1024**2
TIME_LIMIT = 10.0  # seconds of the processor for one file, so that a busy machine makes no findings
WAITING = 6  # times as long by the clock, for what hangs without working
MEMORY_LIMIT = 1024 * MIB  # bytes over what the process held before the first file
LONGEST_LINE = 1000  # characters; nobody reads more
_FRESH_AFTER = 5000  # files, so that what a library keeps does not pass for what a file costs

Read = Callable[[Path], object]
Status = Literal["valid", "refused", "finding"]


@dataclass(frozen=True)
class Outcome:
    """What became of one file: read, refused in one line, or neither, with the reason."""

    status: Status
    reason: str = ""
    peak: int = 0  # bytes by which resident memory rose at most


class Worker:
    """Calls readers in another process, one file after the other; a new process takes over where one is lost.

    Args:
        time_limit: seconds of the processor for one file.
        memory_limit: bytes that the process may take over what it held before its first file.
    """

    def __init__(self, time_limit: float = TIME_LIMIT, memory_limit: int = MEMORY_LIMIT) -> None:
        self.time_limit, self.memory_limit = time_limit, memory_limit
        self._process: Any = None
        self._files_read = 0

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def read(self, read: Read, path: Path) -> Outcome:
        """How `read(path)` ends in the other process. `read` is importable by its name."""
        if self._process is None or self._files_read == _FRESH_AFTER:
            self._start()
        self._files_read += 1
        with suppress(BrokenPipeError):  # it died while it was idle, which the pipe tells below
            self._pipe.send((read, path))
        outcome: Outcome | None = None
        if self._pipe.poll(WAITING * self.time_limit + 1):
            with suppress(EOFError, ConnectionResetError):
                outcome = self._pipe.recv()
        outcome = self._lost() if outcome is None else outcome
        if outcome.status == "finding":
            self.stop()  # what it left behind is no state to go on from
        return outcome

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._last_words.unlink(missing_ok=True)
            self._process = None

    def _start(self) -> None:
        self.stop()
        context = _context()
        self._pipe, theirs = context.Pipe()
        handle, name = tempfile.mkstemp(suffix=".trace")
        os.close(handle)
        self._last_words = Path(name)
        limits = self.time_limit, self.memory_limit
        self._process = context.Process(target=_serve, args=(theirs, self._last_words, *limits), daemon=True)
        self._process.start()
        theirs.close()  # else the pipe would not tell that the process died
        self._files_read = 0
        self._pipe.recv()  # it has imported what it needs

    def _lost(self) -> Outcome:
        """Why there is no answer: from the stack that faulthandler left, and from the exit status."""
        self._process.join(0.5)
        code = self._process.exitcode
        frames = [line.strip() for line in self._last_words.read_text().splitlines() if line.startswith("  File")]
        # Of the newest thread's frames the first is the innermost; those of libraries say where, ours say why.
        where = "; ".join(_short_frame(frame) for frame in _telling(frames))
        if code == -signal.SIGPROF:
            return Outcome("finding", f"worked for more than {self.time_limit:g} s: {where}")
        if code is None or "Timeout" in self._last_words.read_text():
            return Outcome("finding", f"waited for more than {WAITING * self.time_limit:g} s: {where}")
        died = signal.Signals(-code).name if code < 0 else f"status {code}"
        return Outcome("finding", f"the process ended by {died}: {where}")


def _telling(frames: list[str]) -> list[str]:
    ours = [frame for frame in frames if "/ealinformer/" in frame and "/measure/" not in frame][:1]
    return list(dict.fromkeys([*frames[:1], *ours]))


def _short_frame(frame: str) -> str:
    path, _, rest = frame.removeprefix('File "').partition('"')
    return f"{'/'.join(Path(path).parts[-2:])}{rest}"


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fuzz.readers"])
    return context


def _serve(pipe: Connection, last_words: Path, time_limit: float, memory_limit: int) -> None:
    # Arrow's own allocator reserves a GiB of addresses at once, which the limit would count.
    os.environ.update(ARROW_DEFAULT_MEMORY_POOL="system", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    import tests.fuzz.readers  # noqa: F401  # before the limit is set
    from ealinformer.measure.memory import limit_memory

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller
    warnings.simplefilter("ignore")
    with last_words.open("w") as trace:
        faulthandler.enable(trace)
        faulthandler.register(signal.SIGPROF, trace, all_threads=False, chain=True)  # and then the signal ends it
        limit_memory(memory_limit)
        pipe.send("ready")
        with suppress(EOFError):
            while True:
                read, path = pipe.recv()
                faulthandler.dump_traceback_later(WAITING * time_limit, exit=True, file=trace)
                signal.setitimer(signal.ITIMER_PROF, time_limit)
                outcome = judged(read, path)
                signal.setitimer(signal.ITIMER_PROF, 0)
                faulthandler.cancel_dump_traceback_later()
                pipe.send(outcome)


def judged(read: Read, path: Path) -> Outcome:
    """`read(path)` here, and whether it kept the contract: it returns, or refuses in one line that names the file."""
    from ealinformer.measure.memory import resident_peak

    outcomes = []
    peak = resident_peak(lambda: outcomes.append(_outcome(read, path)))
    if peak > MEMORY_LIMIT:
        return Outcome("finding", f"took {peak // MIB} MiB of memory", peak)
    return Outcome(outcomes[0].status, outcomes[0].reason, peak)


def _outcome(read: Read, path: Path) -> Outcome:
    from ealinformer.errors import InputError

    try:
        read(path)
    except InputError as error:
        if _ran_out_of_memory(error):
            return Outcome("finding", f"asked for more memory than it may: {error}")
        wrong = fault(str(error), path)
        return Outcome("finding", f"{wrong}: {str(error)[:300]!r}") if wrong else Outcome("refused", str(error))
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/ealinformer/" in frame.filename]
        where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        return Outcome("finding", f"{type(error).__name__}{where}: {' '.join(str(error).split())[:300]}")
    return Outcome("valid")


def fault(message: str, path: Path) -> str | None:
    """What a refusal lacks of one short line that names the file, or its folder; None where it lacks nothing.

    A file of settings stands for words of a command line, which have no name.
    """
    if not message.isprintable():  # line ends, and what a terminal would obey
        return "the refusal is not one printable line"
    if len(message) > LONGEST_LINE:
        return f"the refusal is too long: {len(message)} characters"
    if path.suffix != ".settings" and str(path.parent) not in message:
        return "the refusal does not name the file"
    return None


def _ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, says that memory ran out."""
    from ealinformer.measure.memory import is_out_of_memory

    while error is not None:
        if is_out_of_memory(error) or any(sign in str(error) for sign in ("Unable to allocate", "malloc of size")):
            return True
        error = error.__cause__ or error.__context__
    return False
