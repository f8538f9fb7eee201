"""Reading series from tables, CSV or Parquet: a row for each step, a time column, and a column for each sensor."""

import csv
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ealinformer.data.files import check_unpacked, decoding, require_file, shown
from ealinformer.data.raw_series import RawSeries, check_filled, check_unique, float_dtype
from ealinformer.errors import InputError, suggestion

_CSV = "a CSV file with a header, a time column and one numeric column for each sensor"
_PARQUET = "a Parquet file with a time column and one numeric column for each sensor"
# pandas 3.1 reads every digit and is about to drop the option; before, the last digit is lost without it.
_EXACT = {"float_precision": "round_trip"} if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1) else {}
# pandas takes a tenth of a millisecond for each column, be it empty.
_MAX_COLUMNS = 100_000
_DATE = re.compile(r"\d+[-/]\d+[-/]\d+")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


def read_csv(path: Path, time_column: str | None) -> RawSeries:
    """A series `[T, N]` from a CSV file; the header gives the sensor ids, empty fields are NaN.

    Raises InputError for rows of uneven width, repeated or missing columns, and fields that are not numbers or times.
    """
    require_file(path, _CSV)
    with decoding(path, _CSV):
        names = _even_header(path)
        _check_width(path, len(names))
        if names and _DATE.match(names[0]):
            raise InputError(f"{path}: the first line starts with {shown(names[0])} and is no header; expected {_CSV}")
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
            import pyarrow.parquet
        except ImportError as error:
            needed = 'Parquet files need pyarrow, which is not installed; pip install "ealinformer[parquet]"'
            raise InputError(f"{path}: {needed}") from error
        texts = _check_contents(path, pyarrow.parquet.ParquetFile(path), pyarrow.types)
        frame = pd.read_parquet(path, engine="pyarrow", read_dictionary=texts)
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


def _check_width(path: Path, num_columns: int) -> None:
    if num_columns > _MAX_COLUMNS:
        raise InputError(f"{path}: has {num_columns} columns; expected at most {_MAX_COLUMNS}, or an .npz file")


def _check_contents(path: Path, file: Any, types: Any) -> list[str]:
    """Names of the columns of text, once what the file would unpack to was found to fit in memory.

    Parquet writes a value that is repeated a million times once, so that the size of a file says little; of text, the
    distinct ones are read alone.
    """
    is_text = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    fields = list(file.schema_arrow)
    _check_width(path, len(fields))
    texts = [field.name for field in fields if any(test(field.type) for test in is_text)]
    cell_bytes = 0
    for field in fields:
        if types.is_nested(field.type):
            held = shown(str(field.type))
            raise InputError(f"{path}: column {shown(field.name)} has type {held}; expected integers or floats")
        plain = types.is_integer(field.type) or types.is_floating(field.type) or types.is_timestamp(field.type)
        cell_bytes += 8 if plain else 128  # pandas makes a Python object of everything else
    num_rows = sum(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
    check_unpacked(path, num_rows * cell_bytes, _PARQUET)
    return texts


def _time_place(path: Path, names: list[str], time_column: str | None) -> int:
    check_unique(path, names)
    if time_column is None:
        return 0
    if time_column not in names:
        known = f"{len(names)} columns, the first {shown(names[0])}" if names else "no columns"
        near = suggestion(time_column, names[:1000])
        raise InputError(f"{path}: has {known}; expected a time column {time_column!r}{near}")
    return names.index(time_column)


def _series(path: Path, frame: pd.DataFrame, names: list[str], place: int) -> RawSeries:
    """The series of a frame `[T, 1 + N]` with the times in column number `place`."""
    sensor_ids = names[:place] + names[place + 1 :]
    check_filled(path, len(frame), len(sensor_ids))
    times = _times(path, names[place], frame.pop(frame.columns[place]))
    dtypes = set(frame.dtypes)
    if not all(map(pd.api.types.is_any_real_numeric_dtype, dtypes)):
        number = next(n for n, dtype in enumerate(frame.dtypes) if not pd.api.types.is_any_real_numeric_dtype(dtype))
        raise InputError(f"{path}: column {shown(sensor_ids[number])} {_not_a_number(frame.iloc[:, number])}")
    single = all(isinstance(dtype, np.dtype) and float_dtype(dtype) == np.float32 for dtype in dtypes)
    values = frame.to_numpy(dtype=np.float32 if single else np.float64, na_value=np.nan)
    return RawSeries(np.ascontiguousarray(values), sensor_ids, times)


def _not_a_number(column: pd.Series) -> str:
    """What stands in a column that is not numeric, and where."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if not (pd.api.types.is_string_dtype(column.dtype) or column.dtype == object):
        return f"has dtype {column.dtype}; expected integers or floats"
    bad = pd.to_numeric(column, errors="coerce").isna() & column.notna()
    if not bad.any():
        return f"has dtype {column.dtype}; expected integers or floats"
    row = int(bad.to_numpy().argmax())
    return f"holds {str(column.iloc[row])[:40]!r} in data row {row + 1}; expected a number"


def _times(path: Path, name: str, column: pd.Series) -> np.ndarray:
    """Local wall times `[T]`, datetime64[ns], of the time column."""
    expected = f"date-times such as '2018-01-01 00:05:00' in time column {shown(name)}"
    # A number is no calendar time, though the parser would make one of it.
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        first = next(iter(column.dropna().astype(str)), "")
        if _NUMBER.fullmatch(first):
            raise InputError(f"{path}: found the number {shown(first)}; expected {expected}")
    missing = column.isna().to_numpy()
    if missing.any():
        raise InputError(f"{path}: data row {int(missing.argmax()) + 1} has no time; expected {expected}")
    with decoding(path, expected), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # pandas warns before it guesses each row's format for itself
        times = pd.DatetimeIndex(pd.to_datetime(column))
        return times.tz_localize(None).as_unit("ns").to_numpy()
