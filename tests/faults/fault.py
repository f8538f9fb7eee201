"""Something that goes wrong in this process at a chosen call of a chosen function, patched in from outside."""

import contextlib
import functools
import importlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

When = Literal["before", "half", "after"]


@dataclass(frozen=True)
class Fault:
    """What happens at call number `call` of the function at `at`: "os:replace" is `os.replace`.

    "half" is for `Path.write_bytes`: half of the bytes are in the file when it happens.
    """

    at: str
    call: int = 1
    when: When = "before"
    send: str | None = None  # a signal to this process
    sleep: float = 0.0  # seconds, after the signal
    remove: str | None = None  # a file
    cut: str | None = None  # a file that loses all its bytes
    fill: str | None = None  # a file that grows until the disk is full
    moment: str | None = None  # a file that is made when it happens

    def __str__(self) -> str:
        files = {"removed": self.remove, "cut": self.cut}
        what = self.send or ("disk filled" if self.fill else "")
        what += "".join(f"{Path(file).name} {how}" for how, file in files.items() if file)
        place = {"before": "before", "half": "half-way through", "after": "after"}[self.when]
        return f"{what} {place} call {self.call} of {self.at.rpartition(':')[2]}"

    def happen(self) -> None:
        """Let it go wrong."""
        if self.moment is not None:
            Path(self.moment).touch()
        if self.remove is not None:
            os.unlink(self.remove)
        if self.cut is not None:
            os.truncate(self.cut, 0)
        if self.fill is not None:
            _fill(Path(self.fill))
        if self.send is not None:
            os.kill(os.getpid(), getattr(signal, self.send))
        if self.sleep:
            time.sleep(self.sleep)


@dataclass(frozen=True)
class Conditions:
    """Everything that is otherwise than usual for one start of a command line."""

    fault: Fault | None = None
    ignored: tuple[str, ...] = ()  # signals, as nohup has it
    largest_file: int | None = None  # bytes
    values: dict[str, Any] = field(default_factory=dict)  # "package.module:NAME" -> what it is set to
    counted: tuple[str, ...] = ()  # functions whose calls are counted
    counts: str | None = None  # the file that the counts are written to

    def as_json(self) -> dict[str, Any]:
        """For the process that sets them up with `Conditions.of`."""
        return asdict(self)

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Conditions":
        """What `as_json` gave."""
        fault = content.pop("fault")
        return cls(fault=None if fault is None else Fault(**fault), **content)

    def set_up(self) -> None:
        """Change this process accordingly."""
        import resource

        for name in self.ignored:
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        if self.largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest_file, self.largest_file))
        for place, value in self.values.items():
            owner, name = _owner(place)
            if not hasattr(owner, name):
                raise AttributeError(f"{place} is not there any more")
            setattr(owner, name, value)
        if self.fault is not None:
            arm(self.fault)
        if self.counts is not None:
            count(self.counted, Path(self.counts))


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def arm(fault: Fault) -> None:
    """Patch the function so that the fault happens."""
    calls = 0

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def faulty(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls != fault.call:
                return original(*arguments, **options)
            if fault.when == "half":
                path, data = arguments
                original(path, data[: len(data) // 2])
            if fault.when != "after":
                fault.happen()
            result = original(*arguments, **options)
            if fault.when == "after":
                fault.happen()
            return result

        return faulty

    _patch(fault.at, wrap)


def count(places: Sequence[str], path: Path) -> None:
    """Keep the numbers of calls of these functions in a JSON file."""
    counts = Counter(dict.fromkeys(places, 0))
    written = path.open("w")  # opened before anything is patched

    def wrap(place: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def counted(*arguments: Any, **options: Any) -> Any:
            counts[place] += 1
            written.seek(0)
            written.write(json.dumps(counts))
            written.flush()
            return original(*arguments, **options)

        return counted

    for place in places:
        _patch(place, functools.partial(wrap, place))


def _patch(place: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    owner, name = _owner(place)
    setattr(owner, name, wrap(getattr(owner, name)))


def _owner(place: str) -> tuple[Any, str]:
    """`"package.module:Class.method"` -> the class, "method"."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), name
