"""SIGTERM and Ctrl-C, wherever a run is: a checkpoint, one line, the right status, and the same bits later."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.conftest import Reference
from tests.faults.fault import Conditions, Fault
from tests.faults.places import BUILD, CHECK_DATA, DRAW, END, EVALUATE, REPLACE, SAVE_PREDICTIONS, STEP, VALIDATE, WRITE
from tests.faults.processes import Ended, start_fresh
from tests.faults.tally import SAME_BITS, Campaign

STATUS = {"SIGTERM": 143, "SIGINT": 130}
SECONDS = 10.0  # that leaving may take, on a busy machine
# In the order in which a run comes through them.
PHASES = {
    "the data check": Fault(CHECK_DATA),
    "building": Fault(BUILD),
    "the first step": Fault(STEP),
    "an epoch": Fault(STEP, 17),
    "a validation": Fault(VALIDATE, 3),
    "a checkpoint": Fault(WRITE, 4, "half"),
    "a rename": Fault(REPLACE, 12, "after"),
    "the last validation": Fault(VALIDATE, 7),
    "scoring": Fault(EVALUATE),
    "writing forecasts": Fault(SAVE_PREDICTIONS),
    "drawing": Fault(DRAW),
    "the last word": Fault(END),
}
QUICK = (("the data check", "SIGINT"), ("an epoch", "SIGTERM"), ("a checkpoint", "SIGINT"), ("scoring", "SIGTERM"))
FULL = tuple((phase, name) for phase in PHASES for name in STATUS)
# All is written, so nothing is lost by ending well.
NEARLY_DONE = ("writing forecasts", "drawing", "the last word")


def status_of(folder: Path) -> str:
    """What run.json says."""
    return str(json.loads((folder / "run.json").read_text())["status"])


def expect_clear_words(ended: Ended, name: str) -> None:
    """One line of what happened, in words."""
    assert not ended.has_traceback, f"it says {ended}"
    said = [line for line in ended.err.splitlines() if f"interrupted by {name}" in line]
    assert len(said) == 1, f"{len(said)} lines say so: {ended}"


def test_a_signal_in_any_phase_ends_in_good_order(
    reference: Reference, campaign: Callable[[str], Campaign], size: str, room: Path
) -> None:
    signals = campaign("SIGTERM, SIGINT")
    for number, (phase, name) in enumerate(FULL if size == "full" else QUICK):
        folder, moment = room / str(number), room / f"moment{number}"
        with signals.case(f"{name} in {phase}") as case:
            fault = replace(PHASES[phase], send=name, moment=str(moment))
            ended = reference.run_under(Conditions(fault), folder)
            seconds = time.time() - moment.stat().st_mtime
            if ended.status != 0 or phase not in NEARLY_DONE:
                assert ended.status == STATUS[name], f"it ended with {ended}"
                expect_clear_words(ended, name)
                assert not folder.exists() or status_of(folder) == "interrupted", status_of(folder)
                assert seconds < SECONDS, f"it took {seconds:.1f} s"
                ended = reference.end_of(folder)
            reference.expect_same_bits(folder, ended)
            case.outcome = SAME_BITS
    signals.expect_no_findings()


@pytest.mark.parametrize("name", STATUS)
def test_a_signal_during_the_imports_leaves_nothing_behind(
    reference: Reference, name: str, size: str, room: Path
) -> None:
    if size == "quick" and name == "SIGTERM":
        pytest.skip("the other signal stands for both in the quick ones")
    started = start_fresh(room, "train", *reference.town.training(room / "runs" / "run"))
    time.sleep(0.4)
    started.send(name)
    ended = started.wait()
    assert ended.status in (STATUS[name], STATUS[name] - 128, 128 - STATUS[name]), ended
    assert not ended.has_traceback, ended
    assert not (room / "runs").exists()


def test_a_second_ctrl_c_leaves_at_once(reference: Reference, room: Path) -> None:
    folder = room / "run"
    hangs = Fault(STEP, 17, send="SIGINT", sleep=60)
    started = reference.zygote.start("train", *reference.town.training(folder), conditions=Conditions(hangs))
    started.wait_until("once more leaves at once")
    sent = time.monotonic()
    started.send("SIGINT")
    ended = started.wait()
    assert time.monotonic() - sent < 30  # of the 60 that it hangs
    assert ended.status == 130, ended
    assert not ended.has_traceback, ended
    reference.expect_same_bits(folder, reference.end_of(folder))


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_a_signal_that_was_ignored_from_the_start_stays_ignored(
    reference: Reference, name: str, size: str, room: Path
) -> None:
    if size == "quick" and name == "SIGHUP":
        pytest.skip("the other signal stands for both in the quick ones")
    fault = Fault(STEP, 17, send=name)
    ended = reference.run_under(Conditions(fault, ignored=(name,)), room / "run")
    reference.expect_same_bits(room / "run", ended)
