"""Reading HDF5 files of pandas' "fixed" format with h5py.

pandas itself is not used: PyTables unpickles attributes of the file (the index frequency is one), which can run code.
A frame is stored as a group: `axis0` the columns, `axis1` the index, and for each dtype k the columns `blockk_items`
with their values `blockk_values`.
"""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from ealinformer.data.files import bare, check_unpacked, decoding, require_file, shown
from ealinformer.data.raw_series import RawSeries, check_filled, check_unique, float_dtype
from ealinformer.errors import InputError

_MAX_COLUMNS = 1_000_000
_EXPECTED = "a pandas HDF5 file in 'fixed' format, without blosc compression"


def read_hdf5(path: Path) -> RawSeries:
    """The only frame `[T, N]` of an HDF5 file, its column labels as sensor ids and its date-time index as times.

    Raises InputError for a damaged file, none or several frames, and columns that are not numeric.
    """
    require_file(path, _EXPECTED)
    with decoding(path, _EXPECTED), h5py.File(path, "r") as file:
        return _read_frame(path, _only_frame(path, file))


def _only_frame(path: Path, file: h5py.File) -> h5py.Group:
    groups: list[h5py.Group] = [file]
    file.visititems(lambda _, item: groups.append(item) if isinstance(item, h5py.Group) else None)
    frames = [group for group in groups if "axis0" in group and "axis1" in group]
    if len(frames) == 1:
        return frames[0]
    if frames:
        names = ", ".join(bare(frame.name) for frame in frames[:8])
        raise InputError(f"{path}: holds {len(frames)} frames ({names}); expected one")
    if any(_text(group.attrs.get("pandas_type", "")) == "frame_table" for group in groups):
        raise InputError(f"{path}: is in pandas' 'table' format; expected the 'fixed' one, as DataFrame.to_hdf writes")
    raise InputError(f"{path}: holds no pandas frame (axis0, axis1); expected {_EXPECTED}")


def _read_frame(path: Path, frame: h5py.Group) -> RawSeries:
    columns = _labels(path, frame["axis0"])
    check_unique(path, columns)
    if frame["axis1"].ndim != 1:
        raise InputError(f"{path}: axis1 has shape {list(frame['axis1'].shape)}; expected one time for each row")
    if "shape" in frame["axis1"].attrs:  # pandas stores an empty axis as one made-up entry and the shape
        check_filled(path, 0, len(columns))
    times = _times(path, frame["axis1"])
    values = _values(path, frame, columns)
    check_filled(path, *values.shape)
    return RawSeries(values, columns, times)


def _values(path: Path, frame: h5py.Group, columns: list[str]) -> np.ndarray:
    """Values `[T, N]` of all blocks, put in the order of `columns`."""
    num_steps = frame["axis1"].shape[0]
    position = {name: number for number, name in enumerate(columns)}
    blocks: list[list[str]] = []
    for number in range(_num_blocks(frame)):
        items = _labels(path, frame[f"block{number}_items"])
        unknown = [name for name in items if name not in position]
        if unknown:
            raise InputError(f"{path}: block {number} holds column {shown(unknown[0])}; expected only columns of axis0")
        blocks.append(items)
        if sum(map(len, blocks)) > len(columns):
            break
    filled = sorted(position[name] for items in blocks for name in items)
    if filled != list(range(len(columns))):
        raise InputError(f"{path}: the blocks hold {len(filled)} columns; expected each of {len(columns)} once")
    # Only now are values read, each of them once: many blocks can be one and the same in the file.
    dtypes = {float_dtype(_stored(path, frame, number, items, num_steps).dtype) for number, items in enumerate(blocks)}
    check_unpacked(path, num_steps * len(columns) * (4 if dtypes == {np.dtype(np.float32)} else 8), _EXPECTED)
    values = np.empty((num_steps, len(columns)), np.float32 if dtypes == {np.dtype(np.float32)} else np.float64)
    for number, items in enumerate(blocks):
        values[:, [position[name] for name in items]] = _block(frame, number)
    return values


def _num_blocks(frame: h5py.Group) -> int:
    number = 0
    while f"block{number}_values" in frame:
        number += 1
    return number


def _stored(path: Path, frame: h5py.Group, number: int, items: list[str], num_steps: int) -> h5py.Dataset:
    """The dataset of one block, `[T, len(items)]` when it is read by `_block`."""
    stored = frame[f"block{number}_values"]
    if stored.dtype.kind not in "fiu":
        raise InputError(f"{path}: column {shown(items[0])} has dtype {stored.dtype}; expected integers or floats")
    found = list(stored.shape) if _is_turned(stored) else list(stored.shape)[::-1]
    if found != [num_steps, len(items)]:
        raise InputError(f"{path}: block {number} has shape {found}; expected {[num_steps, len(items)]}")
    return stored


def _is_turned(stored: h5py.Dataset) -> bool:
    # pandas keeps a block as [items, T] and marks that it stored the transpose, which it has always done so far.
    return bool(stored.attrs.get("transposed", True))


def _block(frame: h5py.Group, number: int) -> np.ndarray:
    stored = frame[f"block{number}_values"]
    return stored[()] if _is_turned(stored) else stored[()].T


def _labels(path: Path, dataset: h5py.Dataset) -> list[str]:
    # Names of any length, which pandas does not write, could each be the whole file.
    if dataset.ndim != 1 or dataset.dtype.kind not in "iuS" or dataset.size > _MAX_COLUMNS:
        held = f"{str(dataset.dtype)[:40]} {list(dataset.shape)}"
        raise InputError(f"{path}: {bare(dataset.name)} holds {held}; expected numbers or names")
    check_unpacked(path, dataset.size * dataset.dtype.itemsize, _EXPECTED)
    return [_text(label) for label in dataset[()].tolist()]


def _times(path: Path, index: h5py.Dataset) -> np.ndarray | None:
    """Local wall times `[T]` of a date-time index; None for an index of another kind."""
    kind = _text(index.attrs.get("kind", ""))
    if not kind.startswith("datetime64"):
        return None
    unit = kind.removeprefix("datetime64").strip("[]") or "ns"  # the unit is not named in files of older pandas
    if index.dtype.kind != "i" or index.dtype.itemsize != 8 or unit not in ("s", "ms", "us", "ns"):
        held = f"{str(index.dtype)[:40]} as {shown(kind)}"
        raise InputError(f"{path}: {bare(index.name)} holds {held}; expected int64 nanoseconds")
    check_unpacked(path, 8 * index.size, _EXPECTED)
    times = pd.DatetimeIndex(index[()].astype(np.int64).view(f"datetime64[{unit}]"))
    if "tz" in index.attrs:
        times = times.tz_localize("UTC").tz_convert(_text(index.attrs["tz"])).tz_localize(None)
    if times.hasnans:
        raise InputError(f"{path}: a row of {bare(index.name)} has no time; expected one for each row")
    return times.as_unit("ns").to_numpy()


def _text(value: object) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
