"""From a raw file to the folder that BasicTS and this package read: read, check, split, write, describe."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from ealinformer.data.checksums import digest
from ealinformer.data.folder import replaced_folder
from ealinformer.data.graphs import Graph, read_graph, read_ids, save_graph
from ealinformer.data.meta import (
    FORMAT_VERSION,
    GRAPH_FILE,
    IDS_FILE,
    META_FILE,
    PREPARED_FILES,
    SPLITS,
    GraphMeta,
    Meta,
    Split,
    changed_fields,
    is_prepared,
    json_number,
    read_meta,
    spec_fields,
    write_meta,
)
from ealinformer.data.raw_files import RawFile, RawFiles, at_hand, required
from ealinformer.data.readers import RawSeries, read_series
from ealinformer.data.spec import SeriesSpec
from ealinformer.data.statistics import describe
from ealinformer.data.timestamps import calendar_features, calendar_features_at
from ealinformer.data.validate import check_ids, check_shape, check_times, check_values, check_windows, split_steps
from ealinformer.errors import InputError

DEFAULT_MIN_WINDOW = 24  # 12 steps in, 12 out


@dataclass(frozen=True)
class _Checked:
    """A series that passed every check, ready to be written."""

    values: np.ndarray  # float32 [T, N]
    timestamps: np.ndarray  # float32 [T, 2]
    steps: dict[Split, int]
    sensor_ids: list[str] | None
    graph: Graph | None


def prepare(
    spec: SeriesSpec,
    raw_dir: Path,
    datasets_dir: Path,
    *,
    allow_download: bool = False,
    force: bool = False,
    min_window: int = DEFAULT_MIN_WINDOW,
    report: Callable[[str], None] = print,
) -> Path:
    """Prepare a series as `<datasets_dir>/<name>/`, which is given back; `datasets/README.md` lists what is in there.

    Raw files are looked up in `<raw_dir>/<name>/` and `<raw_dir>/`, or fetched into the former. What was prepared from
    the same spec and the same raw files is left as it is unless `force`. Raises InputError when a raw file is missing
    or is not what the spec says, a split is shorter than `min_window` steps, or the folder cannot be written; what was
    there before then stays.
    """
    target = datasets_dir / spec.name
    _refuse_foreign_files(target, force)
    if is_prepared(target) and not force:
        reasons = _reasons_to_prepare(target, spec, at_hand(spec, raw_dir), allow_download)
        if not reasons:
            report(f"{target} is up to date: nothing to do")
            return target
        report(f"{target} is prepared anew: {'; '.join(reasons)}")
    raw = required(spec, raw_dir, allow_download=allow_download, report=report)
    assert raw.series is not None
    for file in (raw.series, raw.graph, raw.ids):
        if file is not None:
            file.warn_if_altered(report)
    checked = _read_and_check(spec, raw, raw.series, min_window, report)
    try:
        # A link to a larger disk stays a link.
        with replaced_folder(target.resolve()) as folder:
            _write(checked, folder)
            write_meta(_meta(spec, raw, raw.series, checked, folder), folder)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def _refuse_foreign_files(target: Path, force: bool) -> None:
    """The folder is replaced as a whole, so nothing may lie in it that is not from here."""
    if not target.is_dir():
        if target.exists():
            raise InputError(f"{target} is a file, expected a folder or nothing")
        return
    ours = PREPARED_FILES if force or _is_ours(target) else frozenset()
    foreign = sorted(path.name for path in target.iterdir() if path.name not in ours)
    if foreign:
        way = "move it away" if set(foreign) - PREPARED_FILES else "move it away or pass --force to replace it"
        raise InputError(f"{target} holds {foreign[0]}, which was not written by this program: {way}")


def _is_ours(target: Path) -> bool:
    """BasicTS's own scripts write a meta.json too, without a format."""
    try:
        return "format" in json.loads((target / META_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _reasons_to_prepare(target: Path, spec: SeriesSpec, raw: RawFiles, allow_download: bool) -> list[str]:
    """Why the folder at `target` is not what `prepare` would write; empty when it is."""
    try:
        meta = read_meta(target)
    except InputError as error:
        return [str(error)]
    reasons = changed_fields(meta, spec)
    found = {"source": raw.series, "graph": raw.graph, "ids": raw.ids}
    for what, file in found.items():
        before = meta[what]  # type: ignore[literal-required]
        # A raw file that is gone, after its series was prepared, is no reason to prepare again.
        if file is not None and (before is None or before["sha256"] != file.digest.sha256):
            reasons.append(f"{file.path} is {'new' if before is None else 'another file than before'}")
    if meta["graph"] is None and raw.graph is None and allow_download and spec.graph_source.url:
        reasons.append("its graph was not at hand before")
    for name, written in meta["files"].items():
        path = target / name
        size = path.stat().st_size if path.is_file() else None
        if size != written["size"]:
            reasons.append(f"{name} is missing" if size is None else f"{name} has {size} bytes, not {written['size']}")
    return reasons


def _read_and_check(
    spec: SeriesSpec, raw: RawFiles, source: RawFile, min_window: int, report: Callable[[str], None]
) -> _Checked:
    series = read_series(source.path, channel=spec.channel, time_column=spec.time_column)
    times, file_ids = series.times, series.sensor_ids
    values = _as_float32(series)
    del series  # of a float64 file this is twice as large as what is kept
    check_shape(values, spec, source.path)
    steps = split_steps(len(values), spec.split)
    check_windows(steps, min_window, source.path)
    check_values(values, spec, steps["train"], source.path)
    if times is None:
        timestamps = calendar_features(spec.start, spec.interval_minutes, len(values), spec.day_of_week)
    else:
        left_out = check_times(times, spec, source.path)
        if left_out:
            report(f"{source.path} leaves out {left_out} steps; timestamps follow the times of the file")
        timestamps = calendar_features_at(times, spec.interval_minutes, spec.day_of_week)
    listed = read_ids(raw.ids.path) if raw.ids else None
    sensor_ids = check_ids(listed, file_ids, spec.num_sensors, raw.ids.path if raw.ids else source.path)
    graph = read_graph(raw.graph.path, spec.num_sensors, ids=sensor_ids) if raw.graph else None
    return _Checked(values, timestamps, steps, sensor_ids, graph)


def _as_float32(series: RawSeries) -> np.ndarray:
    # Beyond float32 a value turns infinite, which check_values then refuses with its place.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(series.values, dtype=np.float32)


def _write(checked: _Checked, folder: Path) -> None:
    first = 0
    for split in SPLITS:
        rows = slice(first, first + checked.steps[split])
        np.save(folder / f"{split}_data.npy", checked.values[rows])
        np.save(folder / f"{split}_timestamps.npy", checked.timestamps[rows])
        first = rows.stop
    if checked.graph is not None:
        save_graph(checked.graph, folder / GRAPH_FILE)
    if checked.sensor_ids is not None:
        (folder / IDS_FILE).write_text("\n".join(checked.sensor_ids) + "\n", encoding="utf-8")


def _meta(spec: SeriesSpec, raw: RawFiles, source: RawFile, checked: _Checked, folder: Path) -> Meta:
    graph: GraphMeta | None = None
    if raw.graph and checked.graph:
        graph = {
            "file": raw.graph.path.name,
            "sha256": raw.graph.digest.sha256,
            "edges": checked.graph.num_edges,
            "weights": checked.graph.weights,
        }
    written = {path.name: digest(path) for path in sorted(folder.iterdir())}
    found = {
        "num_steps": len(checked.values),
        "steps": checked.steps,
        "statistics": describe(checked.values, checked.steps["train"], spec.null_value),
        "source": {
            "file": source.path.name,
            "sha256": source.digest.sha256,
            "size": source.digest.size,
            "is_published_file": source.is_published,
        },
        "graph": graph,
        "ids": {"file": raw.ids.path.name, "sha256": raw.ids.digest.sha256} if raw.ids else None,
        "files": {name: {"sha256": file.sha256, "size": file.size} for name, file in written.items()},
        "regular_settings": {
            "null_val": json_number(spec.null_value),
            "train_val_test_ratio": spec.split,
            "rescale": True,
            "norm_each_channel": False,
        },
    }
    return cast(Meta, {"format": FORMAT_VERSION, **spec_fields(spec), **found})
