"""`meta.json`, what a prepared folder says about itself."""

import json
import math
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from ealinformer.data.files import bare, shown
from ealinformer.data.spec import SeriesSpec
from ealinformer.errors import InputError

META_FILE = "meta.json"
# Raised whenever files of an older version must not be taken for current ones.
FORMAT_VERSION = 1

Split: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[Split, Split, Split] = ("train", "val", "test")
GRAPH_FILE = "graph.npz"
IDS_FILE = "sensor_ids.txt"
PREPARED_FILES = frozenset(
    (META_FILE, GRAPH_FILE, IDS_FILE, *(f"{split}_{what}.npy" for split in SPLITS for what in ("data", "timestamps")))
)
# JSON has no NaN, so NaN is written as a string.
NullValue: TypeAlias = Literal["nan"] | float


class Statistics(TypedDict):
    """Of all readings but NaN; `train_mean` and `train_std` are what BasicTS's z-score scaler fits."""

    min: float
    max: float
    mean: float
    std: float
    zeros: int
    missing: int  # readings equal to the null value
    distinct_sensors: int  # columns that are no copy of another one
    train_mean: float
    train_std: float


class SourceMeta(TypedDict):
    """The raw file the series was read from."""

    file: str
    sha256: str
    size: int
    is_published_file: bool


class GraphMeta(TypedDict):
    """The raw file the road graph was read from, and what it held."""

    file: str
    sha256: str
    edges: int
    weights: Literal["distance", "affinity", "binary"]


class IdsMeta(TypedDict):
    """The raw file the sensor ids were read from."""

    file: str
    sha256: str


class FileMeta(TypedDict):
    """One file of the prepared folder."""

    sha256: str
    size: int


class RegularSettings(TypedDict):
    """The settings of BasicTS that its own scripts call regular."""

    null_val: NullValue
    train_val_test_ratio: tuple[float, float, float]
    rescale: bool
    norm_each_channel: bool


class Meta(TypedDict):
    """All of `meta.json`: first the spec (see `SeriesSpec`), then what was found and written."""

    __pydantic_config__ = ConfigDict(extra="ignore")  # type: ignore[misc]

    format: int
    name: str
    target: str
    unit: str
    num_sensors: int
    num_steps: int
    interval_minutes: int
    start: str
    day_of_week: Literal["calendar", "row"]
    allow_gaps: bool
    simulated: bool
    split: tuple[float, float, float]
    null_value: NullValue
    raw_file: str
    channel: int
    time_column: str | None
    graph_file: str | None
    ids_file: str | None
    steps: dict[Split, int]
    statistics: Statistics
    source: SourceMeta
    graph: GraphMeta | None
    ids: IdsMeta | None
    files: dict[str, FileMeta]
    regular_settings: RegularSettings


_META = TypeAdapter(Meta)
_ADDRESSES = {"raw_source", "graph_source", "ids_source"}


def json_number(value: float) -> NullValue:
    """`value`, with NaN as the string "nan"."""
    return "nan" if math.isnan(value) else value


def spec_fields(spec: SeriesSpec) -> dict[str, Any]:
    """The spec as JSON values, without the addresses of its files, which change nothing in what is prepared."""
    fields = spec.model_dump(mode="json", exclude=_ADDRESSES)
    return {**fields, "null_value": json_number(spec.null_value)}


def changed_fields(meta: Meta, spec: SeriesSpec) -> list[str]:
    """What `spec` wants otherwise than `meta` was made with, as "split [0.6, 0.2, 0.2] -> [0.7, 0.1, 0.2]"."""
    before: dict[str, Any] = json.loads(json.dumps(meta))
    return [
        f"{field} {before[field]} -> {wanted}"
        for field, wanted in spec_fields(spec).items()
        if wanted != before[field] and not (field == "num_steps" and wanted is None)
    ]


def write_meta(meta: Meta, directory: Path) -> None:
    """Write `meta.json` into `directory`."""
    (directory / META_FILE).write_text(json.dumps(meta, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def is_prepared(directory: Path) -> bool:
    """Whether `directory` holds a `meta.json`, whatever is in it."""
    return (directory / META_FILE).is_file()


def read_meta(directory: Path) -> Meta:
    """Read `meta.json` of a prepared folder; InputError when it is not there or not ours."""
    path = directory / META_FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {_one_line(error)}") from error
    found = fields.get("format") if isinstance(fields, dict) else None
    if found != FORMAT_VERSION:
        raise InputError(f"{path} has format {shown(found)}, expected {FORMAT_VERSION}: prepare the series again")
    try:
        return _META.validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = bare(".".join(str(key) for key in first["loc"]))
        raise InputError(f"{path} is damaged: {where}: {first['msg']}") from error


def _one_line(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).replace("\n", " ")
