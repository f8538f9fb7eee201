"""What has to be known about a series to prepare it: shape, calendar, split, missing values, graph, source."""

import math
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MINUTES_PER_DAY = 24 * 60


class Source(BaseModel):
    """Where one public file is found and how to recognise it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | None = None
    sha256: str | None = None
    md5: str | None = None
    size: Annotated[int, Field(gt=0)] | None = None  # bytes


class SeriesSpec(BaseModel):
    """One multivariate series: `num_sensors` columns sampled every `interval_minutes` from `start` on.

    File names are looked up in `<raw-dir>/<name>/` and then in `<raw-dir>/`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    num_sensors: Annotated[int, Field(gt=0)]
    interval_minutes: Annotated[int, Field(gt=0, le=MINUTES_PER_DAY)]
    start: datetime  # calendar time of the first row
    raw_file: str  # .npz, .h5, .csv, .parquet or .npy
    target: str = "flow"  # what is measured, for tables and figures
    unit: str = "vehicles per interval"
    split: tuple[float, float, float] = (0.6, 0.2, 0.2)  # shares of train, validation, test, in time order
    null_value: float = 0.0  # what a missing reading looks like; float("nan") for NaN
    num_steps: Annotated[int, Field(gt=0)] | None = None  # checked when given
    channel: Annotated[int, Field(ge=0)] = 0  # of a raw file [T, N, C]
    time_column: str | None = None  # of a CSV or Parquet file; its first column when None
    graph_file: str | None = None  # edge list .csv or adjacency .npy, .npz, .pkl
    ids_file: str | None = None  # sensor ids in column order, one a line, where an edge list uses ids
    day_of_week: Literal["calendar", "row"] = "calendar"  # "row" counts days from row 0, as BasicTS's scripts do
    simulated: bool = False  # made by data.simulation; tables and figures say so
    allow_gaps: bool = False  # rows may be left out of a file with times, which then set the timestamps
    raw_source: Source = Source()
    graph_source: Source = Source()
    ids_source: Source = Source()

    @field_validator("interval_minutes")
    @classmethod
    def _divides_a_day(cls, minutes: int) -> int:
        if MINUTES_PER_DAY % minutes:
            raise ValueError(f"{minutes} does not divide a day of {MINUTES_PER_DAY} minutes")
        return minutes

    @field_validator("start")
    @classmethod
    def _calendar_time(cls, start: datetime) -> datetime:
        if start.tzinfo is not None:
            raise ValueError(f"{start.isoformat()} has a time zone; give the local time without one")
        return start

    @field_validator("null_value")
    @classmethod
    def _finite_or_nan(cls, null_value: float) -> float:
        if math.isinf(null_value):
            raise ValueError("an infinite value cannot mark a missing reading; use a finite one or NaN")
        return null_value

    @field_validator("split")
    @classmethod
    def _shares_of_one(cls, split: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(split) <= 0 or abs(sum(split) - 1) > 1e-9:
            raise ValueError(f"{split} are not three positive shares that sum to 1")
        return split

    @property
    def steps_per_day(self) -> int:
        """Number of readings a day, the size of a time-of-day table."""
        return MINUTES_PER_DAY // self.interval_minutes
