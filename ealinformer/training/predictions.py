"""Forecasts of a split in one file, with what is needed to read it alone."""

from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ealinformer.data.files import npz_keys, read_npz
from ealinformer.data.meta import SPLITS, Split
from ealinformer.data.prepared import PreparedSeries
from ealinformer.errors import InputError
from ealinformer.files import replaced_whole
from ealinformer.training.config import RunConfig


def save_predictions(path: Path, prediction: np.ndarray, data: PreparedSeries, split: Split, run: RunConfig) -> None:
    """Write an `.npz` with `prediction` and `targets` `[W, H, N]`, `timestamps` `[W, H, 2]` and `sensor_ids` `[N]`.

    Readings are on the original scale; missing ones are `null_value`. `times` `[W, H]` is the calendar time of each
    forecast reading, for a series without gaps in its rows.

    Raises:
        InputError: the name does not end in .npz, or the file cannot be written.
    """
    check_path(path)
    arrays = {
        "prediction": prediction,
        "targets": target_windows(data.data(split), run),
        "timestamps": target_windows(data.timestamps(split), run),
        "times": target_windows(split_times(data, split)[:, None], run)[..., 0],
        "sensor_ids": np.array(data.sensor_ids()),
        "null_value": np.float32(data.null_value),
    }
    with replaced_whole(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """The arrays that `save_predictions` wrote.

    Raises:
        InputError: the file is not there or damaged.
    """
    return {name: read_npz(path, name) for name in npz_keys(path)}


def check_path(path: Path) -> None:
    """Raises InputError when `path` cannot become an .npz file."""
    if path.suffix != ".npz":
        raise InputError(f"predictions {path}: a name that ends in .npz is expected")
    if not path.parent.is_dir():
        raise InputError(f"predictions {path}: the folder {path.parent} is not there")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder, expected the name of a file")


def input_windows(rows: np.ndarray, run: RunConfig) -> np.ndarray:
    """What every window is forecast from: `[T, ...]` -> a view `[W, L, ...]`."""
    windows = sliding_window_view(rows[: len(rows) - run.output_len], run.input_len, axis=0)
    return np.moveaxis(windows, -1, 1)


def target_windows(rows: np.ndarray, run: RunConfig) -> np.ndarray:
    """The rows to be forecast in every window: `[T, ...]` -> a view `[W, H, ...]`."""
    windows = sliding_window_view(rows[run.input_len :], run.output_len, axis=0)
    return np.moveaxis(windows, -1, 1)


def split_times(data: PreparedSeries, split: Split) -> np.ndarray:
    """Calendar time of the rows of a split, `datetime64[m]` `[T_split]`."""
    steps = data.meta["steps"]
    before = sum(steps[earlier] for earlier in SPLITS[: SPLITS.index(split)])
    rows = before + np.arange(steps[split])
    return np.datetime64(data.start, "m") + rows * np.timedelta64(data.interval_minutes, "m")
