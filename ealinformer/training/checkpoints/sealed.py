"""Files of plain values and tensors that carry the checksum of their own content.

A sealed file is what `torch.save` writes, a zip archive, with the SHA-256 of all bytes before it as the archive's
comment. Plain `torch.load(path, weights_only=True)` reads it too, but notices no altered byte. A checksum only tells
accidents: whoever means harm computes it anew, so the content is checked before torch sees it (`tensor_pickle`).
"""

import hashlib
import io
import os
import pickle
import struct
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ealinformer.errors import InputError
from ealinformer.files import replaced_whole
from ealinformer.training.checkpoints.tensor_pickle import MAX_DEPTH, MAX_INT_BITS, check_pickle, is_key

_MARK = b"ealinformer sha256:"
_COMMENT_LENGTH = len(_MARK) + hashlib.sha256().digest_size * 2
_END_LENGTH, _END = 22, b"PK\x05\x06"  # of the record that closes an archive; its last field is the comment's length
_ROOT = "archive/"  # what torch names the archive that it writes to memory
_PICKLE, _STORAGE = f"{_ROOT}data.pkl", f"{_ROOT}data/"
_READ_BY_TORCH = (_PICKLE, f"{_ROOT}byteorder", f"{_ROOT}version")


def write_sealed(path: Path, content: Mapping[str, Any]) -> str:
    """Write a sealed file whole and return its checksum.

    Raises:
        InputError: the folder cannot be written to, or the disk is full; an older file stays.
        TypeError: as in `seal`.
    """
    with replaced_whole(path) as temporary:
        data = seal(content)
        temporary.write_bytes(data)
    return _stated(data)


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a sealed file, its tensors on the CPU; InputError as in `read_whole` and `unseal`."""
    return unseal(read_whole(path), path)


def seal(content: Mapping[str, Any]) -> bytes:
    """The bytes of a sealed file.

    Containers become plain dict, list and tuple (a Counter stays one), tensors are copied to the CPU.

    Raises:
        TypeError: names what is no plain value and no dense tensor.
    """
    # Through memory, because torch's own writer makes a RuntimeError of a full disk.
    buffer = io.BytesIO()
    torch.save(_plain(content, "content", MAX_DEPTH), buffer)
    buffer.seek(-2, os.SEEK_END)
    buffer.write(struct.pack("<H", _COMMENT_LENGTH))
    with buffer.getbuffer() as written:
        digest = hashlib.sha256(written).hexdigest()
    buffer.write(_MARK + digest.encode())
    return buffer.getvalue()


def unseal(data: bytes, path: Path) -> dict[str, Any]:
    """What was sealed, its tensors on the CPU. No code of the file is run; `path` is for messages.

    Raises:
        InputError: the checksum is missing or differs, or there is more in it than plain values and tensors.
    """
    check_seal(data, path)
    try:
        archive = _checked(data)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} is refused: {error}") from error
    except Exception as error:  # of a forged file, zipfile and pickletools raise errors of every kind
        raise InputError(f"{path} is refused: it is no archive of torch ({_one_line(error)})") from error
    try:
        content: dict[str, Any] = torch.load(archive, map_location="cpu", weights_only=True)
    except Exception as error:  # torch too
        raise InputError(f"{path} is refused: torch cannot read it ({_one_line(error)})") from error
    return content


def read_whole(path: Path) -> bytes:
    """The bytes of a sealed file that agree with its checksum.

    Raises:
        InputError: it is not there, cannot be read, was truncated or altered, or is another kind of file.
    """
    if not path.is_file():
        hint = ": it is a folder, name the best.pt or last.pt in it" if path.is_dir() else ""
        raise InputError(f"checkpoint {path} is not there{hint}")
    try:
        with path.open("rb") as file:
            # The end first: a large file of another kind need not be read.
            file.seek(max(0, path.stat().st_size - _END_LENGTH - _COMMENT_LENGTH))
            _check_end(file.read(), path)
            file.seek(0)
            data = file.read()
    except OSError as error:
        raise InputError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    check_seal(data, path)
    return data


def check_seal(data: bytes, path: Path) -> None:
    """Compare the bytes of a sealed file with the checksum at their end; InputError where they differ."""
    _check_end(data, path)
    with memoryview(data) as view:
        found = hashlib.sha256(view[:-_COMMENT_LENGTH]).hexdigest()
    if found != _stated(data):
        raise InputError(f"{path} is damaged: its content does not agree with the checksum at its end")


def _check_end(data: bytes, path: Path) -> None:
    end = data[-_COMMENT_LENGTH - _END_LENGTH :]
    if not end.startswith(_END) or end[_END_LENGTH:][: len(_MARK)] != _MARK:
        raise InputError(f"{path} has no checksum at its end: it is damaged or another kind of file")


def _stated(data: bytes) -> str:
    return data[-_COMMENT_LENGTH + len(_MARK) :].decode("latin1")


def _checked(data: bytes) -> io.BytesIO:
    """An archive of the entries that torch needs, checked.

    It is written anew, because another reader of archives can be made to find other entries in the same bytes.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if any(one.compress_type != zipfile.ZIP_STORED or one.compress_size != one.file_size for one in entries):
            raise pickle.UnpicklingError("it has compressed entries, which torch.save does not write")
        if sum(one.file_size for one in entries) > len(data):
            raise pickle.UnpicklingError("its entries claim more bytes than the file has")
        if len({one.filename for one in entries}) < len(entries):
            raise pickle.UnpicklingError("it has two entries of one name")
        needed = [one for one in entries if one.filename in _READ_BY_TORCH or one.filename.startswith(_STORAGE)]
        content = {one.filename: archive.read(one) for one in needed}
    if _PICKLE not in content:
        raise pickle.UnpicklingError(f"it has no {_PICKLE}")
    storages = {name.removeprefix(_STORAGE): len(raw) for name, raw in content.items() if name.startswith(_STORAGE)}
    check_pickle(content[_PICKLE], storages)
    checked = io.BytesIO()
    with zipfile.ZipFile(checked, "w") as archive:
        for name, raw in content.items():
            archive.writestr(name, raw)
    checked.seek(0)
    return checked


def _plain(value: Any, where: str, depth: int) -> Any:
    """A copy that torch reads back with `weights_only`, in which no container stands twice."""
    if depth == 0:
        raise TypeError(f"{where} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, Tensor):
        return _dense(value, where)
    if value is None or isinstance(value, bool):
        return value
    # Numbers of numpy, and names of an enumeration, are float, int and str of a kind that torch does not read.
    if isinstance(value, int) and int(value).bit_length() <= MAX_INT_BITS:
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping) and all(is_key(key) for key in value):
        items = {key: _plain(one, f"{where}.{key}", depth - 1) for key, one in value.items()}
        return Counter(items) if isinstance(value, Counter) else items  # the milestones of a learning rate schedule
    if isinstance(value, list | tuple):
        kind = tuple if isinstance(value, tuple) else list
        return kind(_plain(one, f"{where}.{index}", depth - 1) for index, one in enumerate(value))
    expected = "plain values with names as keys, and dense tensors"
    raise TypeError(f"{where} is a {type(value).__name__} that cannot be sealed, expected {expected}")


def _dense(tensor: Tensor, where: str) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise TypeError(f"{where} is a tensor without plain storage, expected a dense one")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    # Of a view, torch would write the whole storage behind it.
    return (
        plain
        if plain.untyped_storage().nbytes() == plain.nbytes
        else plain.clone(memory_format=torch.contiguous_format)
    )


def _one_line(error: Exception) -> str:
    said = " ".join(str(error).split())[:100]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
