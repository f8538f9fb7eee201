"""The pickle inside a file of `torch.save`, checked before torch reads it.

torch's own `weights_only` reader runs no code, but a small pickle can still make it take all memory: a byte array of
any size, a tensor far larger than its storage, a list that holds another one a billion times. Here the pickle is run
on records that stand for tensors and cost nothing. What passes is plain values and dense tensors, each of which
stands in the file for itself, so that reading takes memory and time in proportion to the file.
"""

import math
import pickle
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

MAX_DEPTH = 32  # of containers in containers
MAX_KEY = 2**31  # of a dictionary: numbers beyond can be chosen to have one hash, which makes a dictionary crawl
MAX_INT_BITS = 2039  # what torch reads back
_MAX_SIZE = 2**48  # of a dimension; a tensor without elements can claim any
_MAX_SIZES = 129  # offset, sizes and strides of 64 dimensions
_SHOWN = 60  # characters of a name in a message

_REBUILD, _REBUILD_WITH_DTYPE = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3"
_UNTYPED = "torch.storage UntypedStorage"
_ITEM_SIZES = {
    "torch DoubleStorage": 8,
    "torch FloatStorage": 4,
    "torch HalfStorage": 2,
    "torch BFloat16Storage": 2,
    "torch LongStorage": 8,
    "torch IntStorage": 4,
    "torch ShortStorage": 2,
    "torch CharStorage": 1,
    "torch ByteStorage": 1,
    "torch BoolStorage": 1,
    "torch ComplexDoubleStorage": 16,
    "torch ComplexFloatStorage": 8,
}
_EIGHT_BITS = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
_NEWER = ("uint16", "uint32", "uint64", "complex32", *_EIGHT_BITS)
_DTYPE_SIZES = {f"torch {name}": getattr(torch, name).itemsize for name in _NEWER}
_GLOBALS = frozenset(
    {_REBUILD, _REBUILD_WITH_DTYPE, _UNTYPED, "collections OrderedDict", "collections Counter"}
    | _ITEM_SIZES.keys()
    | _DTYPE_SIZES.keys()
)


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    num_bytes: int
    item_size: int | None  # None: bytes, to which the tensor brings the dtype


_TENSOR = object()  # stands for any tensor
_NO_HOOKS = object()  # the empty OrderedDict that every tensor is written with
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def check_pickle(pickled: bytes, storages: Mapping[str, int]) -> None:
    """Run a pickle of protocol 2 on stand-ins; `storages` gives the bytes that the file has for each storage.

    Raises:
        pickle.UnpicklingError: it is no dictionary of plain values and dense tensors that fit their storages.
        Exception: of another kind where it is no pickle at all.
    """
    content = _Machine(storages).run(pickled)
    if not isinstance(content, dict):
        raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, expected a dictionary")
    _check_plain(content, MAX_DEPTH)


def _check_plain(value: object, depth: int) -> None:
    if depth == 0:
        raise pickle.UnpicklingError(f"it holds containers nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            _check_plain(one, depth - 1)
    elif value is not _TENSOR and value is not None and not isinstance(value, bool | int | float | str):
        raise pickle.UnpicklingError("it holds a bare class or storage, expected plain values and tensors")


class _Machine:
    """The opcodes that torch writes, with the stack and the marks of torch's own reader."""

    def __init__(self, storages: Mapping[str, int]) -> None:
        self._storages = storages
        self._classes: dict[str, _Global] = {}
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, pickled: bytes) -> object:
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise pickle.UnpicklingError("it has no end")

    def _step(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        match opcode:
            case "PROTO":
                _require(argument == 2, f"it has pickle protocol {argument}, expected 2")
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE":
                stack.append(_CONSTANTS[opcode])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "MARK":
                self._outer.append(stack)
                self._stack = []
            case "TUPLE":
                items = self._marked()
                self._stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode[-1])
                _require(len(stack) >= size, "it takes a tuple from an empty stack")
                stack[-size:] = [tuple(stack[-size:])]
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS":
                self._extend(self._marked())
            case "SETITEM":
                value = stack.pop()
                self._set([stack.pop(), value])
            case "SETITEMS":
                self._set(self._marked())
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._remembered(argument))
            case "GLOBAL":
                asked = " ".join(argument.split())[:_SHOWN].replace(" ", ".")
                _require(argument in _GLOBALS, f"it asks for {asked}, which plain values and tensors do not need")
                stack.append(_Global(argument))
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(self._call(stack.pop(), arguments))
            case _:
                raise pickle.UnpicklingError(f"it has the opcode {opcode}, which plain values and tensors do not need")

    def _marked(self) -> list[Any]:
        items, self._stack = self._stack, self._outer.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        _require(isinstance(self._stack[-1], list), "it appends to what is no list")
        self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        _require(isinstance(self._stack[-1], dict) and len(items) % 2 == 0, "it sets items of what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            _require(is_key(key), "it has a dictionary key that is no name or small number")
            self._stack[-1][key] = value

    def _remembered(self, index: int) -> object:
        value = self._memo[index]
        # A container that is used twice can be used a billion times.
        _require(isinstance(value, str | _Global), "it uses a value twice, expected names and classes alone")
        return value

    def _storage(self, claim: Any) -> _Storage:
        _require(isinstance(claim, tuple) and len(claim) == 5, "it has a storage of another form")
        word, kind, key, location, count = claim
        _require(isinstance(word, str) and word == "storage", "it has a reference to what is no storage")
        _require(
            isinstance(kind, _Global) and (kind.name == _UNTYPED or kind.name in _ITEM_SIZES),
            "it has a storage of no known class",
        )
        _require(isinstance(location, str) and location == "cpu", "it has a storage on another device than the CPU")
        _require(isinstance(key, str) and key in self._storages, "it has a tensor whose storage is not in the file")
        _require(self._classes.setdefault(key, kind) == kind, "it reads one storage as two types")
        size = _ITEM_SIZES.get(kind.name)
        num_bytes = self._storages[key]
        fits = type(count) is int and count * (size or 1) == num_bytes
        _require(fits, f"it has a tensor whose storage is not the {num_bytes} bytes that the file has for it")
        return _Storage(num_bytes, size)

    def _call(self, function: object, arguments: Any) -> object:
        _require(isinstance(function, _Global) and isinstance(arguments, tuple), "it calls what is no class")
        name = function.name if isinstance(function, _Global) else ""
        if name == "collections OrderedDict" and not arguments:
            return _NO_HOOKS
        if name == "collections Counter" and len(arguments) == 1 and isinstance(arguments[0], dict):
            return arguments[0]
        if name == _REBUILD and len(arguments) == 6:
            return _tensor(*arguments)
        if name == _REBUILD_WITH_DTYPE and len(arguments) == 7:
            return _tensor(*arguments)
        raise pickle.UnpicklingError(f"it calls {name.replace(' ', '.')} in another way than torch.save does")


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: Any, hooks: Any, dtype: Any = None
) -> object:
    """Check that every element of a tensor lies in its storage, where torch would enlarge the storage."""
    _require(isinstance(storage, _Storage) and requires_grad is False and hooks is _NO_HOOKS, "it has a strange tensor")
    size = storage.item_size
    if dtype is not None:
        _require(size is None and isinstance(dtype, _Global), "it has a tensor with two dtypes")
        size = _DTYPE_SIZES.get(dtype.name)
    _require(size is not None, "it has a tensor without dtype")
    sizes = (offset, *shape, *strides) if isinstance(shape, tuple) and isinstance(strides, tuple) else (None,)
    _require(len(sizes) <= _MAX_SIZES, "it has a tensor of too many dimensions")
    counted = all(type(one) is int and 0 <= one < _MAX_SIZE for one in sizes) and len(shape) == len(strides)
    _require(counted, "it has a tensor whose sizes are no numbers")
    elements = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) if elements else offset - 1
    # More elements than the storage has: one number repeated, which takes memory as soon as it is copied.
    fits = (last + 1) * size <= storage.num_bytes and elements * size <= storage.num_bytes
    _require(fits, f"it has a tensor {list(shape)[:8]} that is larger than its storage")
    return _TENSOR


def is_key(key: object) -> bool:
    """Whether a dictionary of a sealed file may have this key."""
    return type(key) is str or (type(key) is int and 0 <= key < MAX_KEY)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise pickle.UnpicklingError(problem)
