"""What a series looks like: range, moments, zeros, missing readings, copies among its columns."""

import hashlib
from collections.abc import Iterator

import numpy as np

from ealinformer.data.mapped import drop_pages
from ealinformer.data.meta import Statistics

# Large enough to be fast, small enough that a block in float64 is little beside a series of 100 MB.
BYTES_PER_BLOCK = 1 << 22
COLUMNS_PER_BLOCK = 16


def row_blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Views of `values` `[T, N]`, a few MB each; of a memory-mapped file no more than that stays in memory."""
    rows = rows_per_block(values[:1].nbytes)
    for first in range(0, len(values), rows):
        yield values[first : first + rows]
        drop_pages(values)


def rows_per_block(row_bytes: int) -> int:
    """How many rows of that size are read at a time."""
    return max(1, BYTES_PER_BLOCK // max(1, row_bytes))


def describe(values: np.ndarray, train_steps: int, null_value: float) -> Statistics:
    """Statistics of `values` `[T, N]` without a copy of them; NaN is left out of all but `missing`.

    Some reading of the first `train_steps` has to be a number.
    """
    mean, std = moments(values)
    train_mean, train_std = moments(values[:train_steps])
    return {
        "min": min(float(np.nanmin(block)) for block in row_blocks(values) if not np.isnan(block).all()),
        "max": max(float(np.nanmax(block)) for block in row_blocks(values) if not np.isnan(block).all()),
        "mean": mean,
        "std": std,
        "zeros": sum(int(np.count_nonzero(block == 0)) for block in row_blocks(values)),
        "missing": count_missing(values, null_value),
        "distinct_sensors": count_distinct_columns(values),
        "train_mean": train_mean,
        "train_std": train_std,
    }


class Moments:
    """Mean and population standard deviation in float64 of all readings but NaN, of blocks that come one by one."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = float("nan")
        self._squares = 0.0  # summed around the mean so far

    @property
    def std(self) -> float:
        """NaN when there is no reading."""
        return float(np.sqrt(self._squares / self.count)) if self.count else float("nan")

    def add(self, block: np.ndarray) -> None:
        """Count the readings of `block`, which has any shape."""
        nan = np.isnan(block)
        readings = (block[~nan] if nan.any() else block.reshape(-1)).astype(np.float64)
        if not readings.size:
            return
        # Each block around its own mean (Chan, Golub and LeVeque): the difference of two large sums would lose the
        # digits that matter, and a second pass would read a file again that is larger than memory.
        mean = float(readings.mean())
        readings -= mean
        self._squares += float(np.dot(readings, readings))
        if not self.count:
            self.count, self.mean = readings.size, mean
            return
        total, apart = self.count + readings.size, mean - self.mean
        self._squares += apart**2 * self.count * readings.size / total
        self.mean += apart * readings.size / total
        self.count = total


def moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and population standard deviation in float64 of all readings but NaN; NaN when there is none."""
    sums = Moments()
    for block in row_blocks(values):
        sums.add(block)
    return sums.mean, sums.std


def count_missing(values: np.ndarray, null_value: float) -> int:
    """How many readings equal `null_value`, which may be NaN."""
    null = np.float32(null_value)
    if np.isnan(null):
        return sum(int(np.count_nonzero(np.isnan(block))) for block in row_blocks(values))
    return sum(int(np.count_nonzero(block == null)) for block in row_blocks(values))


def count_distinct_columns(values: np.ndarray) -> int:
    """How many of the columns of `values` `[T, N]` are no copy of another one."""
    columns: set[bytes] = set()
    for first in range(0, values.shape[1], COLUMNS_PER_BLOCK):
        block = np.ascontiguousarray(values[:, first : first + COLUMNS_PER_BLOCK].T)
        columns.update(hashlib.sha256(column.tobytes()).digest() for column in block)
    return len(columns)
