"""Find the raw files of a series at hand, or fetch them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from ealinformer.data.checksums import Digest, difference, digest, has_checksum
from ealinformer.data.download import download
from ealinformer.data.sources import PUBLIC
from ealinformer.data.spec import SeriesSpec, Source
from ealinformer.errors import InputError

Report = Callable[[str], None]


@dataclass(frozen=True)
class RawFile:
    """A raw file at hand and what is published about it."""

    path: Path
    source: Source

    @cached_property
    def digest(self) -> Digest:
        """Size and checksums, read once."""
        try:
            return digest(self.path)
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror or error}") from error

    @property
    def is_published(self) -> bool:
        """Whether it is, byte for byte, the file that was published."""
        return has_checksum(self.source) and difference(self.digest, self.source) is None

    def warn_if_altered(self, report: Report) -> None:
        """One line when a checksum is published and this file has another one."""
        wrong = difference(self.digest, self.source) if has_checksum(self.source) else None
        if wrong:
            report(f"{self.path} is not the published file, it is used as it is: its {wrong}")


@dataclass(frozen=True)
class RawFiles:
    """The files of one series; None for what the spec does not name or what is not at hand."""

    series: RawFile | None
    graph: RawFile | None
    ids: RawFile | None


def at_hand(spec: SeriesSpec, raw_dir: Path) -> RawFiles:
    """The raw files that are there already."""
    return RawFiles(
        _find(spec, spec.raw_file, spec.raw_source, raw_dir),
        _find(spec, spec.graph_file, spec.graph_source, raw_dir),
        _find(spec, spec.ids_file, spec.ids_source, raw_dir),
    )


def required(spec: SeriesSpec, raw_dir: Path, *, allow_download: bool, report: Report) -> RawFiles:
    """All raw files that the spec names, fetched where they are missing and that is allowed.

    A public series does without its graph when that is not at hand and says so; InputError for all else that is
    missing.
    """

    def get(name: str, source: Source) -> RawFile:
        return _find(spec, name, source, raw_dir) or _fetch(spec, name, source, raw_dir, allow_download, report)

    series = get(spec.raw_file, spec.raw_source)
    try:
        ids = get(spec.ids_file, spec.ids_source) if spec.ids_file else None
        graph = get(spec.graph_file, spec.graph_source) if spec.graph_file else None
    except InputError as error:
        if not _graph_is_optional(spec):
            raise
        report(f"{spec.name} goes on without a graph: {error}")
        return RawFiles(series, None, None)
    return RawFiles(series, graph, ids)


def _graph_is_optional(spec: SeriesSpec) -> bool:
    """Models that need no graph can use a public series alone; a graph that the user named himself is meant."""
    public = PUBLIC.get(spec.name)
    return public is not None and (spec.graph_file, spec.ids_file) == (public.graph_file, public.ids_file)


def _find(spec: SeriesSpec, name: str | None, source: Source, raw_dir: Path) -> RawFile | None:
    """`name`, or the name it is published under (PEMS-BAY's graph has two), in the series' folder or in `raw_dir`."""
    if name is None:
        return None
    for folder in (raw_dir / spec.name, raw_dir):
        for file in _names(name, source):
            if (folder / file).is_file():
                return RawFile(folder / file, source)
    return None


def _fetch(spec: SeriesSpec, name: str, source: Source, raw_dir: Path, allow_download: bool, report: Report) -> RawFile:
    target = raw_dir / spec.name / name
    if not allow_download:
        by_hand = f"put {' or '.join(_names(name, source))} into {target.parent}/"
        way = f"pass --download or {by_hand} (published at {source.url})" if source.url else by_hand
        raise InputError(f"{target} is not there: {way}")
    if source.url:
        report(f"downloading {source.url} to {target}")
    download(source, target)
    return RawFile(target, source)


def _names(name: str, source: Source) -> list[str]:
    published = Path(urlsplit(source.url or "").path).name
    return [name] if published in ("", name) else [name, published]
