"""Reading the pickled adjacency matrices of older traffic repositories without running code from them.

A pickle is a program. Three things keep this one harmless:

- Only the opcodes that arrays and plain containers are written with exist; there is none left to make an object of a
  class, to resolve a persistent id or to use the extension registry.
- `find_class` imports nothing. The few numpy names it knows stand for the inert recorders below. numpy's own callables
  would not be safe: a forged `dtype` state makes numpy take bytes of the file for pointers.
- The matrix is made from the recorded bytes afterwards, when dtype, shape and length have been checked.
"""

import io
import math
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ealinformer.data.files import decoding, require_file
from ealinformer.errors import InputError

MAX_BYTES = 2 * 1024**3  # of the file; enough for 16,000 sensors in float64

_EXPECTED = "a pickled (ids, id_to_index, matrix) or a pickled matrix"
_NUMERIC = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
_OPCODES = """
    PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD
"""


def read_adjacency_pickle(path: Path) -> tuple[list[str] | None, np.ndarray]:
    """Sensor ids in row order, where the file has them, and the adjacency matrix as stored.

    Reads protocols 0 to 5, those of Python 2 included. Raises InputError for a file that is missing, damaged, larger
    than `MAX_BYTES`, of other content, or that asks for anything but numeric arrays and plain containers.
    """
    size = require_file(path, _EXPECTED)
    if size > MAX_BYTES:
        raise InputError(f"{path}: has {size} bytes; expected a pickled adjacency of at most {MAX_BYTES}")
    with decoding(path, _EXPECTED):
        content = _ArrayUnpickler(path).load()
        if isinstance(content, _Array):
            return None, content.to_numpy()
        if isinstance(content, list | tuple) and len(content) == 3 and isinstance(content[2], _Array):
            matrix = content[2].to_numpy()
            return _sensor_ids(path, content[0], content[1], len(matrix) if matrix.ndim else 0), matrix
    raise InputError(f"{path}: holds a {_describe(content)}; expected {_EXPECTED}")


def _sensor_ids(path: Path, ids: object, id_to_index: object, num_sensors: int) -> list[str]:
    """The ids as text, checked against the number of rows and against the pickle's own index."""
    if isinstance(ids, _Array):
        ids = ids.to_numpy().tolist()
    if not isinstance(ids, list | tuple) or not all(isinstance(name, str | int) for name in ids):
        raise InputError(f"{path}: the ids are a {_describe(ids)}; expected a list of names or numbers")
    if len(ids) != num_sensors or len(set(ids)) != num_sensors:
        found = f"{len(ids)} ids ({len(set(ids))} of them distinct)"
        raise InputError(f"{path}: holds {found} for {num_sensors} matrix rows; expected one id a row")
    if isinstance(id_to_index, dict) and any(id_to_index.get(name) != row for row, name in enumerate(ids)):
        raise InputError(f"{path}: id_to_index orders the sensors otherwise than ids; expected the same order")
    return [str(name) for name in ids]


def _describe(content: object) -> str:
    size = f" of {len(content)}" if isinstance(content, list | tuple | dict) else ""
    return type(content).__name__.strip("_") + size


class _Dtype:
    """What a pickle says of a dtype: a numeric type code and a byte order, nothing else."""

    def __init__(self, code: object, *_: object) -> None:
        # Only text is shown: a list of lists of lists, each there twice, would be written out without end.
        if not isinstance(code, str) or code not in _NUMERIC:
            found = repr(code[:20]) if isinstance(code, str) else f"({type(code).__name__})"
            raise pickle.UnpicklingError(f"an array of dtype {found}, not of numbers")
        self.code = code
        self.order = "="

    def record(self, state: object) -> None:
        # The rest of the state (fields, sizes, flags) says nothing about a numeric type and is never handed to numpy.
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("a dtype without byte order")
        self.order = state[1]

    def to_numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Array:
    """What a pickle says of an array; only `to_numpy` makes one, so references cost no memory."""

    def __init__(self) -> None:
        self.state: tuple[object, ...] = ()  # shape, dtype, Fortran order, bytes

    def record(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise pickle.UnpicklingError("an array without content")
        self.state = state[-4:]  # the version in front is missing from the oldest pickles

    def to_numpy(self) -> np.ndarray:
        if not self.state:
            raise pickle.UnpicklingError("an array without content")
        shape, dtype, fortran, raw = self.state
        if isinstance(raw, str):
            raw = raw.encode("latin1")
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes | bytearray) or not _is_shape(shape):
            raise pickle.UnpicklingError("an array whose shape, dtype or bytes are of another kind")
        kind = dtype.to_numpy()
        if len(raw) != math.prod(shape) * kind.itemsize:
            raise pickle.UnpicklingError(f"{len(raw)} bytes for an array {list(shape)} of {kind}")
        # A byte other than 0 and 1 is no valid bool to numpy.
        flat = np.frombuffer(raw, np.uint8) != 0 if kind.kind == "b" else np.frombuffer(raw, kind)
        return flat.astype(flat.dtype.newbyteorder("=")).reshape(shape, order="F" if fortran else "C")


def _is_shape(shape: object) -> TypeGuard[tuple[int, ...]]:
    # Bounded because the product of many large numbers takes gigabytes and minutes.
    return isinstance(shape, tuple) and len(shape) <= 8 and all(isinstance(n, int) and 0 <= n < 2**63 for n in shape)


_NDARRAY = object()  # stands for numpy.ndarray, of which a pickle only passes the name on


def _reconstruct(kind: object, *_: object) -> _Array:
    if kind is not _NDARRAY:
        raise pickle.UnpicklingError("an array of a subclass of ndarray")
    return _Array()


def _frombuffer(raw: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.state = (shape, dtype, order == "F", raw)
    return array


def _scalar(dtype: object, raw: object) -> object:
    return _frombuffer(raw, dtype, (), "C").to_numpy().item()


def _empty_bytes() -> bytes:
    return b""


class _Opcodes(dict[int, Callable[..., None]]):
    """The table of an unpickler that says which opcode it lacks."""

    def __missing__(self, code: int) -> Callable[..., None]:
        raise pickle.UnpicklingError(f"opcode {code:#04x} is not one that arrays are written with")


_ALL_OPCODES: Mapping[int, Callable[..., None]] = pickle._Unpickler.dispatch


# The reader in Python, not the one in C: its table of opcodes can be cut down, and its memo is a dict, so that a
# made-up memo index costs no gigabytes.
class _ArrayUnpickler(pickle._Unpickler):
    """Runs a pickle with the opcodes and names of this module and no others."""

    dispatch = _Opcodes((code, _ALL_OPCODES[code]) for code in (getattr(pickle, name)[0] for name in _OPCODES.split()))
    stack: list[Any]

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._path = path
        self._encodable = len(data)

    def find_class(self, module: str, name: str) -> object:
        """The stand-in for a permitted global. Raises InputError for any other."""
        stand_in = self._stand_ins().get((module, name))
        if stand_in is None:
            asked = f"{module}.{name}"[:80]
            raise InputError(f"{self._path}: asks for {asked!r} and is refused; expected only numeric arrays and lists")
        return stand_in

    def _stand_ins(self) -> dict[tuple[str, str], object]:
        known: dict[tuple[str, str], object] = {
            ("numpy", "ndarray"): _NDARRAY,
            ("numpy", "dtype"): _Dtype,
            ("_codecs", "encode"): self._encode_latin1,
            ("__builtin__", "bytes"): _empty_bytes,
            ("builtins", "bytes"): _empty_bytes,
        }
        for core in ("numpy.core", "numpy._core"):  # before numpy 2, and since
            known[f"{core}.multiarray", "_reconstruct"] = _reconstruct
            known[f"{core}.multiarray", "scalar"] = _scalar
            known[f"{core}.numeric", "_frombuffer"] = _frombuffer
        return known

    def _encode_latin1(self, text: object, encoding: object) -> bytes:
        """Bytes that Python 3 wrote as text in an old protocol."""
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("an encoding other than latin1")
        # Each text stands in the file for itself; a program that encodes one again and again wants memory.
        self._encodable -= len(text)
        if self._encodable < 0:
            raise pickle.UnpicklingError("more bytes than the file holds")
        return text.encode("latin1")

    def _load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, _Array | _Dtype):
            raise pickle.UnpicklingError(f"a state for a {type(target).__name__}")
        target.record(state)

    dispatch[pickle.BUILD[0]] = _load_build

    def _load_bytearray(self) -> None:
        # As many bytes as there are: Python's own makes room for as many as the file says.
        (size,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.stack.append(bytearray(self.read(size)))  # type: ignore[attr-defined]

    dispatch[pickle.BYTEARRAY8[0]] = _load_bytearray

    def _load_dict(self) -> None:
        _check_keys(self.stack[::2])
        _ALL_OPCODES[pickle.DICT[0]](self)

    dispatch[pickle.DICT[0]] = _load_dict

    def _load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        _ALL_OPCODES[pickle.SETITEM[0]](self)

    dispatch[pickle.SETITEM[0]] = _load_setitem

    def _load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        _ALL_OPCODES[pickle.SETITEMS[0]](self)

    dispatch[pickle.SETITEMS[0]] = _load_setitems


def _check_keys(keys: list[object]) -> None:
    # Hashing tuples nested a million deep overflows the C stack, which ends the process.
    if not all(isinstance(key, str | int) for key in keys):
        raise pickle.UnpicklingError("a dictionary key that is no name or number")
