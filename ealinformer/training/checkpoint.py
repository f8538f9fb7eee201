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
_KEYS = ("format", "run", "model", "epoch", "scaler")


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
        raise InputError(f"checkpoint {path} is not there")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch compares no checksums
        if damaged:
            raise zipfile.BadZipFile(damaged)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a foreign file, zipfile and torch raise errors of every kind
        raise InputError(f"{path} cannot be read as a checkpoint: it is damaged or another kind of file") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or any(key not in content for key in _KEYS):
        raise InputError(f"{path} is not a checkpoint of this project (format {FORMAT} is expected)")
    try:
        return RunConfig.model_validate_json(content["run"]), content
    except ValidationError as error:
        raise InputError(f"{path} holds the config of another version of this project: {describe(error)}") from error


def check_fits(path: Path, saved: RunConfig, wanted: RunConfig) -> None:
    """Refuse a checkpoint of another model, data set, number of sensors or windows.

    Raises:
        InputError: names the first difference.
    """
    differences = (
        ("model", saved.model, wanted.model, f"; add --model {saved.model}"),
        ("data set", saved.series.name, wanted.series.name, ""),
        ("num_sensors", saved.series.num_sensors, wanted.series.num_sensors, ""),
        ("input_len", saved.input_len, wanted.input_len, f"; add --set input_len={saved.input_len}"),
        ("output_len", saved.output_len, wanted.output_len, f"; add --set output_len={saved.output_len}"),
    )
    for name, found, expected, hint in differences:
        if found != expected:
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
        raise InputError(f"{path} does not fit the model: {detail}") from error
