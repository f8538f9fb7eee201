"""A series as its raw file holds it, and the checks that every file format shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ealinformer.data.files import first_repeated, shown
from ealinformer.errors import InputError


@dataclass(frozen=True, eq=False)
class RawSeries:
    """One channel of a raw file, NaN and infinite readings included."""

    values: np.ndarray  # [T, N], float32 or float64
    sensor_ids: list[str] | None  # N, in column order
    times: np.ndarray | None  # [T], datetime64[ns], local wall time


def float_dtype(dtype: np.dtype) -> np.dtype:
    """float32 where it holds every value of `dtype` exactly, else float64."""
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32) else np.float64)


def check_numeric(path: Path, array: np.ndarray) -> None:
    """Raise InputError unless `array` holds integers or real floats."""
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: the array has dtype {array.dtype}; expected integers or floats")


def check_channel(path: Path, channel: int, num_channels: int) -> None:
    """Raise InputError unless `channel` is one of the file's `num_channels`."""
    if not 0 <= channel < num_channels:
        held = "1 channel" if num_channels == 1 else f"{num_channels} channels"
        raise InputError(f"{path}: has {held}, but channel {channel} is asked for; expected 0..{num_channels - 1}")


def check_filled(path: Path, num_steps: int, num_sensors: int) -> None:
    """Raise InputError when a series [T, N] has no row or no column."""
    if num_steps == 0 or num_sensors == 0:
        raise InputError(f"{path}: holds {num_steps} steps of {num_sensors} sensors; expected at least one of each")


def check_unique(path: Path, sensor_ids: Sequence[str]) -> None:
    """Raise InputError when two columns carry the same sensor id."""
    twice = first_repeated(sensor_ids)
    if twice is not None:
        raise InputError(f"{path}: column {shown(twice)} occurs twice; expected one column for each sensor")
