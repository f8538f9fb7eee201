"""Checksums of files, and whether a file is the one that was published."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ealinformer.data.spec import Source

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Digest:
    """Size in bytes and checksums of one file."""

    size: int
    sha256: str
    md5: str


def digest(path: Path) -> Digest:
    """Read `path` once and give its size and both checksums."""
    # MD5 recognises files here (some are published with nothing else), it protects nothing.
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return Digest(size, sha256.hexdigest(), md5.hexdigest())


def difference(found: Digest, source: Source) -> str | None:
    """What of size, sha256 and md5 is not as published, as "sha256 is ..., expected ..."; None when all agree."""
    for what in ("size", "sha256", "md5"):
        expected = getattr(source, what)
        if expected is not None and getattr(found, what) != expected:
            return f"{what} is {getattr(found, what)}, expected {expected}"
    return None


def has_checksum(source: Source) -> bool:
    """Whether a file can be recognised as the published one at all."""
    return source.sha256 is not None or source.md5 is not None
