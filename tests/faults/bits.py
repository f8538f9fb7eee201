"""What of a run's folder has to be the same to the bit, however often the run was interrupted."""

import csv
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ealinformer.training.checkpoints.sealed import read_sealed
from ealinformer.training.runs.lock import LOCK

Bits = dict[str, bytes]


def bits_of(folder: Path) -> Bits:
    """Everything that a run ends with, without times and memory, by the place where it stands."""
    status = json.loads((folder / "run.json").read_text())
    found: Bits = {"status": str(status["status"]).encode(), "best.pt": (folder / "best.pt").read_bytes()}
    found["config.json"] = (folder / "config.json").read_bytes()
    for place, value in _leaves(read_sealed(folder / "last.pt"), "last.pt"):
        found[place] = value
    for place, value in _leaves(json.loads((folder / "metrics.json").read_text()), "metrics.json"):
        found[place] = value
    with (folder / "history.csv").open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=1):
            for name, text in row.items():
                found[f"history.csv.{number}.{name}"] = str(text).encode()
    with np.load(folder / "predictions.npz") as arrays:
        for name in arrays.files:
            found[f"predictions.npz.{name}"] = arrays[name].tobytes()
    for path in folder.iterdir():
        if path.name.startswith(".") and path.name != LOCK:  # which stays after a kill, held by nobody
            found[f"left over: {path.suffix}"] = b""
    return {place: value for place, value in found.items() if not _is_measured(place)}


def difference(found: Bits, expected: Bits) -> str | None:
    """The first places at which two runs differ, in words; None where they are the same."""
    places = [place for place in dict.fromkeys((*expected, *found)) if found.get(place) != expected.get(place)]
    if not places:
        return None
    return f"{len(places)} of {len(expected)} places differ: {', '.join(places[:4])}"


def unlike(folder: Path, expected: Bits) -> str | None:
    """How a run's folder differs from the bits that it should have; None where it does not."""
    try:
        return difference(bits_of(folder), expected)
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


def _is_measured(place: str) -> bool:
    last = place.rpartition(".")[2]
    return "seconds" in last or "peak_memory" in last


def _leaves(value: Any, place: str) -> Iterator[tuple[str, bytes]]:
    if isinstance(value, dict):
        yield place, repr(list(value)).encode()
        for key, one in value.items():
            yield from _leaves(one, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        yield place, f"{type(value).__name__} of {len(value)}".encode()
        for number, one in enumerate(value):
            yield from _leaves(one, f"{place}.{number}")
    elif isinstance(value, Tensor):
        yield place, f"{value.dtype} {list(value.shape)} ".encode() + _raw(value)
    elif isinstance(value, float):
        yield place, struct.pack("<d", value)  # as != does not tell 0.0 from -0.0, nor NaN from itself
    else:
        yield place, repr(value).encode()


def _raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
