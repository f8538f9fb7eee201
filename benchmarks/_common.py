"""What the benchmarks of whole models share: the models by short names, options and their checks, a file of rows."""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

import baselines
from ealinformer import models
from ealinformer.cli import ArgumentParser
from ealinformer.errors import InputError, suggestion
from ealinformer.files import write_text
from ealinformer.measure import provenance
from ealinformer.measure.ceilings import DTYPES, Ceilings, measure_ceilings
from ealinformer.measure.cgroups import cgroup_available_bytes
from ealinformer.measure.isolated import isolated
from ealinformer.measure.memory import available_bytes
from ealinformer.measure.train_step import COMPILE, SEED, Setting
from ealinformer.models import Catalogue

GIB = 1024**3
# Enough room for the system and for this process.
SHARE_OF_AVAILABLE_MEMORY = 0.85

CATALOGUE: Catalogue = {**models.MODELS, **baselines.MODELS}
# Short name: what tables call it, and the keys of its config that are not at their defaults.
NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "explicit": ("STAEformer, explicit softmax", {"attention": "softmax", "layers": "plain"}),
    "fused": ("STAEformer, fused softmax", {"layers": "plain"}),
    "fused-lean": ("STAEformer, fused softmax, lean", {"layers": "lean"}),
    "elinformer": ("ELinFormer", {"layers": "lean"}),
    "elinformer-plain": ("ELinFormer, plain", {"layers": "plain"}),
    "elinformer-gaussian": ("ELinFormer, gaussian", {"entropy": "gaussian", "layers": "lean"}),
    "elinformer-recompute": ("ELinFormer, recompute", {"layers": "lean", "recompute": True}),
    "identity": ("identity attention", {"attention": "identity", "layers": "lean"}),
}
EXPLICIT, FUSED = NAMES["explicit"][0], NAMES["fused"][0]


def config_settings(short: str) -> tuple[str, dict[str, Any]]:
    """Name of the model in the catalogue, and the keys of its config that are not at their defaults."""
    return "STAEformer" if short.startswith(("explicit", "fused")) else "ELinFormer", NAMES[short][1]


def model_and_config(short: str, num_sensors: int, **sizes: Any) -> tuple[type[nn.Module], Any]:
    """Class and config of a model by its short name."""
    name, settings = config_settings(short)
    entry = CATALOGUE[name]
    return entry.model, entry.build_config(num_features=num_sensors, **sizes, **settings)


def build(title: str, num_sensors: int) -> nn.Module:
    """A model by what tables call it."""
    short = next(name for name, (known, _) in NAMES.items() if known == title)
    model, config = model_and_config(short, num_sensors)
    return model(config)


def add_model_options(parser: ArgumentParser, models: Sequence[str]) -> None:
    """Which models, and how a step of them is computed."""
    chosen = ",".join(models)
    parser.add_argument("--models", default=chosen, metavar="NAME,...", help=f"of {', '.join(NAMES)} ({chosen})")
    parser.add_argument("--dtype", default="float32", metavar="D", help=f"one of {', '.join(DTYPES)} (float32)")
    parser.add_argument(
        "--no-fast-malloc",
        dest="fast_malloc",
        action="store_false",
        help="let glibc give freed memory back to the system, as it does by itself",
    )


def add_options(parser: ArgumentParser) -> None:
    """The options that all of them have."""
    parser.add_argument("--threads", type=int, metavar="T", help="of the CPU (as many as torch takes by itself)")
    parser.add_argument("--cuda", action="store_true", help="on the GPU in place of the CPU")
    parser.add_argument("--memory-limit", type=float, metavar="GIB", help="of a process (0.85 of what is free)")
    parser.add_argument("--row", type=Path, metavar="FILE", help="write the rows as JSON; table and figures beside it")


def check_options(given: Namespace) -> None:
    """Raises InputError; turns `models` into short names, and chooses threads and memory where they are not given."""
    if "models" in given:
        given.models = listed("--models", given.models, NAMES)
    at_least_one(given, "batch_size", "rounds", "threads", "steps")
    if given.memory_limit is not None and not 0 < given.memory_limit < float("inf"):
        raise InputError(f"--memory-limit has to be above 0, got {given.memory_limit}")
    if given.row is not None and given.row.suffix != ".json":
        raise InputError(f"{given.row}: a name that ends in .json is expected")
    if given.cuda and not torch.cuda.is_available():
        raise InputError(f"--cuda: no CUDA device (torch {torch.__version__})")
    for option, known in (("dtype", DTYPES), ("compile", COMPILE)):
        value = getattr(given, option, known[0])
        if value not in known:
            raise InputError(f"--{option} is one of {', '.join(known)}, got {value!r}{suggestion(value, known)}")
    if getattr(given, "dtype", "") == "tf32" and not given.cuda:
        raise InputError("--dtype tf32 needs --cuda: no CPU has it")
    given.threads = given.threads or torch.get_num_threads()
    torch.set_num_threads(given.threads)  # for the birth certificate; the work is done by other processes


def at_least_one(given: Namespace, *options: str) -> None:
    """Raises InputError where one of the options, as far as they are there, is below 1."""
    for option in options:
        value = getattr(given, option, None)
        if value is not None and value < 1:
            raise InputError(f"--{option.replace('_', '-')} has to be at least 1, got {value}")


def listed(option: str, text: str, known: Mapping[str, object] | Sequence[str]) -> tuple[str, ...]:
    """The parts of `a,b,c`, each of them known and there once. Raises InputError."""
    parts = tuple(part.strip() for part in text.split(","))
    for part in parts:
        if part not in known:
            raise InputError(f"{option} is a list of {', '.join(known)}, got {part!r}{suggestion(part, known)}")
    if len(set(parts)) < len(parts):
        raise InputError(f"{option} names one twice, got {text!r}")
    return parts


def memory_limit(given: Namespace) -> int | None:
    """Bytes that a process may take; None: the whole device."""
    if given.memory_limit is not None:
        return round(given.memory_limit * GIB)
    if given.cuda:
        return None
    known = [room for room in (available_bytes(), cgroup_available_bytes()) if room is not None]
    return int(SHARE_OF_AVAILABLE_MEMORY * min(known)) if known else None


def setting_of(given: Namespace, num_sensors: int) -> Setting:
    """How a step of a model with so many sensors is taken."""
    return Setting(
        num_sensors=num_sensors,
        batch_size=given.batch_size,
        dtype=given.dtype,
        device="cuda" if given.cuda else "cpu",
        threads=given.threads,
        compile=getattr(given, "compile", "off"),
        fast_malloc=given.fast_malloc,
    )


def ceilings_of(setting: Setting) -> Ceilings:
    """The ceilings of a setting's device and dtype, measured now, in a process of their own."""
    outcome = isolated(measure_ceilings, setting.device, setting.dtype, setting.threads)
    if outcome.status != "ok":
        raise InputError(f"the machine's ceilings cannot be measured: {outcome.reason}")
    return outcome.value


def content_of(
    kind: str, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], **more: Any
) -> dict[str, Any]:
    """What a file of rows holds."""
    seeds = {"kind": kind, "random_values": True, "seed": SEED}
    return {**seeds, "settings": dict(settings), **more, "rows": list(rows), **provenance()}


def write_rows(path: Path, content: Mapping[str, Any], table: str) -> None:
    """The rows, and the table beside them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=2) + "\n")
    write_text(path.with_suffix(".txt"), table + "\n")


def device_note(machine: Mapping[str, Any], setting: Setting) -> str:
    """The device, for figures."""
    return ", ".join(machine["gpus"]) if setting.device == "cuda" else f"{machine['cpu']}, threads: {setting.threads}"


def as_settings(setting: Setting) -> dict[str, Any]:
    """What all rows of a run have in common."""
    return {key: value for key, value in asdict(setting).items() if key != "num_sensors"}
