"""The first signal is kept for the next step, the second ends the process."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from ealinformer.cli import run
from ealinformer.errors import Interrupted
from ealinformer.training.interrupts import deferred

WAITING = """
import sys, time
from ealinformer.training.interrupts import deferred
with deferred() as interrupts:
    print("ready", flush=True)
    while not interrupts.signal:
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep(30)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_kept_and_raised_when_asked_for(number: signal.Signals, capfd) -> None:
    handler = signal.getsignal(number)
    with deferred() as interrupts:
        interrupts.check()
        os.kill(os.getpid(), number)
        assert interrupts.signal == number
        with pytest.raises(Interrupted) as caught:
            interrupts.check()
    assert caught.value.number == number
    assert f"{number.name}: saving and leaving; once more leaves at once" in capfd.readouterr().err
    assert signal.getsignal(number) == handler


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_the_process_at_once(second: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(second)
    assert process.wait(timeout=5) == 128 + second


def test_a_signal_that_comes_twice_at_once_is_one_where_that_is_asked_for() -> None:
    with deferred(seconds_apart=5) as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # would end the process
        assert interrupts.signal == signal.SIGTERM


def test_a_terminal_that_is_gone_does_not_lose_the_signal() -> None:
    """Whose closing is what SIGHUP tells of; `| tee log` is gone after the same Ctrl-C, too."""
    code = WAITING.replace('print("asked", flush=True)', 'print("asked", flush=True)\n    sys.exit(7)')
    reader, writer = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=writer, text=True)
    os.close(writer)
    os.close(reader)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    assert process.wait(timeout=5) == 7


def test_the_status_tells_where_standard_error_is_gone() -> None:
    code = "import signal\nfrom ealinformer.cli import run\nfrom ealinformer.errors import Interrupted\n"
    code += "def main(arguments):\n    raise Interrupted(signal.SIGTERM)\nrun(main)"
    reader, writer = os.pipe()
    os.close(reader)
    assert subprocess.run([sys.executable, "-c", code], stderr=writer).returncode == 143
    os.close(writer)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As nohup has it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with deferred() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.signal == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_leaves_the_handlers_as_they_are() -> None:
    seen = []

    def work() -> None:
        with deferred():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_command_lines_leave_with_the_status_of_the_signal(number: int, status: int, capsys) -> None:
    def main(arguments: object) -> None:
        raise Interrupted(number, "last.pt holds epoch 3")

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == status
    assert capsys.readouterr().err == f"interrupted by {signal.Signals(number).name}: last.pt holds epoch 3\n"
