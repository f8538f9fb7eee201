"""What a series looks like: range, moments, zeros, missing readings, copies among its columns."""

import hashlib
from collections.abc import Iterator

import numpy as np

from ealinformer.data.meta import Statistics

# Large enough to be fast, small enough that a block in float64 is little beside a series of 100 MB.
ROWS_PER_BLOCK = 2048
COLUMNS_PER_BLOCK = 16


def row_blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Views of `values` `[T, N]`, some thousand rows each."""
    for first in range(0, len(values), ROWS_PER_BLOCK):
        yield values[first : first + ROWS_PER_BLOCK]


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


def moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and population standard deviation in float64 of all readings but NaN; NaN when there is none."""
    count = sum(int(np.count_nonzero(~np.isnan(block))) for block in row_blocks(values))
    if not count:
        return float("nan"), float("nan")
    mean = sum(float(np.nansum(block, dtype=np.float64)) for block in row_blocks(values)) / count
    # Around the mean, in a second pass: the difference of two large sums would lose the digits that matter.
    squares = sum(float(np.nansum((block.astype(np.float64) - mean) ** 2)) for block in row_blocks(values))
    return mean, float(np.sqrt(squares / count))


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
