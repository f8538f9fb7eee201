"""Checkpoints that are damaged, wrong in a way that their checksum does not tell, or made to run code."""

import hashlib
import io
import os
import pickle
import random
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ealinformer.training.checkpoints.sealed import seal, unseal
from tests.fuzz.mutate import bytes_

_PICKLE = "archive/data.pkl"
_OTHER_TYPES: tuple[Any, ...] = (None, "text", 1.5, -3, True, [], {}, [1, "two"], {"a": 1}, (None,))
# Whatever stands below these may be missing or other: records that do not steer a training.
_FREE = ("metrics", "seconds", "stopped_by", "history")


def damaged(rng: random.Random, data: bytes, marker: Path) -> tuple[str, bytes]:
    """A checkpoint that is not what was written, and what was done to it; `marker` is made where its code is run."""
    kind = rng.choice((_truncated, _altered, _altered, _wrong, _wrong, _wrong, _hostile))
    return kind(rng, data, marker)


def _truncated(rng: random.Random, data: bytes, marker: Path) -> tuple[str, bytes]:
    length = rng.choice((0, 1, rng.randrange(len(data)), rng.randrange(len(data)), len(data) - rng.randint(1, 200)))
    return f"cut after {length} of {len(data)} bytes", data[:length]


def _altered(rng: random.Random, data: bytes, marker: Path) -> tuple[str, bytes]:
    while (changed := bytes_(rng, data)) == data:
        pass
    return "altered bytes", changed


def _wrong(rng: random.Random, data: bytes, marker: Path) -> tuple[str, bytes]:
    """Well sealed, but a part of it is missing or of another type, dtype or shape."""
    content = unseal(data, Path("checkpoint"))
    where, owner, key = _place(rng, content, "")
    what, value = _another(rng, owner[key])
    if isinstance(owner, dict) and rng.random() < 0.4:
        what = "is not there" if rng.random() < 0.5 else "has another name"
        if what == "has another name":
            owner["x"] = owner[key]
        del owner[key]
    else:
        owner[key] = value
    return f"{where} {what}, with a checksum that agrees", seal(content)


def _place(rng: random.Random, content: Any, where: str) -> tuple[str, Any, Any]:
    """A value that steers a training or a forecast: its name, what holds it, and its key there."""
    # Down from part to part, so that the many numbers of the random states do not get all of the damage.
    keys = [key for key in (content if isinstance(content, dict) else range(len(content))) if key not in _FREE]
    key = rng.choice(keys)
    below, place = content[key], f"{where}.{key}".removeprefix(".")
    deeper = isinstance(below, (dict, list)) and any(one not in _FREE for one in below)
    return _place(rng, below, place) if deeper and rng.random() < 0.8 else (place, content, key)


def _another(rng: random.Random, value: Any) -> tuple[str, Any]:
    """Something of another type, dtype or shape."""
    if isinstance(value, Tensor) and rng.random() < 0.7:
        dtype = rng.choice(
            [one for one in (torch.float64, torch.int32, torch.float16, torch.bool) if one != value.dtype]
        )
        shapes: list[Callable[[Tensor], Tensor]] = [
            lambda tensor: tensor[None],
            lambda tensor: torch.cat([tensor.reshape(-1), tensor.reshape(-1)]),
            lambda tensor: tensor.new_zeros(0),
        ]
        if rng.random() < 0.5:
            return f"is {dtype} and not {value.dtype}", value.to(dtype)
        other = rng.choice(shapes)(value)
        return f"is {list(other.shape)} and not {list(value.shape)}", other
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    others = [
        one
        for one in _OTHER_TYPES
        # An int may stand for a float, and None leaves a setting of the optimizer to torch.
        if type(one) is not type(value) and not (number and isinstance(one, (int, float))) and one is not None
    ]
    other = rng.choice(others)
    return f"is {other!r} and not {'a tensor' if isinstance(value, Tensor) else type(value).__name__}", other


class _Call:
    """What unpickles to the result of a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


def _hostile(rng: random.Random, data: bytes, marker: Path) -> tuple[str, bytes]:
    calls = {
        "os.system": _Call(os.system, f"touch '{marker}'"),
        "exec": _Call(exec, f"open({str(marker)!r}, 'w')"),
        "open": _Call(open, str(marker), "w"),
        "subprocess.Popen": _Call(subprocess.Popen, ("touch", str(marker))),
        "Path.touch": _Call(Path.touch, marker),
        "os.mkdir": _Call(os.mkdir, str(marker)),
    }
    name = rng.choice(sorted(calls))
    payload: Any = rng.choice((lambda call: call, lambda call: {"format": 2, "run": call}, lambda call: [call] * 3))(
        calls[name]
    )
    protocol = rng.randrange(2, pickle.HIGHEST_PROTOCOL + 1)
    pickled = pickle.dumps(payload, protocol)
    how = rng.choice(("as a pickle alone", "in an archive of torch", "in place of the content", "beside the content"))
    what = f"a pickle that calls {name}, {how}"
    if how == "as a pickle alone":
        return what, pickled
    if how == "in an archive of torch":
        file = io.BytesIO()
        torch.save(payload, file, pickle_protocol=2)
        return what, resealed(file.getvalue(), like=data)
    if how == "in place of the content":
        return what, resealed(_with_entries(data, {_PICKLE: pickled}), like=data)
    return what, resealed(_with_entries(data, {}, [(_PICKLE, pickled)]), like=data)


def resealed(archive: bytes, *, like: bytes) -> bytes:
    """An archive with a checksum that agrees, made by hand; `like` is a sealed file."""
    with zipfile.ZipFile(io.BytesIO(like)) as sealed:
        mark = sealed.comment[:-64]
    file = io.BytesIO(archive)
    with zipfile.ZipFile(file, "a") as changed:
        changed.comment = mark + b"0" * 64
    data = file.getvalue()
    head = data[: -len(mark) - 64]
    return head + mark + hashlib.sha256(head).hexdigest().encode()


def _with_entries(data: bytes, changed: dict[str, bytes], added: list[tuple[str, bytes]] | None = None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(file, "w") as after:
        for name in before.namelist():
            after.writestr(name, changed.get(name, before.read(name)))
        for name, content in added or []:
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that is there already
                after.writestr(name, content)
    return file.getvalue()
