"""Is this the series that the spec describes? Every check raises a one-line InputError that says what to mend."""

import math
from pathlib import Path

import numpy as np

from ealinformer.data.files import bare, first_repeated
from ealinformer.data.meta import SPLITS, Split
from ealinformer.data.spec import SeriesSpec
from ealinformer.data.statistics import count_missing, row_blocks
from ealinformer.errors import InputError


def split_steps(num_steps: int, split: tuple[float, float, float]) -> dict[Split, int]:
    """Steps of train, validation and test by BasicTS 1.1.0's rule: shares rounded down, the rest goes to test."""
    train, val = int(split[0] * num_steps), int(split[1] * num_steps)
    return {"train": train, "val": val, "test": num_steps - train - val}


def check_shape(values: np.ndarray, spec: SeriesSpec, path: Path) -> None:
    """`values` is `[T, N]` with the sensors and, where given, the steps of the spec."""
    steps, sensors = values.shape
    if sensors != spec.num_sensors:
        turned = " (is it transposed?)" if steps == spec.num_sensors else ""
        raise InputError(
            f"{path} holds {sensors} sensors, expected num_sensors={spec.num_sensors}; its shape is "
            f"{steps} steps x {sensors} sensors{turned}"
        )
    if spec.num_steps is not None and steps != spec.num_steps:
        raise InputError(f"{path} holds {steps} steps, expected num_steps={spec.num_steps}")


def check_windows(steps: dict[Split, int], min_window: int, path: Path) -> None:
    """Every split holds at least one window."""
    for split in SPLITS:
        if steps[split] < min_window:
            raise InputError(
                f"{path} holds {sum(steps.values())} steps, of which {steps[split]} are for {split}: "
                f"expected at least one window of {min_window} in each of train, val and test"
            )


def check_values(values: np.ndarray, spec: SeriesSpec, train_steps: int, path: Path) -> None:
    """`values` `[T, N]` are finite, but for NaN where NaN means a missing reading, and training has some to learn."""
    infinite, first_infinite = _where(values, np.isinf)
    if infinite:
        raise InputError(
            f"{path} holds {infinite:,} infinite {_values(infinite)} (or too large for float32), the first in "
            f"{_place(first_infinite)}: expected finite values"
        )
    missing, first_missing = _where(values, np.isnan)
    if missing and not math.isnan(spec.null_value):
        raise InputError(
            f"{path} holds {missing:,} NaN {_values(missing)}, the first in {_place(first_missing)}, and "
            f'null_value={spec.null_value}: set null_value=float("nan") if NaN marks a missing reading'
        )
    train = values[:train_steps]
    if count_missing(train, spec.null_value) == train.size:
        raise InputError(f"{path}: all {train.size:,} readings of the training part are missing ({spec.null_value})")


def check_times(times: np.ndarray, spec: SeriesSpec, path: Path) -> int:
    """`times` (datetime64 `[T]`) begin at `start` and follow each other by `interval_minutes`.

    Gives the number of steps that are left out, which is 0 unless the spec allows gaps.
    """
    start = np.datetime64(spec.start, "s")
    if np.isnat(times).any():
        raise InputError(f"{path}: the time of row {int(np.argmax(np.isnat(times)))} is missing")
    if times[0] != start:
        raise InputError(f"{path} begins at {_time(times[0])}, expected start={_time(start)}")
    gaps = np.diff(times)
    interval = np.timedelta64(spec.interval_minutes * 60, "s")
    irregular = np.flatnonzero(gaps != interval)
    whole = (gaps > np.timedelta64(0)) & (gaps % interval == np.timedelta64(0))
    if not irregular.size or (spec.allow_gaps and whole.all()):
        return int((gaps // interval).sum()) - len(gaps)
    row = int(np.flatnonzero(~whole)[0] if spec.allow_gaps else irregular[0])
    hint = "" if spec.allow_gaps or not whole.all() else "; set allow_gaps=True if rows are left out on purpose"
    raise InputError(
        f"{path}: row {row + 1} is at {_time(times[row + 1])}, row {row} at {_time(times[row])}: expected "
        f"{spec.interval_minutes} minutes between them{hint}"
    )


def check_ids(listed: list[str] | None, in_file: list[str] | None, num_sensors: int, path: Path) -> list[str] | None:
    """The sensor ids in column order, from a list of their own or else from the file of the series.

    A list that holds the file's ids in another order would put every graph edge at the wrong sensors.
    """
    ids = listed if listed is not None else in_file
    if ids is None:
        return None
    if len(ids) != num_sensors:
        raise InputError(f"{path} names {len(ids)} sensors, expected num_sensors={num_sensors}")
    twice = first_repeated(ids)
    if twice is not None:
        raise InputError(f"{path} names sensor {bare(twice)} twice, expected {num_sensors} different ids")
    if listed is not None and in_file is not None and listed != in_file and set(listed) == set(in_file):
        column = next(i for i, (a, b) in enumerate(zip(listed, in_file, strict=True)) if a != b)
        here, there = bare(listed[column]), bare(in_file[column])
        raise InputError(
            f"{path} has sensor {here} in column {column}, the series has {there} there: expected the same order"
        )
    return ids


def _where(values: np.ndarray, test: np.ufunc) -> tuple[int, tuple[int, int]]:
    """How many of `values` pass `test`, and row and column of the first."""
    count, first, row = 0, (-1, -1), 0
    for block in row_blocks(values):
        found = test(block)
        here = int(np.count_nonzero(found))
        if here and not count:
            place = np.unravel_index(int(np.argmax(found)), found.shape)
            first = (row + int(place[0]), int(place[1]))
        count += here
        row += len(block)
    return count, first


def _place(place: tuple[int, int]) -> str:
    return f"row {place[0]}, sensor {place[1]}"


def _values(count: int) -> str:
    return "value" if count == 1 else "values"


def _time(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")).replace("T", " ")
