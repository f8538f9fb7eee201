"""All that the folder of a run says, and what two of them differ in."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ealinformer.data.spec import SeriesSpec
from ealinformer.errors import InputError
from ealinformer.training.config import Experiment, Recipe
from ealinformer.training.differences import flat
from ealinformer.training.runs.folder import BEST, LAST, PREVIOUS, STATUS, is_run
from ealinformer.training.runs.listing import DAMAGED, Damage, RunFiles, read_files, summarize, value_at

LAST_EPOCHS = 5
# What of run.json tells how a number came about, beside the config.
_BIRTH = ("commit", "versions", "machine", "environment", "data")
_COUNTS = ("windows", "parameters", "epoch", "epochs", "steps", "skipped_steps", "stopped_by", "processes")
_COSTS = ("seconds_per_epoch", "seconds_per_step", "seconds_in_all", "peak_memory_mib")


def run_details(folder: Path) -> dict[str, Any]:
    """What the files of a run say, with its checkpoints read to the end; imports torch for those.

    Raises:
        InputError: the folder holds no run.
    """
    check_is_run(folder)
    files = read_files(folder)
    summary = summarize(folder, files)
    damage = list(summary.damage)
    starts = Damage(folder, damage).unless(lambda: _starts(folder, files), list[dict[str, Any]]())
    return {
        **summary.as_dict(),
        "exit_reason": _exit_reason(files),
        "simulated": flat(files.config).get("series.simulated"),
        "parameters": files.metrics.get("parameters"),
        "settings": settings(files.config),
        **{key: files.status.get(key) for key in ("command", *_BIRTH, "process")},
        "starts": starts,
        "last_epochs": files.history[-LAST_EPOCHS:],
        "metrics": files.metrics or None,
        "checkpoints": [_checkpoint(folder / name) for name in (BEST, LAST, PREVIOUS) if (folder / name).exists()],
        "damage": damage,
    }


def compare_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """What runs differ in: config, code and machine, and all metrics with their differences to the first run's.

    Every line has `values`, one for each run in the order of `folders`, None where a run has none. `same_data` is False
    where series, windows or the checksum of the prepared data differ, so that the metrics do not compare.

    Raises:
        InputError: fewer than two runs, a folder that holds none, or one whose config or metrics are damaged.
    """
    if len(folders) < 2:
        raise InputError(f"two runs or more can be compared, got {len(folders)}")
    runs = []
    for folder in folders:
        check_is_run(folder)
        files = read_files(folder)
        if files.damage:
            raise InputError(f"{folder} is damaged: {files.damage[0]}")
        runs.append(files)
    births = [flat({key: run.status.get(key) for key in _BIRTH}) for run in runs]
    metrics = [_measured(run.metrics) for run in runs]
    return {
        "runs": [str(folder) for folder in folders],
        "states": [run.state for run in runs],
        "same_data": all(_same_data(runs[0], run) for run in runs[1:]),
        "config": _differing([flat(run.config) for run in runs]),
        "code": _differing(births),
        "metrics": [
            {"metric": key, "values": values, "differences": _differences(values)}
            for key, values in _side_by_side(metrics)
        ],
    }


def check_is_run(folder: Path) -> None:
    """Raises InputError where the folder holds no run."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "is not there"
        raise InputError(f"{folder} {found}, expected the folder of a run")
    if not is_run(folder):
        raise InputError(f"{folder} is not the folder of a run: it holds no {STATUS}")


def settings(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What of a config is not as by default: `{"recipe.lr": {"value": 0.002, "default": 0.001}}`, None for no default.

    The defaults are those of the schemas, not of a file in configs/.
    """
    defaults = _defaults()
    return {
        key: {"value": value, "default": defaults.get(key)}
        for key, value in flat(config).items()
        if key not in defaults or value != defaults[key]
    }


def _defaults() -> dict[str, Any]:
    def of(schema: type[BaseModel]) -> dict[str, Any]:
        fields = {name: field for name, field in schema.model_fields.items() if not field.is_required()}
        return {name: field.get_default(call_default_factory=True) for name, field in fields.items()}

    run = {key: value for key, value in of(Experiment).items() if key in ("input_len", "output_len", "seed")}
    nested = {"series": of(SeriesSpec), "recipe": of(Recipe), "max_steps": None, "model_params": {}, **run}
    return flat(json.loads(json.dumps(nested, default=lambda model: model.model_dump(mode="json"))))


def _starts(folder: Path, files: RunFiles) -> list[dict[str, Any]]:
    starts = value_at(folder / STATUS, files.status, list, "starts") or []
    if not all(isinstance(start, dict) for start in starts):
        raise InputError(f"{folder / STATUS}: starts is not a list of objects")
    if files.state == "killed" and starts and starts[-1].get("exit_reason") is None:
        starts = [*starts[:-1], {**starts[-1], "exit_reason": "killed"}]
    return starts


def _exit_reason(files: RunFiles) -> str | None:
    reason = files.status.get("exit_reason")
    if isinstance(reason, str):
        return reason
    if files.state in ("running", "killed", DAMAGED):
        return None
    # As run.json said it before there was an exit_reason.
    said = str(files.status.get("status")).partition(": ")[2] or files.metrics.get("stopped_by")
    return None if said is None else str(said)


def _checkpoint(path: Path) -> dict[str, Any]:
    from ealinformer.training.checkpoints.checkpoint import load_checkpoint  # imports torch

    try:
        state = load_checkpoint(path)[1]
    except InputError as error:
        problem = str(error).replace(f"{path} ", "")
        return {"file": path.name, "size_bytes": path.lstat().st_size, "whole": False, "problem": problem}
    return {"file": path.name, "size_bytes": path.stat().st_size, "whole": True, "epoch": state["epoch"]}


def _measured(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics in the order in which they are compared, flat."""
    kept = {key: metrics[key] for key in ("average", "horizons", *_COUNTS, *_COSTS) if key in metrics}
    return flat(kept)


def _side_by_side(contents: Sequence[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    keys = dict.fromkeys(key for content in contents for key in content)
    return [(key, [content.get(key) for content in contents]) for key in keys]


def _same_data(one: RunFiles, other: RunFiles) -> bool:
    said = [
        {
            "series": flat(run.config).get("series.name"),
            "windows": run.metrics.get("windows"),
            "checksum": flat(run.status).get("data.checksum"),
        }
        for run in (one, other)
    ]
    return all(said[0][key] == said[1][key] or None in (said[0][key], said[1][key]) for key in said[0])


def _differing(contents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = _side_by_side(contents)
    return [{"key": key, "values": values} for key, values in lines if any(one != values[0] for one in values[1:])]


def _differences(values: Sequence[Any]) -> list[float | None]:
    first = values[0]
    return [None, *(value - first if _is_number(value) and _is_number(first) else None for value in values[1:])]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
