"""Checkpoints: written whole, read without running code, refused where they do not fit."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from ealinformer.errors import InputError
from ealinformer.files import replaced_whole
from ealinformer.training.config import RunConfig, describe

FORMAT = 1
_SERIES_KEYS = ("num_sensors", "interval_minutes", "channel", "null_value", "split")
_KEYS = {"format": int, "run": str, "model": dict, "epoch": int, "scaler": dict}
_MAX_DETAIL = 160  # characters of what torch says of weights that do not fit


def save_checkpoint(path: Path, run: RunConfig, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) with the config of its run.

    Raises:
        InputError: the folder cannot be written to.
    """
    content = {"format": FORMAT, "run": run.model_dump_json(), **state}
    with replaced_whole(path) as temporary:
        # Through memory, because torch's own writer makes a RuntimeError of a full disk.
        buffer = io.BytesIO()
        torch.save(content, buffer)
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path) -> tuple[RunConfig, dict[str, Any]]:
    """The config of the run and its state, on the CPU.

    Raises:
        InputError: the file is not there, damaged, or not a checkpoint of this project.
    """
    if not path.is_file():
        hint = ": it is a folder, name the best.pt or last.pt in it" if path.is_dir() else ""
        raise InputError(f"checkpoint {path} is not there{hint}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch compares no checksums
        if damaged:
            raise zipfile.BadZipFile(damaged)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a foreign file, zipfile and torch raise errors of every kind
        raise InputError(f"{path} cannot be read as a checkpoint: it is damaged or another kind of file") from error
    if not _is_ours(content):
        raise InputError(f"{path} is not a checkpoint of this project (format {FORMAT} is expected)")
    try:
        return RunConfig.model_validate_json(content["run"]), content
    except ValidationError as error:
        raise InputError(f"{path} holds the config of another version of this project: {describe(error)}") from error


def _is_ours(content: object) -> bool:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return False
    if any(not isinstance(content.get(key), kind) for key, kind in _KEYS.items()):
        return False
    return all(isinstance(content["scaler"].get(name), float) for name in ("mean", "std"))


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
        InputError: the tensors are not those of the model.
    """
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        short = detail if len(detail) <= _MAX_DETAIL else f"{detail[:_MAX_DETAIL]}..."
        raise InputError(f"{path} does not fit the model: {short}") from error
