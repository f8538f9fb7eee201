"""The birth certificate of a number: machine, versions, commit and what differs from it, command, date."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import ealinformer

_PACKAGES = ("basicts", "easy-torch", "numpy")
# Settings of threads, of memory allocation and of torchrun, which change what is measured.
_VARIABLES = (
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "KMP_AFFINITY",
    "GOMP_CPU_AFFINITY",
    "GLIBC_TUNABLES",
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TOP_PAD_",
    "MALLOC_TRIM_THRESHOLD_",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
)
_MAX_NAMES = 1000  # of untracked files
_GIT_SECONDS = 60


def provenance() -> dict[str, Any]:
    """Machine, versions, settings of the environment, commit, command and UTC date.

    The commit has `+dirty` behind it when tracked files differ from it.
    """
    return {
        "machine": _machine(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "ealinformer": ealinformer.__version__,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "commit": _commit(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "command": shlex.join([Path(sys.executable).name, *_words()]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _words() -> list[str]:
    """The command line as it was typed: of `python -m module` Python keeps the path of a file."""
    given = sys.orig_argv
    return given[1:] if given[1:2] == ["-m"] and given[3:] == sys.argv[1:] else sys.argv


def _machine() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"cpu": _cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpus": gpus}


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def code_changes(*, limit: int = 1_000_000) -> str | None:
    """What the checkout differs in from its commit: the names of untracked files, and `git diff` of tracked ones.

    Of a diff longer than `limit` bytes the beginning is kept and the end says so. None where nothing differs, and where
    the package is in no checkout.
    """
    try:
        untracked = _git("ls-files", "--others", "--exclude-standard").splitlines()
        diff, whole = _beginning_of_diff(limit)
    except (OSError, subprocess.SubprocessError):
        return None
    if not untracked and not diff:
        return None
    # Lines before the first `diff --git` are no part of it for git apply and patch.
    names = [*untracked[:_MAX_NAMES], *(["..."] if len(untracked) > _MAX_NAMES else [])]
    head = [f"# untracked files, not in this diff: {len(untracked)}", *(f"#   {name}" for name in names), ""]
    cut = "" if whole else f"\n# cut here: the diff is longer than {limit:,} bytes\n"
    return "\n".join(head if untracked else []) + diff + cut


def installed_packages() -> list[str]:
    """`name==version` of every installed distribution, in alphabetical order."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name and distribution.version:  # an interrupted pip leaves folders without either
            found.setdefault(name, distribution.version)  # of two on the path, the first one is imported
    return sorted((f"{name}=={version}" for name, version in found.items()), key=str.lower)


def _commit() -> str | None:
    try:
        commit = _git("rev-parse", "HEAD")
        return f"{commit}+dirty" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None  # an installed package, or no git


def _git(*arguments: str) -> str:
    command = _git_command(*arguments)
    done = subprocess.run(command, capture_output=True, check=True, env=_git_environment(), timeout=_GIT_SECONDS)
    return done.stdout.decode(errors="replace").strip()


def _beginning_of_diff(limit: int) -> tuple[str, bool]:
    """At most `limit` bytes of what tracked files differ in, and whether that is all."""
    # No tool, colour or prefix of the user's own: the diff is to be applied by anyone.
    options = ("--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/")
    command = _git_command("diff", *options, "HEAD", "--")
    environment = _git_environment()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        found = process.stdout.read(limit + 1)
        process.stdout.close()  # ends git where it has more to say
    if len(found) <= limit and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return found[:limit].decode(errors="replace"), len(found) <= limit


def _git_command(*arguments: str) -> list[str]:
    return ["git", "-C", str(Path(ealinformer.__file__).parent.parent), "-c", "core.quotePath=off", *arguments]


def _git_environment() -> dict[str, str]:
    return {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # looking at a checkout is not to stop a commit in it
