"""Checkpoints: written whole, kept twice, read without running code, refused where they do not fit."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn, optim

from ealinformer.errors import InputError
from ealinformer.files import replaced_whole, sync_file
from ealinformer.training.checkpoints.content import check_evaluation, check_training, difference
from ealinformer.training.checkpoints.sealed import read_whole, seal, unseal, write_sealed
from ealinformer.training.config import RunConfig, describe
from ealinformer.training.runs.folder import BEST as BEST
from ealinformer.training.runs.folder import LAST, PREVIOUS

FORMAT = 2
_SERIES_KEYS = ("num_sensors", "interval_minutes", "channel", "null_value", "split")
_MAX_DETAIL = 80  # characters of a value in a message


@dataclass(frozen=True)
class Found:
    """The newest checkpoint of a run's folder that can be used."""

    path: Path
    run: RunConfig
    state: dict[str, Any]
    data: bytes  # the whole file; `parse_checkpoint` makes `run` and `state` of it in another process
    complaints: list[str] = field(default_factory=list)  # what was wrong with the one passed over


def save_checkpoint(path: Path, run: RunConfig, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) with the config of its run.

    Raises:
        InputError: the folder cannot be written to, or the disk is full.
    """
    write_sealed(path, _content(run, state))


def load_checkpoint(path: Path) -> tuple[RunConfig, dict[str, Any]]:
    """The config of the run and its state, on the CPU.

    Raises:
        InputError: the file is not there, damaged, or not a checkpoint of this project.
    """
    return parse_checkpoint(path, read_whole(path))


def parse_checkpoint(path: Path, data: bytes) -> tuple[RunConfig, dict[str, Any]]:
    """The same of the bytes of a file; `path` is for messages."""
    content = unseal(data, path)
    found = content.get("format")
    if type(found) is not int or "run" not in content:
        raise InputError(f"{path} is not a checkpoint of this project (format {FORMAT} is expected)")
    if found != FORMAT:
        raise InputError(f"{path} is a checkpoint of format {found}, this version of the project reads format {FORMAT}")
    check_evaluation(path, content)
    try:
        return RunConfig.model_validate_json(content["run"]), content
    except ValidationError as error:
        raise InputError(f"{path} holds the config of another version of this project: {describe(error)}") from error


def keep_checkpoint(folder: Path, run: RunConfig, state: dict[str, Any]) -> None:
    """Write the last checkpoint of a run; the one that was last so far becomes the previous one.

    Killed at any moment, it leaves a whole one of the two.

    Raises:
        InputError: the folder cannot be written to, or the disk is full; a whole one is left.
    """
    last = folder / LAST
    with replaced_whole(last) as temporary:
        temporary.write_bytes(seal(_content(run, state)))
        sync_file(temporary)
        # A damaged one must not take the place of the one that the run was resumed from.
        if _is_whole(last):
            os.replace(last, folder / PREVIOUS)


def newest_checkpoint(folder: Path) -> Found | None:
    """The last checkpoint in a run's folder or, where that cannot be used, the previous one; None where neither is.

    Raises:
        InputError: there are files, but none that training can go on from; says why for each.
    """
    complaints: list[str] = []
    if not any(os.path.lexists(folder / name) for name in (LAST, PREVIOUS)):
        return None
    for path in (folder / LAST, folder / PREVIOUS):
        try:
            data = read_whole(path)
            run, state = parse_checkpoint(path, data)
            _check_resumable(path, state)
        except InputError as error:
            complaints.append(str(error))
        else:
            return Found(path, run, state, data, complaints)
    raise InputError(f"no checkpoint in {folder} can be used: {'; '.join(complaints)}")


def check_fits(path: Path, saved: RunConfig, wanted: RunConfig) -> None:
    """Refuse a checkpoint of another model, series or window.

    Raises:
        InputError: names the first difference.
    """
    differences = (
        ("model", saved.model, wanted.model, f"; add --model {saved.model}"),
        ("data set", saved.series.name, wanted.series.name, ""),
        *((name, getattr(saved.series, name), getattr(wanted.series, name), "") for name in _SERIES_KEYS),
        ("input_len", saved.input_len, wanted.input_len, f"; add --set input_len={saved.input_len}"),
        ("output_len", saved.output_len, wanted.output_len, f"; add --set output_len={saved.output_len}"),
    )
    for name, found, expected, hint in differences:
        if str(found) != str(expected):  # NaN, as a null value, is not equal to itself
            raise InputError(f"{path} is a checkpoint for {name} {found}, the config says {expected}{hint}")


def load_weights(path: Path, model: nn.Module, state: dict[str, Any]) -> None:
    """Put the weights of a checkpoint into `model`.

    Raises:
        InputError: names, shapes or dtypes of the tensors are not those of the model.
    """
    problem = difference(state["model"], model.state_dict())
    if problem:
        raise InputError(f"{path} does not fit the model: {problem}")
    model.load_state_dict(state["model"])


def load_optimizer(path: Path, optimizer: optim.Optimizer, state: dict[str, Any]) -> None:
    """Put the state of a checkpoint, its settings too, into `optimizer`, whose own its tensors become.

    Raises:
        InputError: parameter groups, settings or tensors are not those of the optimizer.
    """
    problem = _optimizer_difference(state, optimizer)
    if problem:
        raise InputError(f"{path} does not fit the optimizer: {problem}")
    optimizer.load_state_dict(state)


def load_lr_scheduler(path: Path, scheduler: optim.lr_scheduler.LRScheduler, state: dict[str, Any]) -> None:
    """Put the state of a checkpoint into the schedule of the learning rate.

    Raises:
        InputError: it lacks a setting, or has one of another type.
    """
    problem = _settings_difference(state, scheduler.state_dict())
    if problem:
        raise InputError(f"{path} does not fit the learning rate schedule: {problem}")
    scheduler.load_state_dict(state)


def _content(run: RunConfig, state: dict[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "run": run.model_dump_json(), **state}


def _is_whole(path: Path) -> bool:
    try:
        read_whole(path)
    except InputError:
        return False
    return True


def _check_resumable(path: Path, state: dict[str, Any]) -> None:
    if "training" not in state:
        raise InputError(f"{path} lacks the key training: it is for scoring, not to go on from")
    training = state["training"]
    check_training(path, training)
    if training["best"] is not None:
        problem = difference(training["best"]["model"], state["model"])
        if problem:
            raise InputError(f"{path} holds a training.best.model that does not fit model: {problem}")


def _optimizer_difference(state: dict[str, Any], optimizer: optim.Optimizer) -> str | None:
    groups, expected = state["param_groups"], optimizer.state_dict()["param_groups"]
    if len(groups) != len(expected):
        return f"it has {len(groups)} parameter groups, expected {len(expected)}"
    for number, (group, wanted) in enumerate(zip(groups, expected, strict=True)):
        found = group.get("params")
        if not isinstance(found, list) or any(type(one) is not int for one in found) or found != wanted["params"]:
            return f"group {number} is not of the parameters {str(wanted['params'])[:_MAX_DETAIL]}"
        problem = _settings_difference(group, wanted)
        if problem:
            return f"of group {number}, {problem}"
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    for index, tensors in state["state"].items():
        if index >= len(parameters):
            return f"it has a state for parameter {index} of {len(parameters)}"
        problem = _moments_difference(tensors, parameters[index], optimizer)
        if problem:
            return f"of parameter {index}, {problem}"
    return None


def _settings_difference(found: dict[str, Any], expected: dict[str, Any]) -> str | None:
    for key, value in expected.items():
        if key not in found:
            return f"{key} is not there"
        if not _same_kind(found[key], value):
            return f"{key} is a {type(found[key]).__name__}, expected {value!r} or the like"
    return None


def _same_kind(found: object, expected: object) -> bool:
    if found is None or expected is None:
        return True  # of settings such as `foreach`, None leaves the choice to torch
    if isinstance(expected, float | int) and not isinstance(expected, bool):
        return isinstance(found, float | int) and not isinstance(found, bool)
    if type(found) is not type(expected):
        return False
    if isinstance(found, dict) and isinstance(expected, dict):  # the milestones of a learning rate schedule
        return found.keys() == expected.keys() and all(_same_kind(found[key], one) for key, one in expected.items())
    if isinstance(found, tuple | list) and isinstance(expected, tuple | list):
        return len(found) == len(expected) and all(map(_same_kind, found, expected))
    return True


def _moments_difference(found: dict[str, Any], parameter: nn.Parameter, optimizer: optim.Optimizer) -> str | None:
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    expected = _moments(parameter, optimizer)
    if expected is None:
        expected = dict.fromkeys(tensors.keys() - {"step"}, parameter)
    elif not tensors.keys() >= {"step", *expected}:
        return f"{min({'step', *expected} - tensors.keys())} is not there"
    steps = tensors.pop("step", None)
    if steps is not None and (steps.dim() or not steps.dtype.is_floating_point):
        return f"step is {list(steps.shape)} {steps.dtype}, expected one floating-point number"
    return difference(tensors, expected)


def _moments(parameter: Tensor, optimizer: optim.Optimizer) -> dict[str, Tensor] | None:
    """What an optimizer keeps of a parameter beside the number of steps, in shape and dtype; None where unknown."""
    if isinstance(optimizer, optim.Adam | optim.AdamW):
        return dict.fromkeys(("exp_avg", "exp_avg_sq"), parameter)
    if isinstance(optimizer, optim.Adafactor):
        if parameter.dim() < 2:
            return {"variance": parameter}
        return {"row_var": parameter[..., :1], "col_var": parameter[..., :1, :]}
    return None
