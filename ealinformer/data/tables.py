"""Reading series from tables, CSV or Parquet: a row for each step, a time column, and a column for each sensor."""

import csv
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from ealinformer.data.files import decoding, require_file
from ealinformer.data.raw_series import RawSeries, check_filled, check_unique, float_dtype
from ealinformer.errors import InputError, suggestion

_CSV = "a CSV file with a header, a time column and one numeric column for each sensor"
_PARQUET = "a Parquet file with a time column and one numeric column for each sensor"
# pandas 3.1 reads every digit and is about to drop the option; before, the last digit is lost without it.
_EXACT = {"float_precision": "round_trip"} if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1) else {}
_DATE = re.compile(r"\d+[-/]\d+[-/]\d+")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


def read_csv(path: Path, time_column: str | None) -> RawSeries:
    """A series `[T, N]` from a CSV file; the header gives the sensor ids, empty fields are NaN.

    Raises InputError for rows of uneven width, repeated or missing columns, and fields that are not numbers or times.
    """
    require_file(path, _CSV)
    with decoding(path, _CSV):
        names = _even_header(path)
        if names and _DATE.match(names[0]):
            raise InputError(f"{path}: the first line starts with {names[0]!r} and is no header; expected {_CSV}")
        place = _time_place(path, names, time_column)
        # Columns are read under their number, because pandas renames repeated names; times are parsed below.
        frame = pd.read_csv(
            path,
            header=0,
            names=list(range(len(names))),
            index_col=False,
            dtype={place: str},
            encoding="utf-8-sig",
            low_memory=False,
            **_EXACT,
        )
        return _series(path, frame, names, place)


def read_parquet(path: Path, time_column: str | None) -> RawSeries:
    """A series `[T, N]` from a Parquet file; its pandas index counts as the first column when it has times or a name.

    Raises InputError as `read_csv` does, and when pyarrow is not installed.
    """
    require_file(path, _PARQUET)
    with decoding(path, _PARQUET):
        try:
            frame = pd.read_parquet(path, engine="pyarrow")
        except ImportError as error:
            needed = 'Parquet files need pyarrow, which is not installed; pip install "ealinformer[parquet]"'
            raise InputError(f"{path}: {needed}") from error
        indexed = isinstance(frame.index, pd.DatetimeIndex) or list(frame.index.names) != [None]
        frame = frame.reset_index(drop=not indexed)
        names = [str(name) for name in frame.columns]
        return _series(path, frame, names, _time_place(path, names, time_column))


def _even_header(path: Path) -> list[str]:
    """Column names of a CSV file whose rows all have as many fields as the header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        names = next((row for row in rows if row), [])
        # pandas would fill a row that was cut off with NaN and fold the surplus fields of another into an index.
        for row in rows:
            if row and len(row) != len(names):
                found = f"line {rows.line_num} has {len(row)} fields"
                raise InputError(f"{path}: {found}; expected {len(names)} as in the header")
    return [name.strip() for name in names]


def _time_place(path: Path, names: list[str], time_column: str | None) -> int:
    check_unique(path, names)
    if time_column is None:
        return 0
    if time_column not in names:
        known = f"{len(names)} columns, the first {names[0]!r}" if names else "no columns"
        near = suggestion(time_column, names)
        raise InputError(f"{path}: has {known}; expected a time column {time_column!r}{near}")
    return names.index(time_column)


def _series(path: Path, frame: pd.DataFrame, names: list[str], place: int) -> RawSeries:
    """The series of a frame `[T, 1 + N]` with the times in column number `place`."""
    sensor_ids = names[:place] + names[place + 1 :]
    check_filled(path, len(frame), len(sensor_ids))
    times = _times(path, names[place], frame.iloc[:, place])
    sensors = frame.iloc[:, [number for number in range(len(names)) if number != place]]
    for name, dtype in zip(sensor_ids, sensors.dtypes, strict=True):
        if not pd.api.types.is_any_real_numeric_dtype(dtype):
            raise InputError(f"{path}: column {name!r} {_not_a_number(sensors.iloc[:, sensor_ids.index(name)])}")
    single = all(isinstance(dtype, np.dtype) and float_dtype(dtype) == np.float32 for dtype in sensors.dtypes)
    values = sensors.to_numpy(dtype=np.float32 if single else np.float64, na_value=np.nan)
    return RawSeries(np.ascontiguousarray(values), sensor_ids, times)


def _not_a_number(column: pd.Series) -> str:
    """What stands in a column that is not numeric, and where."""
    if not (pd.api.types.is_string_dtype(column.dtype) or column.dtype == object):
        return f"has dtype {column.dtype}; expected integers or floats"
    bad = pd.to_numeric(column, errors="coerce").isna() & column.notna()
    if not bad.any():
        return f"has dtype {column.dtype}; expected integers or floats"
    row = int(bad.to_numpy().argmax())
    return f"holds {str(column.iloc[row])[:40]!r} in data row {row + 1}; expected a number"


def _times(path: Path, name: str, column: pd.Series) -> np.ndarray:
    """Local wall times `[T]`, datetime64[ns], of the time column."""
    expected = f"date-times such as '2018-01-01 00:05:00' in time column {name!r}"
    # A number is no calendar time, though the parser would make one of it.
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        first = next(iter(column.dropna().astype(str)), "")
        if _NUMBER.fullmatch(first):
            raise InputError(f"{path}: found the number {first!r}; expected {expected}")
    missing = column.isna().to_numpy()
    if missing.any():
        raise InputError(f"{path}: data row {int(missing.argmax()) + 1} has no time; expected {expected}")
    with decoding(path, expected), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # pandas warns before it guesses each row's format for itself
        times = pd.DatetimeIndex(pd.to_datetime(column))
        return times.tz_localize(None).as_unit("ns").to_numpy()
