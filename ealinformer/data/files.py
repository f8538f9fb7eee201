"""Opening raw files so that whatever is wrong with one of them becomes a single `InputError` line."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ealinformer.errors import InputError

_MAX_REASON = 200  # characters of a decoder's own message


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
        raise InputError(f"{path}: cannot be read ({reason}); expected {expected}") from error


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
    with decoding(path, expected), path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def npz_keys(path: Path) -> list[str]:
    """Names of the arrays in a `.npz` archive. Raises InputError for a damaged or empty archive."""
    expected = "an .npz archive of numeric arrays"
    require_file(path, expected)
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: is no zip archive, or a truncated one; expected {expected}")
    with decoding(path, expected), np.load(path, allow_pickle=False) as archive:
        keys = list(archive.files)
    if not keys:
        raise InputError(f"{path}: the archive holds no array; expected {expected}")
    return keys


def read_npz(path: Path, key: str) -> np.ndarray:
    """The array `key` of a `.npz` archive. Raises InputError for a damaged member and for an object array."""
    expected = f"a numeric array under {key!r}"
    with decoding(path, expected), np.load(path, allow_pickle=False) as archive:
        array = archive[key]
    if not isinstance(array, np.ndarray):  # numpy hands out a member that is no .npy file as bytes
        raise InputError(f"{path}: {key!r} is not an array; expected {expected}")
    return array


def main_array(path: Path) -> np.ndarray:
    """The array `data` of a `.npz` archive, else its only array. Raises InputError when neither exists."""
    keys = npz_keys(path)
    if "data" not in keys and len(keys) > 1:
        names = ", ".join(map(repr, keys[:8]))
        raise InputError(f"{path}: holds {len(keys)} arrays ({names}); expected one called 'data' or a single array")
    return read_npz(path, "data" if "data" in keys else keys[0])
