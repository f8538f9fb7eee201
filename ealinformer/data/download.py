"""Fetch a published file: resumable, verified, and in place only when it is whole."""

import http.client
import os
import re
import ssl
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from ealinformer import __version__
from ealinformer.data.checksums import difference, digest
from ealinformer.data.spec import Source
from ealinformer.errors import InputError

TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 18
# Attempts in a row that bring no new byte before giving up.
MAX_IDLE_ATTEMPTS = 3
PAUSE_SECONDS = 1.0

_NETWORK_ERRORS = (URLError, TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException)


class _CutOffError(Exception):
    """The connection ended before the file did."""


def download(source: Source, target: Path) -> None:
    """Fetch `source.url` into `target`, by way of `<target>.part`, which a later call goes on with.

    Raises InputError, which names the address, when there is none, it cannot be reached, or what arrives is not the
    published file; `target` is then untouched, and a part with wrong bytes is gone.
    """
    if source.url is None:
        raise InputError(f"{target.name} has no published address: {_by_hand(target)}")
    if urlsplit(source.url).scheme not in ("http", "https"):
        raise InputError(f"{source.url} is not an http or https address: {_by_hand(target)}")
    part = target.with_name(target.name + ".part")
    try:
        _fetch_all(source, part, target)
        _verify(source, part)
        os.replace(part, target)
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}") from error


def _fetch_all(source: Source, part: Path, target: Path) -> None:
    """Fill `part`, with new attempts as long as the connection is cut off but bytes keep coming."""
    idle = 0
    while True:
        before = _size(part)
        try:
            _fetch(source, part)
            return
        except HTTPError as error:
            raise InputError(
                f"{source.url} answers {error.code} {error.reason}: fetch it elsewhere and {_by_hand(target)}"
            ) from error
        except (_CutOffError, *_NETWORK_ERRORS) as error:
            idle = 0 if _size(part) > before else idle + 1
            if idle == MAX_IDLE_ATTEMPTS or _is_offline(error):
                kept = f" ({_size(part):,} bytes are kept, run it again to go on)" if _size(part) else ""
                raise InputError(
                    f"{source.url} cannot be fetched, {_reason(error)}{kept}: try again or {_by_hand(target)}"
                ) from error
            time.sleep(PAUSE_SECONDS * idle)


def _fetch(source: Source, part: Path) -> None:
    """One request: append to `part` what it lacks, or write it anew where the server ignores Range."""
    have = _size(part)
    if source.size is not None and have >= source.size:
        return
    assert source.url is not None
    headers = {"User-Agent": f"ealinformer/{__version__}", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        response = urlopen(Request(source.url, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if _total(error.headers.get("Content-Range")) == have:
                return
            part.unlink()
            raise _CutOffError("its size has changed since the first part") from error
        raise
    with response:
        begins, total = _extent(response)
        if begins not in (0, have):
            raise _CutOffError(f"the server sent bytes from {begins} on, asked for {have}")
        _copy(response, part, begins, total, source.size)


def _extent(response: Any) -> tuple[int, int | None]:
    """Where the body begins in the file and how large the whole file is, None when the server does not say."""
    if response.status == http.client.PARTIAL_CONTENT:
        content_range = response.headers.get("Content-Range", "")
        found = re.match(r"bytes (\d+)-", content_range)
        if not found:
            raise _CutOffError(f"the server answers 206 with Content-Range {content_range!r}")
        return int(found[1]), _total(content_range)
    length = response.headers.get("Content-Length")
    return 0, int(length) if length else None


def _total(content_range: str | None) -> int | None:
    """The size after the slash of a Content-Range header."""
    found = re.search(r"/(\d+)$", content_range or "")
    return int(found[1]) if found else None


def _copy(response: Any, part: Path, begins: int, total: int | None, limit: int | None) -> None:
    """Write the body to `part` from byte `begins` on; a body that ends before `total` raises `_CutOffError`."""
    part.parent.mkdir(parents=True, exist_ok=True)
    with (
        part.open("ab" if begins else "wb") as file,
        tqdm(
            desc=part.stem,
            total=total,
            initial=begins,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            disable=not sys.stderr.isatty(),
        ) as bar,
    ):
        have = begins
        # read1 hands over what has arrived, so that a cut costs no bytes. A body beyond the published size is the wrong
        # file: stop there and let the verification say so.
        while limit is None or have <= limit:
            chunk = response.read1(CHUNK_BYTES)
            if not chunk:
                break
            file.write(chunk)
            have += len(chunk)
            bar.update(len(chunk))
    if total is not None and have < total:
        raise _CutOffError(f"the connection ended after {have:,} of {total:,} bytes")


def _verify(source: Source, part: Path) -> None:
    wrong = difference(digest(part), source)
    if wrong:
        part.unlink()
        raise InputError(f"{source.url} is not the published file and was deleted: {wrong}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_offline(error: Exception) -> bool:
    """Names that do not resolve and refused connections will not come back within seconds."""
    reason = getattr(error, "reason", error)
    return isinstance(reason, OSError) and not isinstance(reason, TimeoutError | ConnectionResetError | BrokenPipeError)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason).replace("\n", " ") or type(reason).__name__


def _by_hand(target: Path) -> str:
    return f"put {target.name} into {target.parent}/ by hand"
