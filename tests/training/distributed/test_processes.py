"""The launcher of ranks, with real processes: how they ended is said once, and none is left."""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ealinformer.errors import InputError
from ealinformer.training.distributed import groups as distribution
from ealinformer.training.distributed.processes import start_processes

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch._dynamo", "ealinformer.training.distributed.processes", "pytest"])
SECONDS = 20  # none of these needs more than a few
# Ranks need no torch where only their ends matter.
RANK = "import os, signal, sys, time; rank = int(os.environ['RANK'])\n"


class Launcher:
    """A process of its own session that starts ranks which run the Python code `script`."""

    def __init__(self, folder: Path, script: str, processes: int = 2, **options: int) -> None:
        self.output, self.errors = folder / "stdout", folder / "stderr"
        self.folder = folder
        self.process = CONTEXT.Process(target=self.launch, args=(script, processes, options))
        self.process.start()

    def launch(self, script: str, processes: int, options: dict[str, int]) -> None:
        os.setsid()
        os.environ.pop("OMP_NUM_THREADS", None)
        os.environ["PYTHONPATH"] = str(Path(distribution.__file__).parents[3])
        for number, path in enumerate((self.output, self.errors), start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        os.chdir(self.folder)
        tempfile.tempdir = str(self.folder)  # what is left behind where the launcher is killed
        command = [sys.executable, "-c", RANK + script]
        # Not sys.exit, which multiprocessing handles: the status is that of the process.
        status = start_processes(command, processes, **options)
        sys.stderr.flush()
        os._exit(status)

    def status(self) -> int | None:
        self.process.join(SECONDS)
        code = self.process.exitcode
        self.process.kill()
        return code

    def wait_for(self, *names: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not all((self.folder / name).exists() for name in names):
            assert time.monotonic() < deadline, self.errors.read_text()
            time.sleep(0.02)


BAD_INPUT = "print('error: no such file', file=sys.stderr); sys.exit(2)\n"
OTHERS_WAIT = "if rank != {rank}: time.sleep(100)\n"
ENDS = {
    "all is well": ("", 0, ""),
    "bad input of rank 0": (OTHERS_WAIT.format(rank=0) + BAD_INPUT, 2, "error: no such file\n"),
    "bad input of rank 1": (OTHERS_WAIT.format(rank=1) + BAD_INPUT, 2, "error: no such file\n"),
    "bad input of both": (BAD_INPUT, 2, "error: no such file\n"),
    "killed": (
        OTHERS_WAIT.format(rank=1) + "os.kill(os.getpid(), 9)",
        137,
        "error: rank 1 ended with exit code -9 (SIGKILL); the run is ended\n",
    ),
    "a rank that lost another is no reason": (
        "signal.signal(15, signal.SIG_IGN); open(f'ready-{rank}', 'w').close()\n"
        "while not os.path.exists('ready-0'): time.sleep(0.01)\n"
        "time.sleep((0.5, 0)[rank]); print(rank, file=sys.stderr); sys.exit((69, 3)[rank])",
        1,
        "0\n1\nerror: rank 1 ended with exit code 3; the run is ended\n",
    ),
    "unless there is no other": (
        OTHERS_WAIT.format(rank=1) + "sys.exit(69)",
        1,
        "error: the ranks lost each other; the run is ended\n",
    ),
    "ranks that a signal ended one by one": ("sys.exit(143)", 143, ""),
}


@pytest.mark.parametrize(("script", "status", "said"), ENDS.values(), ids=ENDS)
def test_how_ranks_ended_is_said_once(tmp_path: Path, script: str, status: int, said: str) -> None:
    launcher = Launcher(tmp_path, script)
    assert launcher.status() == status
    assert launcher.errors.read_text() == said


def test_an_exception_of_a_rank_is_shown(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, OTHERS_WAIT.format(rank=1) + "1 / 0")
    assert launcher.status() == 1
    lines = launcher.errors.read_text().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == [
        "ZeroDivisionError: division by zero",
        "error: rank 1 ended with exit code 1; the run is ended",
    ]


def test_ranks_know_who_they_are_and_share_the_processors(tmp_path: Path) -> None:
    names = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE OMP_NUM_THREADS"
    launcher = Launcher(
        tmp_path, f"open(f'env-{{rank}}', 'w').write(' '.join(os.environ[n] for n in '{names}'.split()))"
    )
    assert launcher.status() == 0
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert [(tmp_path / f"env-{rank}").read_text() for rank in (0, 1)] == [f"0 2 0 2 {threads}", f"1 2 1 2 {threads}"]


def test_failed_ranks_are_started_again_as_often_as_asked(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, "sys.exit(int(os.environ['TORCHELASTIC_RESTART_COUNT']) < 2)", max_restarts=2)
    assert (launcher.status(), launcher.errors.read_text()) == (0, "")


SAVES = """
received = []
def save(number, frame):
    received.append(number)
    open(f'received-{rank}-{len(received)}', 'w').close()
    if len(received) == 2: os._exit(9)
for number in (1, 2, 15): signal.signal(number, save)
open(f'ready-{rank}', 'w').close()
while not received: time.sleep(0.02)
time.sleep(SECONDS)
open(f'saved-{rank}', 'w').write(str(received)); sys.exit(128 + received[0])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_every_rank_once_and_all_may_save(tmp_path: Path, number: signal.Signals) -> None:
    """To the whole group of the launcher, as a terminal sends Ctrl-C."""
    launcher = Launcher(tmp_path, SAVES.replace("SECONDS", "0.5"))
    launcher.wait_for("ready-0", "ready-1")
    assert launcher.process.pid is not None
    os.killpg(launcher.process.pid, number)
    assert launcher.status() == 128 + number
    assert [(tmp_path / f"saved-{rank}").read_text() for rank in (0, 1)] == [f"[{int(number)}]"] * 2
    assert launcher.errors.read_text() == ""


def test_a_second_signal_reaches_the_ranks_too(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, SAVES.replace("SECONDS", "100"))
    assert launcher.process.pid is not None
    for names in (["ready-0", "ready-1"], ["received-0-1", "received-1-1"]):
        launcher.wait_for(*names)
        os.kill(launcher.process.pid, signal.SIGINT)
    assert launcher.status() == 130
    assert (tmp_path / "received-1-2").exists()
    assert launcher.errors.read_text() == ""


JOINED = """
from ealinformer.training.distributed.groups import agree_max, join
from ealinformer.training.distributed.ranks import ranks_from_environment
with join(ranks_from_environment(), cuda=False):
    agree_max(0)
    open(f'pid-of-{rank}', 'w').write(str(os.getpid()))
    os.rename(f'pid-of-{rank}', f'joined-{rank}')
    while True:
        agree_max(0)
        time.sleep(0.01)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked up in /proc")
@pytest.mark.parametrize("killed", ["rank 1", "launcher"])
def test_kill_9_of_a_rank_or_the_launcher_leaves_no_process(tmp_path: Path, killed: str) -> None:
    launcher = Launcher(tmp_path, JOINED)
    launcher.wait_for("joined-0", "joined-1")
    ranks = [int((tmp_path / f"joined-{rank}").read_text()) for rank in (0, 1)]
    victim = launcher.process.pid if killed == "launcher" else ranks[1]
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    if killed == "launcher":
        assert launcher.status() == -signal.SIGKILL
    else:
        assert launcher.status() == 128 + signal.SIGKILL
        lost, reason = launcher.errors.read_text().splitlines()
        assert lost.startswith("rank 0 has lost another rank (")
        assert reason == "error: rank 1 ended with exit code -9 (SIGKILL); the run is ended"
    deadline = time.monotonic() + SECONDS
    while (left := [pid for pid in ranks if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def test_no_processes_are_no_run() -> None:
    with pytest.raises(InputError, match="0 processes"):
        start_processes(["true"], 0)
