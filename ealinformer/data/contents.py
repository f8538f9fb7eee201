"""Are the files of a prepared series what was written, and can a model be trained on what is in them?"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from ealinformer.data.meta import META_FILE, SPLITS, Split
from ealinformer.data.prepared import PreparedSeries
from ealinformer.data.statistics import Moments, rows_per_block
from ealinformer.data.timestamps import DAYS_PER_WEEK, calendar_features
from ealinformer.errors import InputError

SECONDS_BETWEEN_LINES = 5.0
_MOST_ROWS = 1 << 16  # of timestamps at a time, which are small
_MOST_NAMED = 5  # sensors in a line of the log
_FEATURES = ("time of day", "day of week")


@dataclass(frozen=True)
class Contents:
    """What the files of a series hold. Missing readings are those equal to the null value."""

    steps: dict[Split, int]
    num_sensors: int
    missing: dict[Split, float]  # share of the readings
    constant: tuple[int, ...]  # sensors with a single value in the training part, missing readings left out
    empty: tuple[int, ...]  # sensors without any reading in the training part
    checksum: str  # identity of the data set, see PreparedSeries.checksum


def check_contents(series: PreparedSeries, progress: Callable[[str], None] | None = None) -> Contents:
    """Read every file of a series once, in blocks, and compare it with `meta.json`, the calendar and what can be used.

    `progress` gets a line with share and time left every few seconds.

    Raises:
        InputError: a file is not the one that was written (size or sha256), a reading or a timestamp cannot be, the
            graph or the ids are of another number of sensors, or `meta.json` has other statistics. It says where.
    """
    reader = _Reader(series, progress)
    # The small ones first, so that a bad one is named at once.
    for name in sorted(series.meta["files"], key=lambda name: series.meta["files"][name]["size"]):
        if not name.endswith(".npy"):
            reader.check(name)
    series.graph()
    ids = series.sensor_ids()
    if len(set(ids)) < len(ids):
        twice = next(sensor for sensor in ids if ids.count(sensor) > 1)
        raise InputError(f"{series.directory}: sensor {twice} is named twice, expected {len(ids)} different ids")
    first_row = 0
    for split in SPLITS:
        _check_timestamps(series, split, first_row, reader)
        first_row += series.meta["steps"][split]
    tallies = {split: _check_readings(series, split, reader) for split in SPLITS}
    _check_statistics(series, tallies)
    train, size = tallies["train"], series.num_sensors
    return Contents(
        steps=dict(series.meta["steps"]),
        num_sensors=size,
        missing={split: tally.missing / (series.meta["steps"][split] * size) for split, tally in tallies.items()},
        constant=tuple(np.flatnonzero(train.low == train.high).tolist()),
        empty=tuple(np.flatnonzero(train.low > train.high).tolist()),
        checksum=series.checksum,
    )


def describe_contents(contents: Contents, ids: Sequence[str]) -> str:
    """One line for the log; `ids` are those of the sensors in column order."""
    parts = [
        f"{sum(contents.steps.values()):,} steps x {contents.num_sensors:,} sensors",
        "missing " + ", ".join(f"{100 * share:.2f} % of {split}" for split, share in contents.missing.items()),
    ]
    for sensors, what in ((contents.constant, "constant"), (contents.empty, "without any reading")):
        if sensors:
            named = ", ".join(ids[sensor] for sensor in sensors[:_MOST_NAMED])
            more = ", ..." if len(sensors) > _MOST_NAMED else ""
            count = f"{len(sensors):,} sensor{'s' if len(sensors) > 1 else ''}"
            parts.append(f"{count} {what} in the training part ({named}{more})")
    return "; ".join([*parts, f"checksum {contents.checksum[:12]}"])


@dataclass
class _Tally:
    """What is counted of the readings of one split, block by block."""

    num_sensors: int
    null_value: float
    missing: int = 0
    moments: Moments = field(default_factory=Moments)

    def __post_init__(self) -> None:
        self.low = np.full(self.num_sensors, np.inf, dtype=np.float32)
        self.high = np.full(self.num_sensors, -np.inf, dtype=np.float32)

    def add(self, rows: np.ndarray, *, by_sensor: bool) -> None:
        """Count `rows` `[t, N]`, all finite but for NaN."""
        null = np.float32(self.null_value)
        missing = np.isnan(rows) if np.isnan(null) else rows == null
        self.missing += int(np.count_nonzero(missing))
        if by_sensor:
            self.moments.add(rows)
            np.minimum(self.low, np.where(missing, np.inf, rows).min(axis=0), out=self.low)
            np.maximum(self.high, np.where(missing, -np.inf, rows).max(axis=0), out=self.high)


class _Reader:
    """Reads files from begin to end, compares them with their checksums and says how far it is."""

    def __init__(self, series: PreparedSeries, progress: Callable[[str], None] | None) -> None:
        self.series = series
        self.progress = progress
        self.total = sum(file["size"] for file in series.meta["files"].values())
        self.done = 0
        self.started = self.told = time.monotonic()

    def check(self, name: str) -> None:
        """Read a file for its checksum alone."""
        for _ in self._chunks(name, 0, 1 << 20):
            pass

    def rows(self, split: Split, what: str) -> Iterator[tuple[int, np.ndarray]]:
        """The rows of one of the series' arrays in blocks, each with the number of its first row.

        From the file, not from the map: so nothing stays in memory, and a file that is cut off meanwhile is an error
        and not the end of the process. The checksum is compared after the last block.
        """
        array = self.series.data(split) if what == "data" else self.series.timestamps(split)
        assert isinstance(array, np.memmap)
        name = f"{split}_{what}.npy"
        size, expected = self.series.meta["files"][name]["size"], array.offset + array.nbytes
        if size != expected:
            raise InputError(f"{self.series.directory / name} has {size} bytes, its array ends after {expected}")
        per_block = min(rows_per_block(array.strides[0]), _MOST_ROWS)
        first = 0
        for chunk in self._chunks(name, array.offset, per_block * array.strides[0]):
            block = np.frombuffer(chunk, dtype=array.dtype).reshape(-1, array.shape[1])
            yield first, block
            first += len(block)

    def _chunks(self, name: str, head: int, size: int) -> Iterator[bytes]:
        """The bytes of a file after the first `head`, up to `size` at a time."""
        path, written = self.series.directory / name, self.series.meta["files"][name]
        again = self.series.how_to_prepare_again
        sha256, done = hashlib.sha256(), 0
        try:
            with path.open("rb") as file:
                before = file.read(head)
                sha256.update(before)
                done = len(before)
                while chunk := file.read(size):
                    sha256.update(chunk)
                    done += len(chunk)
                    if done > written["size"] or (len(chunk) < size and done < written["size"]):
                        break
                    yield chunk
                    self._tell(done)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
        if done != written["size"]:
            raise InputError(f"{path} has {done} bytes, expected {written['size']}: {again}")
        if sha256.hexdigest() != written["sha256"]:
            raise InputError(
                f"{path} was changed after it was prepared: its sha256 is {sha256.hexdigest()[:12]}..., expected "
                f"{written['sha256'][:12]}...: {again}"
            )
        self.done += done

    def _tell(self, done: int) -> None:
        now = time.monotonic()
        if self.progress is None or now - self.told < SECONDS_BETWEEN_LINES:
            return
        self.told = now
        share = (self.done + done) / self.total
        left = timedelta(seconds=round((now - self.started) * (1 / share - 1)))
        self.progress(f"checking {self.series.name}: {share:.0%} of {self.total / 1e9:.1f} GB, {left} left")


def _check_readings(series: PreparedSeries, split: Split, reader: _Reader) -> _Tally:
    tally = _Tally(series.num_sensors, series.null_value)
    wrong: str | None = None
    for first, rows in reader.rows(split, "data"):
        # Read on even so: that the file was changed says more than what it was changed to.
        if wrong is None and (wrong := _not_finite(rows, first, series.null_value)) is None:
            tally.add(rows, by_sensor=split == "train")
    if wrong is not None:
        path = series.directory / f"{split}_data.npy"
        raise InputError(f"{path}: the {split} part holds {wrong}: {series.how_to_prepare_again}")
    return tally


def _not_finite(rows: np.ndarray, first: int, null_value: float) -> str | None:
    bad = ~np.isfinite(rows)
    if math.isnan(null_value):
        bad &= ~np.isnan(rows)
    if not bad.any():
        return None
    row, sensor = np.unravel_index(int(np.argmax(bad)), bad.shape)
    allowed = "finite values or NaN" if math.isnan(null_value) else "finite values"
    return f"{rows[row, sensor]} in row {first + row}, sensor {sensor}, expected {allowed}"


def _check_timestamps(series: PreparedSeries, split: Split, first_row: int, reader: _Reader) -> None:
    """`first_row` is the row of the whole series with which the split begins."""
    wrong: str | None = None
    for first, rows in reader.rows(split, "timestamps"):
        if wrong is None:
            wrong = _out_of_range(rows, first) or _off_the_calendar(series, rows, first, first_row + first)
    if wrong is not None:
        path = series.directory / f"{split}_timestamps.npy"
        raise InputError(f"{path}: {wrong}: {series.how_to_prepare_again}")


def _out_of_range(rows: np.ndarray, first: int) -> str | None:
    bad = ~((rows >= 0) & (rows < 1))  # NaN too
    if not bad.any():
        return None
    row, column = np.unravel_index(int(np.argmax(bad)), bad.shape)
    return f"{_FEATURES[column]} of row {first + row} is {rows[row, column]}, expected at least 0 and below 1"


def _off_the_calendar(series: PreparedSeries, rows: np.ndarray, first: int, row_of_series: int) -> str | None:
    """The first of `rows` that is not where its row of the series belongs.

    Where rows were left out, no more is known than that times are whole intervals from the start and days are days.
    """
    if series.meta["allow_gaps"]:
        of_start = calendar_features(series.start, series.interval_minutes, 1)[0, 0]
        steps = np.array([series.steps_per_day, DAYS_PER_WEEK])
        origin = np.array([of_start, 0.0])
        expected = np.round((rows - origin) * steps) / steps + origin
    else:
        expected = _calendar_of_rows(series, row_of_series, len(rows))
    # A thousandth of an interval; float32 is ten times finer.
    bad = np.abs(rows - expected) > 1e-3 / series.steps_per_day
    if not bad.any():
        return None
    row, column = np.unravel_index(int(np.argmax(bad)), bad.shape)
    return (
        f"{_FEATURES[column]} of row {first + row} is {rows[row, column]:.6f}, expected {expected[row, column]:.6f} "
        f"({series.interval_minutes} minutes a row from {series.meta['start']} on)"
    )


def _calendar_of_rows(series: PreparedSeries, first: int, count: int) -> np.ndarray:
    """Calendar features of `count` rows of a gapless series from row `first` on."""
    before = first % (DAYS_PER_WEEK * series.steps_per_day)  # days that are counted from row 0 start anew every week
    start: datetime = series.start + timedelta(minutes=(first - before) * series.interval_minutes)
    rows = calendar_features(start, series.interval_minutes, before + count, series.meta["day_of_week"])
    return rows[before:]


def _check_statistics(series: PreparedSeries, tallies: dict[Split, _Tally]) -> None:
    """Those of `meta.json` that training could go by."""
    path, train, said = series.directory / META_FILE, tallies["train"].moments, series.meta["statistics"]
    if not train.count:
        raise InputError(f"{series.directory}: the training part holds no reading, expected some")
    near = 1e-6 * train.std
    for name, value in (("train_mean", train.mean), ("train_std", train.std)):
        if not math.isclose(said[name], value, rel_tol=1e-6, abs_tol=near):  # type: ignore[literal-required]
            raise InputError(
                f"{path} says {name}={said[name]}, the training part has {value:.9g}: "  # type: ignore[literal-required]
                f"{series.how_to_prepare_again}"
            )
    missing = sum(tally.missing for tally in tallies.values())
    if missing != said["missing"]:
        raise InputError(
            f"{path} says {said['missing']} readings are missing, the files hold {missing}: "
            f"{series.how_to_prepare_again}"
        )
