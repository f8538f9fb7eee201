"""A trained model for others: weights as safetensors, a program that needs torch alone, and what their inputs mean."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from ealinformer import __version__
from ealinformer.errors import InputError
from ealinformer.files import sync_file, write_text
from ealinformer.models import Catalogue, find_model
from ealinformer.training.checkpoints.checkpoint import load_checkpoint, load_weights
from ealinformer.training.checkpoints.content import check_training
from ealinformer.training.config import RunConfig, describe
from ealinformer.training.exports.forecaster import (
    Comparison,
    Forecaster,
    compare_program,
    export_program,
    first_line,
    same_bits,
)
from ealinformer.training.host import config_of
from ealinformer.training.precision import stored_dtype
from ealinformer.training.runs.folder import read_json

WEIGHTS, PROGRAM, CONFIG = "model.safetensors", "forecaster.pt2", "config.json"
FORMAT = 1
_DAY_OF_WEEK = {
    "calendar": "day of week, Monday 0 to Sunday 6, / 7",
    "row": "days since the first reading of the series, modulo 7, / 7",
}


def export_checkpoint(
    checkpoint: Path, folder: Path, catalogue: Catalogue, *, datasets_dir: Path, program: bool = True
) -> tuple[dict[str, Any], Comparison | None]:
    """Write the weights of a checkpoint, unless told otherwise its program, and `config.json` to a new folder.

    Both are read back: the weights have to be those of the model bit by bit, and the program has to forecast the same
    (`compare_program`).

    Returns:
        What `config.json` says, and how the program compares (None without one).

    Raises:
        InputError: the checkpoint is none of a known model, the folder holds something or cannot be written to, or the
            model has no program that forecasts the same. Nothing is left then.
    """
    run, state = load_checkpoint(checkpoint)
    scaler = _scaler(checkpoint, state["scaler"])
    model = build_model(run, catalogue, datasets_dir)
    load_weights(checkpoint, model, state)
    model.eval()
    said = _describe(checkpoint, run, state, model)
    compared = None
    with _new_folder(folder) as staged:
        said["files"][WEIGHTS] = _write(staged / WEIGHTS, _weights(said, model))
        if program:
            said["files"][PROGRAM] = _write(staged / PROGRAM, export_program(run, Forecaster(model, **scaler)))
            compared = compare_program(staged / PROGRAM, run, model, scaler, datasets_dir)
        write_text(staged / CONFIG, json.dumps(said, indent=2, allow_nan=False) + "\n")
        _, _, weights = load_export(staged)
        expected = model.state_dict()
        if weights.keys() != expected.keys() or not all(same_bits(weights[name], expected[name]) for name in weights):
            raise InputError(f"{folder / WEIGHTS} does not read back as it was written")
    return said, compared


def load_export(folder: Path) -> tuple[RunConfig, dict[str, float], dict[str, Tensor]]:
    """The run, `mean` and `std` of its scaler, and the weights, from what `export_checkpoint` wrote.

    The program may be missing; where it is there, it has to be the one that was written.

    Raises:
        InputError: a file is missing, damaged or not the one that was written.
    """
    path = folder / CONFIG
    said = read_json(path)
    files = said.get("files")
    if said.get("format") != FORMAT or not isinstance(files, dict) or WEIGHTS not in files:
        raise InputError(f"{path} is not the config of an export (format {FORMAT} is expected)")
    scaler = _scaler(path, said.get("scaler"))
    try:
        run = RunConfig.model_validate_json(json.dumps(said.get("config")))
    except ValidationError as error:
        raise InputError(f"{path} holds the config of another version of this project: {describe(error)}") from error
    content = _read(folder / WEIGHTS, files[WEIGHTS])
    if (folder / PROGRAM).exists():
        _read(folder / PROGRAM, files.get(PROGRAM))
    try:
        return run, scaler, safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{folder / WEIGHTS} cannot be read as safetensors: {first_line(error)}") from error


def load_forecaster(
    folder: Path, catalogue: Catalogue, datasets_dir: Path = Path("datasets")
) -> tuple[RunConfig, Forecaster]:
    """The run of an export, and its model with scaler and weights, ready to forecast.

    A model that is built of a graph or of the training series reads them below `datasets_dir`; the exported program has
    them in itself.

    Raises:
        InputError: as `load_export`; or the weights are not those of the model that the config describes.
    """
    run, scaler, weights = load_export(folder)
    model = build_model(run, catalogue, datasets_dir)
    load_weights(folder / WEIGHTS, model, {"model": weights})
    return run, Forecaster(model, **scaler).eval()


def build_model(run: RunConfig, catalogue: Catalogue, datasets_dir: Path) -> nn.Module:
    """The model of a run on the CPU, its weights still random; data are needed by models that take a prior alone.

    Raises:
        InputError: the model or a parameter of it is not known or cannot be, or what it has to know of its sensors is
            not there.
    """
    entry = find_model(run.model, catalogue)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(stored_dtype(run.dtype))
        config = config_of(run, entry, datasets_dir / run.series.name)
        if not entry.takes_prior:
            with torch.device("meta"):  # checks all sizes without memory
                entry.model(config)
        return entry.model(config)
    except InputError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"model {run.model} cannot be built: {first_line(error)}") from error
    finally:
        torch.set_default_dtype(before)


def _describe(checkpoint: Path, run: RunConfig, state: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """What a stranger has to know to use the weights."""
    series, config = run.series, json.loads(run.model_dump_json())
    null_value = config["series"]["null_value"]  # a number or "NaN"
    return {
        "format": FORMAT,
        "ealinformer": __version__,
        "torch": str(torch.__version__),
        "model": run.model,
        "dataset": series.name,
        "simulated": series.simulated,
        "parameters": sum(p.numel() for p in model.parameters()),
        "epoch": state["epoch"],
        "validation": _validation_scores(checkpoint, state),
        "scaler": {name: state["scaler"][name] for name in ("mean", "std")},
        "inputs": {
            "inputs": {
                "what": f"readings of {series.target}, oldest first; a column a sensor, in the order of the raw file",
                "shape": ["B", run.input_len, series.num_sensors],
                "dtype": "float32",
                "unit": series.unit,
                "interval_minutes": series.interval_minutes,
                "null_value": null_value,
                "missing": "NaN is taken as the mean" + (f", {null_value} as it is" if null_value != "NaN" else ""),
                "scale": f"{PROGRAM} takes readings; the bare model takes (reading - mean) / std",
            },
            "inputs_timestamps": {
                "what": ["minutes since midnight / 1440", _DAY_OF_WEEK[series.day_of_week]],
                "shape": ["B", run.input_len, 2],
                "dtype": "float32",
            },
        },
        "output": {
            "what": f"the {run.output_len} readings that follow",
            "shape": ["B", run.output_len, series.num_sensors],
            "dtype": str(stored_dtype(run.dtype)).removeprefix("torch."),
            "unit": series.unit,
            "scale": f"{PROGRAM} gives readings; the bare model gives z-scores, a reading is z * std + mean",
        },
        "files": {},
        "config": config,
    }


def _validation_scores(checkpoint: Path, state: dict[str, Any]) -> dict[str, float | None]:
    """Those of these very weights: none where they were saved in the middle of an epoch."""
    training = state.get("training")
    if training is None:  # the best epoch's
        scores = {name.removeprefix("val/"): score for name, score in state.get("metrics", {}).items()}
    else:
        check_training(checkpoint, training)
        rows = [row for row in training["history"] if row.get("epoch") == state["epoch"] and not training["steps_done"]]
        columns = [name for name in (rows[-1] if rows else {}) if name.startswith("val_") and name != "val_seconds"]
        scores = {name.removeprefix("val_"): rows[-1][name] for name in columns}
    return {name: score if math.isfinite(score) else None for name, score in scores.items()}


def _weights(said: dict[str, Any], model: nn.Module) -> bytes:
    about = {name: str(said[name]) for name in ("model", "dataset", "epoch", "ealinformer")}
    # Copies, because safetensors refuses tensors that share memory.
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    return safetensors.torch.save(weights, metadata={"format": "pt", **about})


def _scaler(path: Path, said: object) -> dict[str, float]:
    """Raises InputError unless mean and std are numbers to divide by."""
    mean, std = (said.get("mean"), said.get("std")) if isinstance(said, dict) else (None, None)
    if not isinstance(mean, float) or not isinstance(std, float) or not (math.isfinite(mean) and 0 < std < math.inf):
        raise InputError(f"{path}: the scaler is {str(said)[:80]}, a finite mean and a positive std are expected")
    return {"mean": mean, "std": std}


def _write(path: Path, content: bytes) -> dict[str, Any]:
    path.write_bytes(content)
    sync_file(path)
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _read(path: Path, written: object) -> bytes:
    """The content of a file of an export; InputError unless it is the one that was written."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    expected = written.get("sha256") if isinstance(written, dict) else None
    if found != expected:
        raise InputError(f"{path} is not the file that was exported: its sha256 is {found}, {CONFIG} says {expected}")
    return content


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Give a hidden folder to write to, whose files come to be in `folder`, new or empty, once the block ends well.

    Raises:
        InputError: it holds something or cannot be written to; what was made is removed then.
    """
    # An empty folder stays the one it is, as it may be a mount point or where a shell stands.
    is_there = folder.is_dir()
    staged = (folder if is_there else folder.parent) / f".{folder.name}.{os.getpid()}.part"
    made = [path for path in (staged, *staged.parents) if not path.exists()]
    doing = "made"
    try:
        if is_there and any(folder.iterdir()):
            raise InputError(f"output folder {folder} already holds files; name another one with --output-dir")
        if not is_there and os.path.lexists(folder):
            raise InputError(f"output folder {folder} is a file, a new or an empty folder is expected")
        staged.mkdir(parents=True)
        doing = "written to"
        yield staged
        if is_there:
            # config.json last: without it the folder is no export.
            for path in sorted(staged.iterdir(), key=lambda path: path.name == CONFIG):
                os.replace(path, folder / path.name)
        else:
            os.replace(staged, folder)
    except OSError as error:
        raise InputError(f"output folder {folder} cannot be {doing}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        for path in made[1:]:
            with suppress(OSError):  # one that holds the export stays
                path.rmdir()
