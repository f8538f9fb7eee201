"""A process that has imported everything and forks one for every command line that it is asked to run.

Importing torch takes seconds, a fork none; and what is killed is a process all the same. It reads an order a line on
its standard input and answers each with a line: JSON both ways. It never trains itself, since what torch keeps for
gradients does not survive a fork.
"""

import atexit
import ctypes
import gc
import importlib.util
import json
import os
import select
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("train", "evaluate")
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18


def main() -> None:
    """Serve until standard input ends."""
    sys.path.insert(0, str(ROOT / "experiments"))
    modules = {name: _load(name) for name in SCRIPTS}
    _import_the_rest()
    gc.freeze()  # or the collector of every child would write to, and so copy, all memory
    _answer({"ready": os.getpid()})
    for line in sys.stdin:
        order = json.loads(line)
        if "run" in order:
            pid = os.fork()
            if pid == 0:
                _run(modules[order["run"]], order)
            _answer({"pid": pid})
        elif "wait" in order:
            _answer(_wait(order["wait"], order["seconds"]))
        else:
            _answer(_mount(**order))


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"command_line_{name}", ROOT / "experiments" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _import_the_rest() -> None:
    """What a training imports when it first needs it."""
    import matplotlib.pyplot  # noqa: F401
    import torch.utils.tensorboard

    with torch.device("meta"):
        torch.nn.Embedding(1, 1)  # more than a second's worth of torch


def _run(module: ModuleType, order: dict[str, Any]) -> NoReturn:
    from ealinformer.cli import run
    from tests.faults.fault import Conditions

    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, order["out"], os.O_WRONLY),
        (2, order["err"], os.O_WRONLY),
    ):
        descriptor = os.open(path, flags | (os.O_CREAT | os.O_APPEND if flags else 0), 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)  # without what was read ahead  # noqa: SIM115
    sys.argv = [f"{order['run']}.py", *order["arguments"]]
    os.chdir(order["cwd"])
    Conditions.of(order["conditions"]).set_up()
    status: object = 1
    try:
        run(module.main)
    except SystemExit as error:
        status = error.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    # As the interpreter ends, but for taking apart every object of the libraries, which would take a second.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def _answer(content: dict[str, Any]) -> None:
    print(json.dumps(content), flush=True)


def _wait(pid: int, seconds: float) -> dict[str, Any]:
    """How a child ended: its exit status, the negative number of the signal that ended it, None where it hangs."""
    started = time.monotonic()
    descriptor = os.pidfd_open(pid)
    try:
        ended, _, _ = select.select([descriptor], [], [], seconds)
    finally:
        os.close(descriptor)
    if not ended:
        os.kill(pid, 9)
    _, status = os.waitpid(pid, 0)
    return {
        "status": os.waitstatus_to_exitcode(status) if ended else None,
        "seconds": time.monotonic() - started,
    }


def _mount(kind: str, folder: str, size: int = 0) -> dict[str, Any]:
    """A small file system, another size for it, or a folder made read-only: for this process and its children alone."""
    options = f"size={size}".encode()
    with_flags = {
        "tmpfs": (b"tmpfs", 0, options),
        "resize": (None, _MS_REMOUNT, options),
        "writable": (None, _MS_REMOUNT | _MS_BIND, None),
        "read-only": (None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY, None),
    }
    try:
        _have_own_mounts()
        if kind == "read-only" and not os.path.ismount(folder):
            _system_call("mount", folder.encode(), folder.encode(), None, _MS_BIND, None)
        file_system, flags, data = with_flags[kind]
        _system_call("mount", b"none", folder.encode(), file_system, flags, data)
    except OSError as error:
        return {"error": f"no mounts here: {error}"}
    return {"mounted": folder}


def _have_own_mounts() -> None:
    if os.environ.get("OWN_MOUNTS"):
        return
    if os.geteuid() == 0:
        _system_call("unshare", _CLONE_NEWNS)
    else:
        user, group = os.geteuid(), os.getegid()
        _system_call("unshare", _CLONE_NEWNS | _CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _system_call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    os.environ["OWN_MOUNTS"] = "1"


def _system_call(name: str, *arguments: Any) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


if __name__ == "__main__":
    main()
