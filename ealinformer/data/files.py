"""Opening raw files so that whatever is wrong with one of them becomes a single `InputError` line."""

import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from ealinformer.errors import InputError

_MAX_REASON = 200  # characters of a decoder's own message
_MAX_SHOWN = 80  # characters of a value in a message
# Of a file's size, what it may unpack to. Readings pack ten- to twentyfold, zeros a thousandfold, and a small file of
# zeros would take all memory; small contents may be anything.
_MAX_RATIO, _ALWAYS_ALLOWED = 100, 128 * 1024**2


@contextmanager
def decoding(path: Path, expected: str) -> Iterator[None]:
    """Turn what a decoder raises inside the block into an `InputError` that names `path` and `expected`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # A damaged file makes decoders fail in ways of their own: zlib.error, struct.error, EOFError, KeyError ...
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_REASON]
        reason = "".join(letter if letter.isprintable() else "?" for letter in reason)  # it may quote the file
        raise InputError(f"{path}: cannot be read ({reason}); expected {expected}") from error


def shown(value: object) -> str:
    """`repr(value)` for a message: at most a line of it."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def bare(name: str) -> str:
    """`name` for a message, without quotes where it is short and printable."""
    return name if name.isprintable() and len(name) <= _MAX_SHOWN else shown(name)


def first_repeated(names: Sequence[str]) -> str | None:
    """The first of `names` that stood there before, or None."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def check_unpacked(path: Path, unpacked: int, expected: str, *, wanted: int = 0) -> None:
    """Raise InputError where `path` would unpack to far more bytes than a file of its size can mean.

    `wanted` bytes, which the caller reckons with anyway, are always allowed.
    """
    size = path.stat().st_size
    if unpacked > max(_MAX_RATIO * size, _ALWAYS_ALLOWED, wanted):
        raise InputError(f"{path}: would unpack to {unpacked:,} bytes from {size:,}; expected {expected}")


def require_file(path: Path, expected: str) -> int:
    """Size of `path` in bytes. Raises InputError when it is missing, not a regular file, or empty."""
    try:
        exists, is_file = path.exists(), path.is_file()
        size = path.stat().st_size if is_file else 0
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); expected {expected}") from error
    if not exists:
        raise InputError(f"{path}: no such file; expected {expected}")
    if not is_file:
        raise InputError(f"{path}: is not a file; expected {expected}")
    if size == 0:
        raise InputError(f"{path}: the file is empty; expected {expected}")
    return size


def read_text(path: Path, expected: str) -> str:
    """Content of a UTF-8 text file, line ends as they are. Raises InputError for a missing, empty or binary file."""
    require_file(path, expected)
    with decoding(path, expected):
        text = path.read_bytes().decode("utf-8-sig")
        if "\0" in text:
            raise InputError(f"{path}: holds NUL bytes; expected {expected}")
        return text


def read_npy(path: Path) -> np.ndarray:
    """The array of a `.npy` file. Raises InputError for a damaged file and for an object array."""
    expected = "a .npy file with a numeric array"
    require_file(path, expected)
    size = require_file(path, expected)
    with decoding(path, expected), path.open("rb") as file:
        check_promise(path, file, size, expected)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def npz_keys(path: Path, *, wanted: int = 0) -> list[str]:
    """Names of the arrays in a `.npz` archive, none of which takes more memory than such a file can mean.

    `wanted` bytes are always allowed. Raises InputError for a damaged or empty archive.
    """
    expected = "an .npz archive of numeric arrays"
    require_file(path, expected)
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: is no zip archive, or a truncated one; expected {expected}")
    with decoding(path, expected), np.load(path, allow_pickle=False) as archive:
        members = archive.zip.infolist()
        check_unpacked(path, sum(member.file_size for member in members), expected, wanted=wanted)
        for member in members:
            # Other methods unpack without bound, or into as much memory as the file tells them to take.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(f"{path}: {shown(member.filename)} is packed as numpy packs none; expected {expected}")
            with archive.zip.open(member) as file:
                is_array = file.read(6) == np.lib.format.MAGIC_PREFIX
            if is_array:
                with archive.zip.open(member) as file:
                    check_promise(path, file, member.file_size, expected)
        keys = list(archive.files)
    if not keys:
        raise InputError(f"{path}: the archive holds no array; expected {expected}")
    return keys


def read_npz(path: Path, key: str) -> np.ndarray:
    """The array `key` of a `.npz` archive. Raises InputError for a damaged member and for an object array."""
    expected = f"a numeric array under {shown(key)}"
    with decoding(path, expected), np.load(path, allow_pickle=False) as archive:
        array = archive[key]
    if not isinstance(array, np.ndarray):  # numpy hands out a member that is no .npy file as bytes
        raise InputError(f"{path}: {shown(key)} is not an array; expected {expected}")
    return array


def main_array(path: Path, *, wanted: int = 0) -> np.ndarray:
    """The array `data` of a `.npz` archive, else its only array. Raises InputError when neither exists."""
    keys = npz_keys(path, wanted=wanted)
    if "data" not in keys and len(keys) > 1:
        names = ", ".join(map(shown, keys[:8]))
        raise InputError(f"{path}: holds {len(keys)} arrays ({names}); expected one called 'data' or a single array")
    return read_npz(path, "data" if "data" in keys else keys[0])


def check_promise(path: Path, file: IO[bytes], size: int, expected: str) -> None:
    """Raise InputError where the header of a `.npy` of `size` bytes promises more: numpy takes memory on its word."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise InputError(f"{path}: is in version {version} of numpy's format; expected {expected}")
    begin, width = file.tell(), 2 if version == (1, 0) else 4
    length = int.from_bytes(file.read(width), "little")
    if length > size:
        raise InputError(
            f"{path}: the header says {length:,} bytes of itself, the file has {size:,}; expected {expected}"
        )
    file.seek(begin)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    promised = math.prod(shape) * dtype.itemsize
    left = size - file.tell()
    # An array of objects is a pickle, of which the header says nothing; numpy refuses it.
    if not dtype.hasobject and (min(shape, default=0) < 0 or promised > left):
        found = f"the header says {shown(shape)} of {shown(str(dtype))}, {left:,} bytes follow"
        raise InputError(f"{path}: {found}; expected {expected}")
