"""A run that is killed ends with the bits of one that was not."""

import json
import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.faults import places
from tests.faults.conftest import FEW, MANY, Reference
from tests.faults.fault import Conditions, Fault, When
from tests.faults.processes import Ended, Started, start_fresh
from tests.faults.tally import SAME_BITS, Campaign, Case

FULL, QUICK = range(25), (1, 2, 4)
HOW = ("a process of its own", "a moment", "a call", "a moment", "a call")
Counts = dict[tuple[str, ...], dict[str, int]]


@pytest.fixture(scope="module")
def counts(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Counts:
    """How often each place is passed, for both ways of keeping checkpoints."""
    found: Counts = {}
    for minutes in (FEW, MANY):
        folder = tmp_path_factory.mktemp("counted")
        conditions = Conditions(counted=places.ALL, counts=str(folder / "counts.json"))
        ended = reference.run_under(conditions, folder / "run", *minutes)
        reference.expect_same_bits(folder / "run", ended)  # however often a checkpoint is written
        found[minutes] = json.loads((folder / "counts.json").read_text())
        assert all(found[minutes][place] for place in places.ALL), found[minutes]
    return found


def test_a_run_killed_at_any_moment_ends_with_the_same_bits(
    reference: Reference, counts: Counts, campaign: Callable[[str], Campaign], size: str, room: Path
) -> None:
    kills = campaign("kill -9")
    for number in FULL if size == "full" else QUICK:
        rng, how = kills.rng(number), HOW[number % len(HOW)]
        minutes = rng.choice((FEW, MANY))
        folder = room / str(number)
        often = "after every step" if minutes == MANY else "after every epoch"
        with kills.case(f"case {number}, checkpoints {often}") as case:
            arguments = reference.town.training(folder, *minutes)
            if how == "a process of its own":
                start, said = partial(start_fresh, room, "train", *arguments), "" if number == 0 else "parameters) on"
                case.what += ", a process of its own"
                _kill_later(rng, start, reference.seconds, said, folder, case)
                ended = start().wait()
            else:
                start = partial(reference.zygote.start, "train", *arguments)
                for kill in range(rng.choice((1, 1, 2, 3))):
                    if how == "a call":
                        _kill_at(rng, start, counts[minutes] if kill == 0 else dict.fromkeys(places.ALL, 3), case)
                    else:
                        _kill_later(rng, start, reference.seconds, "", folder if kill == 0 else None, case)
                ended = reference.end_of(folder, *minutes)
            reference.expect_same_bits(folder, ended)
            case.outcome = SAME_BITS
    kills.expect_no_findings()
    assert kills.counts[SAME_BITS] == len(kills.cases)


def _kill_at(rng: random.Random, start: Callable[..., Started], most: dict[str, int], case: Case) -> None:
    """Kill a run at one of the calls that it makes; one that goes on may not make as many any more."""
    place = rng.choice(places.ALL)
    when: tuple[When, ...] = ("before", "after", "half") if place == places.WRITE else ("before", "after")
    fault = Fault(place, rng.randint(1, most[place]), rng.choice(when), send="SIGKILL")
    case.what += f", {fault}"
    _expect_killed(start(conditions=Conditions(fault)).wait(), case)


def _kill_later(
    rng: random.Random, start: Callable[[], Started], seconds: float, said: str, again_in: Path | None, case: Case
) -> None:
    """Kill a run at a random moment within `seconds` of its start, or of what it says.

    One that is through by then is begun again in the same folder and killed earlier, where there is one.
    """
    while True:
        delay = rng.uniform(0, seconds)
        started = start()
        started.wait_until(said)
        time.sleep(delay)
        started.send("SIGKILL")
        ended = started.wait()
        if ended.status != 0 or again_in is None:
            break
        shutil.rmtree(again_in)
        seconds = delay / 2
    case.what += f", SIGKILL {delay:.3f} s after its {'first line' if said else 'start'}"
    _expect_killed(ended, case)


def _expect_killed(ended: Ended, case: Case) -> None:
    if ended.status == 0:
        case.what += " (it had finished)"
    else:
        assert ended.status == -9, f"it was to be killed and ended with {ended}"
