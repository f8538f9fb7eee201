"""Seeded damage to the bytes of a file: blind, and with an eye for text, JSON and the headers of arrays."""

import ast
import contextlib
import io
import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

MAX_SIZE = 2**20 - 1  # bytes: what is promised is promised of files under 1 MiB
Mutation = Callable[[random.Random, bytes], bytes]

INTEGERS = (
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    256,
    32767,
    65535,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**64 - 1,
)
WORDS = (
    "", " ", "nan", "NaN", "inf", "-inf", "1e999", "1e-400", "-1", "-0", "0", "1", "1.5", "1_0", "0x10", "٣", "²",
    "9" * 30, "1" * 5000, str(2**63), str(-(2**63)), '"', "'", '""', ",", ",,,,", ";", "\t", "\r", "\n", "\r\r\n", "\0",
    "\ufeff", "\x1b[31m", "\u2028", "\u202e", "é", "\U0001f697", "2018-13-45", "0001-01-01", "9999-12-31 23:59:59",
    "2018-01-01T00:00:00+05:30", "now", "NaT", "None", "true", "[]", "{}", "a" * 200_000, "../../etc/passwd", "#",
)  # fmt: skip


def bytes_(rng: random.Random, data: bytes) -> bytes:
    """One to four blind changes anywhere, more often near the ends, where headers and directories are."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_BLIND)(rng, data)
    return data


def spliced(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The head of one file and the tail of another."""
    return data[: _place(rng, data)] + other[_place(rng, other) :]


def text(rng: random.Random, data: bytes) -> bytes:
    """Changed fields and lines of a text file."""
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        fields = lines[at].split(",")
        what = rng.randrange(7)
        if what <= 2:
            fields[rng.randrange(len(fields))] = rng.choice(WORDS)
        elif what == 3:
            fields = fields[: rng.randrange(len(fields) + 1)] + rng.choice(([], fields))
        elif what == 4:
            fields = [rng.choice(WORDS) + fields[0], *fields[1:]]
        lines[at] = ",".join(fields)
        if what == 5:
            line = lines[rng.randrange(len(lines))]
            lines[at:at] = [line] * min(rng.choice((1, 2, 50, 5000)), 1 + MAX_SIZE // (1 + len(line)))
        elif what == 6 and len(lines) > 1:
            del lines[at]
    return "\n".join(lines).encode("utf-8", "replace")


def json_(rng: random.Random, data: bytes) -> bytes:
    """Changed, missing, added and nested values of a JSON file; once in a while too deep or too long for a parser."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return bytes_(rng, data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        content = _changed_value(rng, content)
    written = json.dumps(content, indent=rng.choice((None, 2)))
    if rng.random() < 0.05:  # what json.dumps would not write
        deep = "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000, "1" * 5000, "-", "1e999999"
        spots = [place for place, letter in enumerate(written) if letter == ":"] or [0]
        spot = rng.choice(spots) + 1
        end = min((at for at in (written.find(mark, spot) for mark in ",}") if at >= 0), default=len(written))
        written = written[:spot] + rng.choice(deep) + written[end:]
    return written.encode("utf-8", "surrogatepass")


def npy(rng: random.Random, data: bytes) -> bytes:
    """Another shape, dtype, order or length in the header of a `.npy` file; its content as it was, cut or longer."""
    try:
        header, content = npy_parts(data)
    except Exception:  # a header that is damaged already
        return bytes_(rng, data)
    for _ in range(rng.choice((1, 1, 2))):
        key = rng.choice(("shape", "shape", "descr", "fortran_order", "other"))
        if key == "shape":
            header["shape"] = _changed_shape(rng, header.get("shape", ()))
        elif key == "descr":
            header["descr"] = rng.choice(_DESCRIPTIONS)
        elif key == "fortran_order":
            header["fortran_order"] = rng.choice((True, False, 2, None, "yes"))
        else:
            header[rng.choice(("extra", "shape", "descr"))] = rng.choice((None, (), "f4", -1))
    if rng.random() < 0.2:
        content = rng.choice((b"", content[:-1], content * 3, content + b"\0" * 64))
    return npy_joined(header, content, version=rng.choice((1, 1, 1, 2, 3)))


def npy_parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and content of a `.npy` file."""
    if not data.startswith(b"\x93NUMPY"):
        raise ValueError("not a .npy file")
    size = 2 if data[6] == 1 else 4
    start = 8 + size
    end = start + int.from_bytes(data[8:start], "little")
    return dict(ast.literal_eval(data[start:end].decode("latin1"))), data[end:]


def npy_joined(header: dict[str, Any], content: bytes, version: int = 1) -> bytes:
    """A `.npy` file of any header, possible or not."""
    words = f"{header!r}\n".encode("utf-8" if version == 3 else "latin1", "replace")
    length = struct.pack("<H" if version == 1 else "<I", min(len(words), 65535))
    return b"\x93NUMPY" + bytes((version, 0)) + length + words + content


def npy_bytes(array: np.ndarray) -> bytes:
    """`array` as a `.npy` file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _place(rng: random.Random, data: bytes) -> int:
    if rng.random() < 0.5:
        return rng.randrange(len(data) + 1)
    near = min(len(data), 400)
    return rng.choice((rng.randrange(near + 1), len(data) - rng.randrange(near + 1)))


def _flipped(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        if changed:
            changed[min(_place(rng, data), len(data) - 1)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwritten(rng: random.Random, data: bytes) -> bytes:
    at, length = _place(rng, data), rng.choice((1, 1, 2, 4, 8, 64, 1000))
    fill = rng.choice((b"\0" * length, b"\xff" * length, rng.randbytes(length)))
    return data[:at] + fill[: len(data) - at] + data[at + length :]


def _numbered(rng: random.Random, data: bytes) -> bytes:
    """An integer that programs get wrong, in any of the ways that files write one."""
    at, size = _place(rng, data), rng.choice((1, 2, 4, 8))
    number = (rng.choice(INTEGERS) + rng.choice((-1, 0, 0, 1))) % 2 ** (8 * size)
    return data[:at] + number.to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]


def _truncated(rng: random.Random, data: bytes) -> bytes:
    return data[: _place(rng, data)]


def _repeated(rng: random.Random, data: bytes) -> bytes:
    at, length = _place(rng, data), rng.choice((1, 8, 64, 512))
    return data[:at] + data[at : at + length] * rng.choice((2, 3, 100)) + data[at + length :]


def _cut_out(rng: random.Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice((1, 2, 8, 64, 512)) :]


def _inserted(rng: random.Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.choice((rng.randbytes(rng.choice((1, 8, 64))), b"\0" * 4096)) + data[at:]


_BLIND: Sequence[Mutation] = (_flipped, _overwritten, _numbered, _numbered, _truncated, _repeated, _cut_out, _inserted)

_DESCRIPTIONS = (
    "<f4", ">f8", "<f2", "|b1", "|i1", "<u8", "<c16", "|O", "|S0", "<U0", "|V0", "|S2000000000", "<U500000000",
    "<M8[s]", "<m8", "<f16", "f", "", "<q9", "nonsense", None, 5, [], [("a", "<f4")], [("a", "<f4"), ("a", "<f4")],
    [("a", "<f4", (10**6, 10**6))], [("a", "|O")], ("<f4", (2, 2)), ("<f4", (10**5, 10**5)), {"names": ["a"]},
)  # fmt: skip


def _changed_shape(rng: random.Random, shape: object) -> object:
    sizes = list(shape) if isinstance(shape, tuple) else []
    what = rng.randrange(6)
    if what <= 2 and sizes:
        odd = (*INTEGERS, -1, -(2**63), 10**30, True, 1.0, "3", None)
        sizes[rng.randrange(len(sizes))] = rng.choice(odd)
        return tuple(sizes)
    if what == 3:
        return tuple(sizes[: rng.randrange(len(sizes) + 1)])
    if what == 4:
        return (*sizes, *[rng.choice((0, 1, 2, 2**16))] * rng.choice((1, 2, 40, 70)))
    return rng.choice(((), (0,), (2**32, 2**32), (2**31, 2**31, 4), (0, 2**60), [2, 2], 5, None, "ab", sizes))


def _changed_value(rng: random.Random, content: Any) -> Any:
    """`content` with one value somewhere in it changed."""
    if isinstance(content, dict | list) and content and rng.random() < 0.85:
        key = rng.choice(list(content) if isinstance(content, dict) else range(len(content)))
        what = rng.random()
        if what < 0.12:
            del content[key]
        elif what < 0.2 and isinstance(content, dict):
            content[rng.choice((*WORDS, str(key) + "x"))] = content[key]
        elif what < 0.25 and isinstance(content, list):
            content.extend(
                [content[key]] * rng.choice((1, 3, 1000) if isinstance(content[key], int | float) else (1, 3))
            )
        else:
            content[key] = _changed_value(rng, content[key])
        return content
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if isinstance(content, int | float) and rng.random() < 0.3:
            return rng.choice((-content, content + 1, content * 2, content / 3, str(content), bool(content)))
    lone = "\ud800"
    return rng.choice(
        (
            None, True, False, 0, -1, 1, 1.5, 2**31, 2**63, 2**64, 10**400, -(10**30), 1e308, float("nan"),
            float("inf"), [], {}, [content], {"a": content}, [None], [[[[1]]]], {"": ""}, lone, *WORDS,
        )
    )  # fmt: skip
