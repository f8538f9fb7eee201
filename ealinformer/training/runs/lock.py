"""One process at a time in a run's folder: a lock that the kernel lets go of when its holder dies, however it dies."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ealinformer.errors import InputError

LOCK = ".lock"
# What flock says where the file system has no locks, as some of networks do.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_HELD = (BlockingIOError, PermissionError)  # the second one on network file systems that ask for byte locks
# Whoever only looks whether the lock is held holds it for microseconds, and is no reason to refuse a run.
_PATIENCE = 0.5  # seconds
_ours: set[int] = set()  # descriptors of the locks that this process holds


def _forget_after_fork() -> None:
    # A lock belongs to all copies of its descriptor: a worker that outlives a killed run would go on holding it.
    for descriptor in _ours:
        os.close(descriptor)
    _ours.clear()


os.register_at_fork(after_in_child=_forget_after_fork)


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Make the folder where it is not there and hold it alone within the block.

    What was made for it and is still empty afterwards is removed again, and so is the file of the lock; after a
    `kill -9` that file stays, held by nobody. Where the file system has no locks, nothing is checked.

    Raises:
        InputError: another process is at work in the folder, or it cannot be made or written to.
    """
    made = _make(folder)
    try:
        descriptor = _take(folder)
        _ours.add(descriptor)
        try:
            yield
        finally:
            if descriptor in _ours:  # it is not in a forked child, whose parent goes on holding it
                with suppress(OSError):
                    if _is_still(descriptor, folder / LOCK):
                        (folder / LOCK).unlink()  # while it is held: `_take` looks again at what it has locked
                _ours.discard(descriptor)
                os.close(descriptor)
    finally:
        with suppress(OSError):
            for path in made:
                path.rmdir()


def is_held(folder: Path) -> bool | None:
    """Whether a process holds the folder; None where that cannot be told: there is no lock file, or no locks at all."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except _HELD:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def holder(folder: Path) -> dict[str, Any]:
    """What the lock file says of the process that took the lock last: `this_process()` of it, or nothing."""
    try:
        content = json.loads((folder / LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def this_process() -> dict[str, Any]:
    """Host, number and start of this process; the start tells it from a later process of the same number."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _start_of(os.getpid())}


def is_alive(process: object) -> bool:
    """Whether `process`, as `this_process` described it, still runs on this host."""
    if not isinstance(process, dict) or process.get("host") != socket.gethostname():
        return False
    pid = process.get("pid")
    if not isinstance(pid, int) or not 0 < pid < 2**31:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # somebody else's
    except OSError:
        return False
    return process.get("started") == _start_of(pid)


def _start_of(pid: int) -> str | None:
    """Identity of the boot and clock ticks from it to the start of a process; None where the kernel does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # The name of the program stands in brackets and may hold anything, brackets and spaces too.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return f"{boot} {fields[19]}"
    except (OSError, IndexError):
        return None


def _make(folder: Path) -> list[Path]:
    """Make a folder with those above it; those that were not there, from the inside out."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output folder {folder} cannot be made: {error.strerror}") from error
    return missing


def _take(folder: Path) -> int:
    """Lock the folder's file and return its descriptor."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(f"output folder {folder} cannot be written to: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except _HELD as error:
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise InputError(f"{folder}: another process{_named(holder(folder))} is training in it") from error
            time.sleep(0.02)
            continue
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise InputError(f"output folder {folder} cannot be locked: {error.strerror}") from error
        if _is_still(descriptor, folder / LOCK):
            break
        os.close(descriptor)  # the holder before has removed the file in the meantime: this lock keeps nobody out
    with suppress(OSError):  # it only serves the message above; a full disk is told where it matters
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(this_process()).encode())
    return descriptor


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the file of an open descriptor is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _named(process: dict[str, Any]) -> str:
    return f" ({process['pid']} on {process['host']})" if {"pid", "host"} <= process.keys() else ""
