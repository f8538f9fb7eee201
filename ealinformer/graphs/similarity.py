"""Graphs made of the training part of a series, for data sets without a road graph and for models that learn theirs."""

from collections.abc import Iterator

import numpy as np

from ealinformer.graphs.checks import check_count, checked_readings
from ealinformer.graphs.missing import missing_readings

READINGS_PER_BLOCK = 1 << 20  # 8 MB in float64: a block stays in the cache, and large networks in memory


def correlation_graph(
    readings: np.ndarray, neighbours: int = 10, null_value: float = 0.0, window: int = 36
) -> np.ndarray:
    """Sensors that leave their course together: `[T, N]` -> weights `[N, N]`, float32, in [0, 1], symmetric, no loops.

    The weight is the cosine of the two sensors' departures, where it is above 0 and among the `neighbours` largest of
    one of the two. A departure is a reading less the mean of those from `window` / 2 steps before to as many after: 3
    hours at 5 minutes. Readings themselves would not do, for the day's course, which all sensors share, correlates all
    of them; changes from one step to the next are mostly noise. NaN and readings equal to `null_value` are missing and
    depart by 0. A sensor that never changes has no edges. Raises ValueError for what are no readings `[T, N]`, infinite
    ones, and sizes below 1.
    """
    series = checked_readings(readings)
    check_count("neighbours", neighbours)
    check_count("window", window)
    cosines = np.maximum(_cosines(_departures(series, null_value, window // 2), series.shape[1]), 0)
    np.fill_diagonal(cosines, 0)
    kept = np.where(_largest(cosines, neighbours), cosines, 0)
    return np.maximum(kept, kept.T).astype(np.float32)


def nearest_neighbour_graph(readings: np.ndarray, neighbours: int = 10, null_value: float = 0.0) -> np.ndarray:
    """The `neighbours` sensors most alike each: `[T, N]` -> `[N, N]`, float32, 1 at (i, j) where j is one of i's.

    Alike are two sensors whose series, each without its mean, have a large cosine: their correlation, whatever its
    sign (GTS, arXiv 2101.06861, section 3.3: cosine, weights of 1, edges one way). NaN and readings equal to
    `null_value` are missing and count as the sensor's mean. A sensor that never changes is alike none: it has no edges,
    and others have fewer where there are less than `neighbours` left. Of equals the first in order are taken. Raises
    ValueError for what are no readings `[T, N]`, infinite ones, and less than one neighbour.
    """
    series = checked_readings(readings)
    check_count("neighbours", neighbours)
    cosines = _cosines(_deviations(series, null_value), series.shape[1])
    constant = np.diagonal(cosines) == 0
    cosines[constant] = cosines[:, constant] = -np.inf
    np.fill_diagonal(cosines, -np.inf)
    return (_largest(cosines, neighbours) & np.isfinite(cosines)).astype(np.float32)


def _cosines(blocks: Iterator[np.ndarray], num_sensors: int) -> np.ndarray:
    """Cosine of each two columns of a matrix that comes in blocks of rows; 0 with a column of zeros."""
    products = np.zeros((num_sensors, num_sensors))
    for block in blocks:
        products += block.T @ block
    length = np.sqrt(np.diagonal(products))
    scale = np.divide(1, length, out=np.zeros_like(length), where=length > 0)
    return scale[:, None] * products * scale


def _departures(series: np.ndarray, null_value: float, reach: int) -> Iterator[np.ndarray]:
    """x_t less the mean of x from t - reach to t + reach `[t, N]` in blocks of rows; 0 where a reading is missing."""
    least, length = _least(series, null_value), _block_length(series)
    for start in range(0, len(series), length):
        first = max(start - reach, 0)
        block = _block(series, null_value, first, start + length + reach) - least
        sums, counts = _running_sum(np.nan_to_num(block)), _running_sum(~np.isnan(block))
        steps = np.arange(start, min(start + length, len(series))) - first
        begin, end = np.maximum(steps - reach, 0), np.minimum(steps + reach + 1, len(block))
        mean = (sums[end] - sums[begin]) / np.maximum(counts[end] - counts[begin], 1)
        yield np.nan_to_num(block[steps] - mean, copy=False)


def _deviations(series: np.ndarray, null_value: float) -> Iterator[np.ndarray]:
    """x_t less the mean of x `[t, N]` in blocks of rows; 0 where a reading is missing."""
    least, length = _least(series, null_value), _block_length(series)
    total, count = np.zeros_like(least), np.zeros_like(least)
    for start in range(0, len(series), length):
        block = _block(series, null_value, start, start + length) - least
        total += np.nansum(block, axis=0)
        count += (~np.isnan(block)).sum(axis=0)
    mean = total / np.maximum(count, 1)
    for start in range(0, len(series), length):
        block = _block(series, null_value, start, start + length) - least
        yield np.nan_to_num(block - mean, copy=False)


def _least(series: np.ndarray, null_value: float) -> np.ndarray:
    """The least reading of each sensor `[N]`. What is taken from it is exactly 0 at a sensor that never changes."""
    least, length = np.full(series.shape[1], np.inf), _block_length(series)
    for start in range(0, len(series), length):
        least = np.fmin(least, np.fmin.reduce(_block(series, null_value, start, start + length), axis=0))
    return least


def _block_length(series: np.ndarray) -> int:
    return max(1, READINGS_PER_BLOCK // series.shape[1])


def _block(series: np.ndarray, null_value: float, start: int, end: int) -> np.ndarray:
    """Rows in float64, NaN where a reading is missing."""
    block = series[start:end].astype(np.float64)
    block[missing_readings(block, null_value)] = np.nan
    return block


def _running_sum(values: np.ndarray) -> np.ndarray:
    """`[t, N]` -> `[t + 1, N]`: row k is the sum of the first k rows."""
    sums = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    return sums


def _largest(similarity: np.ndarray, count: int) -> np.ndarray:
    """True at the `count` largest entries of every row, of equals the first."""
    chosen = np.zeros(similarity.shape, bool)
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen
