"""Write a folder so that others see all of it or nothing."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ealinformer.files import is_running


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` that takes its place when the block ends well, and is removed when not.

    An older `target` is dropped with all that is in it. OSError is the caller's to explain.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    fresh = Path(tempfile.mkdtemp(prefix=_prefix(target, "preparing"), dir=target.parent))
    try:
        # mkdtemp makes folders that only their owner can enter; data sets are shared.
        fresh.chmod(0o777 & ~_umask())
        yield fresh
        _swap(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def remove_leftovers(target: Path) -> None:
    """Clear away what runs that were killed left beside `target`; one killed between two renames is put right."""
    for old in _abandoned(target, "replaced"):
        if target.exists() or not any(old.iterdir()):
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, target)
    for fresh in _abandoned(target, "preparing"):
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, target: Path) -> None:
    if not target.exists():
        os.rename(fresh, target)
        return
    old = Path(tempfile.mkdtemp(prefix=_prefix(target, "replaced"), dir=target.parent))
    try:
        os.rename(target, old)
        os.rename(fresh, target)
    finally:
        if not target.exists():
            os.rename(old, target)
        shutil.rmtree(old, ignore_errors=True)


def _prefix(target: Path, state: str) -> str:
    return f".{target.name}.{state}-{socket.gethostname()}-{os.getpid()}-"


def _abandoned(target: Path, state: str) -> list[Path]:
    """Leftovers of this machine whose process is gone; those of other machines may be at work."""
    prefix = f".{target.name}.{state}-{socket.gethostname()}-"
    leftovers = (path for path in target.parent.iterdir() if path.name.startswith(prefix))
    return sorted(path for path in leftovers if not is_running(path.name[len(prefix) :].partition("-")[0]))


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
