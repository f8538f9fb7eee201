"""Reading the raw series of a traffic data set, whatever published file format it comes in."""

from pathlib import Path

import numpy as np

from ealinformer.data.files import main_array, read_npy
from ealinformer.data.hdf5 import read_hdf5
from ealinformer.data.raw_series import RawSeries, check_channel, check_filled, check_numeric, float_dtype
from ealinformer.data.tables import read_csv, read_parquet
from ealinformer.errors import InputError

__all__ = ["RawSeries", "read_series"]

SUFFIXES = (".npz", ".npy", ".h5", ".hdf5", ".csv", ".parquet")


def read_series(path: Path, *, channel: int = 0, time_column: str | None = None) -> RawSeries:
    """Read a series `[T, N]`, or channel `channel` of `[T, N, C]`, in the format that the suffix of `path` names.

    `.npz` (array `data`, else its only array), `.npy`, `.h5` and `.hdf5` (pandas "fixed" format), `.csv` and
    `.parquet` (`time_column`, else the first column, holds the times; the index of a Parquet file may hold them).

    Raises InputError for a file that is missing, damaged, of an unknown suffix, not numeric, of other dimensions,
    or without that channel.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: unknown suffix {path.suffix!r}; expected one of {', '.join(SUFFIXES)}")
    if time_column is not None and suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: has no named time column, but {time_column!r} is asked for; expected none")
    if suffix == ".npz":
        return _from_array(path, main_array(path), channel)
    if suffix == ".npy":
        return _from_array(path, read_npy(path), channel)
    check_channel(path, channel, num_channels=1)
    if suffix == ".csv":
        return read_csv(path, time_column)
    if suffix == ".parquet":
        return read_parquet(path, time_column)
    return read_hdf5(path)


def _from_array(path: Path, array: np.ndarray, channel: int) -> RawSeries:
    check_numeric(path, array)
    if array.ndim not in (2, 3):
        raise InputError(f"{path}: the array has shape {list(array.shape)}; expected [T, N] or [T, N, C]")
    check_filled(path, *array.shape[:2])
    check_channel(path, channel, num_channels=1 if array.ndim == 2 else array.shape[2])
    values = array if array.ndim == 2 else array[..., channel]
    # A channel is a strided view: the copy lets go of the others.
    return RawSeries(np.ascontiguousarray(values, dtype=float_dtype(array.dtype)), sensor_ids=None, times=None)
