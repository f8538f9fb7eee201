"""What a training runs on, so that a checkpoint is not taken up by other code in silence."""

import hashlib
import importlib.metadata
import inspect
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

import ealinformer

# What a training computes with; tables, figures and readers may change under a run.
_PACKAGES = ("attention", "graphs", "models", "training")


def code_identity(model: type[nn.Module], *, device: str, processes: int) -> dict[str, str]:
    """Versions, a checksum of the sources that a training runs through, and the kind and number of processes."""
    identity = {
        "ealinformer": ealinformer.__version__,
        "sources": _sources_checksum(Path(inspect.getfile(model))),
        "torch": torch.__version__,
        "numpy": np.__version__,
        **{name: importlib.metadata.version(name) for name in ("basicts", "easy-torch")},
        "device": device,
        "processes": str(processes),
    }
    if device == "cuda":
        identity["cuda"] = f"{torch.version.cuda}, {torch.cuda.get_device_name()}"
    if device == "cpu":  # sums are split over threads, which changes their last bits
        identity["threads"] = str(torch.get_num_threads())
    return identity


@cache
def _sources_checksum(model_file: Path) -> str:
    package = Path(ealinformer.__file__).parent
    files = {path.relative_to(package): path for name in _PACKAGES for path in (package / name).rglob("*.py")}
    if not model_file.is_relative_to(package):
        folders = (model_file.parent, model_file.parent.parent / "layers")  # what baselines share
        files |= {path.relative_to(folder.parent): path for folder in folders for path in folder.rglob("*.py")}
    sha256 = hashlib.sha256()
    for name, path in sorted(files.items()):
        sha256.update(name.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return sha256.hexdigest()[:16]
