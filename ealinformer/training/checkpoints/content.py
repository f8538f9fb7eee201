"""What a checkpoint has to hold: for scoring, and to go on with training exactly."""

import random
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from ealinformer.errors import InputError

_MAX_SHOWN = 60  # characters of a value in a message
_NUMPY_WORDS = 624

Count = Annotated[int, Field(ge=0)]
Tensors = dict[str, Tensor]


def _for_python(state: list[Any]) -> list[Any]:
    try:
        version, words, gauss = state
        random.Random().setstate((version, tuple(words), gauss))
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError("a state of Python's generator") from error
    return state


def _for_numpy(state: list[Any]) -> list[Any]:
    # numpy takes any position, and then reads past the end of its words.
    words = state[0] if len(state) == 4 and isinstance(state[0], list) else []
    whole = len(words) == _NUMPY_WORDS and all(type(word) is int and 0 <= word < 2**32 for word in words)
    if not whole or type(state[1]) is not int or not 0 <= state[1] <= _NUMPY_WORDS:
        raise ValueError("a state of numpy's generator")
    if state[2] not in (0, 1) or not isinstance(state[3], float):
        raise ValueError("a state of numpy's generator")
    return state


def _for_torch(state: Tensor) -> Tensor:
    try:
        torch.Generator().set_state(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError("a state of torch's generator") from error
    return state


def _for_cuda(state: Tensor) -> Tensor:
    if state.dtype != torch.uint8 or state.dim() != 1:
        raise ValueError("a state of a CUDA generator")
    return state


class _Part(BaseModel):
    # Nothing is converted: a number written as text is a damaged file. Further keys are the writer's own.
    model_config = ConfigDict(strict=True, extra="ignore", arbitrary_types_allowed=True)


class _Scaler(_Part):
    mean: float
    std: float


class _Evaluation(_Part):
    run: str
    model: Tensors
    epoch: Count
    step: Count
    scaler: _Scaler
    metrics: dict[str, float] = {}


class _Best(_Part):
    epoch: Count
    step: Count
    scores: dict[str, float]
    model: Tensors


class _RandomState(_Part):
    """Of one rank."""

    python: Annotated[list[Any], AfterValidator(_for_python)]
    numpy: Annotated[list[Any], AfterValidator(_for_numpy)]
    torch: Annotated[Tensor, AfterValidator(_for_torch)]
    cuda: Annotated[Tensor, AfterValidator(_for_cuda)] | None


class _Optimizer(_Part):
    state: dict[Count, dict[str, Any]]
    param_groups: list[dict[str, Any]]


class _Training(_Part):
    epoch: Annotated[int, Field(ge=1)]
    steps_done: Count
    step: Count
    finished: bool
    optimizer: _Optimizer
    lr_scheduler: dict[str, Any] | None
    stopping_counter: Count
    best: _Best | None
    rng: Annotated[list[_RandomState], Field(min_length=1)]
    sums: Tensors
    seconds: float
    skipped: Count
    history: list[dict[str, float]]
    stopped_by: str
    code: dict[str, str]
    data: str


def check_evaluation(path: Path, state: dict[str, Any]) -> None:
    """InputError that names the first key that scoring needs and that is missing or of another type."""
    _check(path, _Evaluation, state, "")


def check_training(path: Path, training: object) -> None:
    """The same for the part `training`, which resuming needs."""
    _check(path, _Training, training, "training.")


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> str | None:
    """The first difference in names, shapes and dtypes of two sets of tensors, in words."""
    for name in (*expected, *found):
        if name not in found:
            return f"it lacks {_short(name)}"
        if name not in expected:
            return f"it has {_short(name)}, which the model lacks"
        one, two = found[name], expected[name]
        if one.shape != two.shape:
            return f"{name} is {list(one.shape)[:8]}, expected {list(two.shape)}"
        if one.dtype != two.dtype:
            return f"{name} is {_name(one.dtype)}, expected {_name(two.dtype)}"
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check(path: Path, schema: type[BaseModel], content: object, where: str) -> None:
    try:
        schema.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = _short(where + ".".join(str(part) for part in first["loc"])).rstrip(".")
        if first["type"] == "missing":
            raise InputError(f"{path} lacks the key {key}") from error
        expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        if first["type"] == "model_type":
            expected = "a dictionary"
        raise InputError(f"{path} holds {_kind(first['input'])} as {key}, expected {expected}") from error


def _kind(value: object) -> str:
    if value is None or isinstance(value, bool | int | float | str):
        return _short(repr(value))
    return f"a {type(value).__name__}"


def _short(text: str) -> str:
    one_line = " ".join(text[: 2 * _MAX_SHOWN].split())
    return one_line if len(one_line) <= _MAX_SHOWN else f"{one_line[:_MAX_SHOWN]}..."
