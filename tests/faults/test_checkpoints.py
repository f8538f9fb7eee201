"""Checkpoints that were cut, altered or forged: noticed, named, never run, and gone on without where that can be."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import FEW, MANY, Reference
from tests.faults.damage import damaged
from tests.faults.fault import Conditions, Fault
from tests.faults.places import STEP
from tests.faults.tally import REFUSED, SAME_BITS, Campaign

CASES = {"quick": 30, "full": 200}
# What is damaged in turn. Going on from the previous checkpoint takes longer than a refusal.
TURNS = ("last", "best", "last", "both", "best", "last", "best", "best", "last", "best")


@pytest.fixture(scope="module")
def killed(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed in its last epoch but one, with both checkpoints within it."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    fault = Fault(STEP, 40, send="SIGKILL")
    ended = reference.run_under(Conditions(fault), folder, *MANY)
    assert ended.status == -9, ended
    return folder


def test_a_damaged_checkpoint_is_named_and_never_run(
    reference: Reference, killed: Path, campaign: Callable[[str], Campaign], size: str, room: Path
) -> None:
    mutations = campaign("checkpoints")
    for number in range(CASES[size]):
        rng, marker = mutations.rng(number), room / f"marker{number}"
        folder, target = room / "run", TURNS[number % len(TURNS)]
        shutil.rmtree(folder, ignore_errors=True)
        with mutations.case(f"case {number}, {target}") as case:
            shutil.copytree(reference.folder if target == "best" else killed, folder)
            before = _damage(rng, folder, ("last", "previous") if target == "both" else (target,), marker)
            case.what += f": {before}"
            if target == "best":
                ended = reference.zygote.run("evaluate", *reference.town.evaluation(folder / "best.pt"))
                names = "best.pt"
            else:
                ended = reference.end_of(folder, *FEW)
                names = "last.pt"
            assert not marker.exists(), "its code was run"
            # The record of the code that wrote it has no shape of its own: there the folder is named.
            named = str(folder / names) in ended.err or f"{folder}: the checkpoint is of other code" in ended.err
            assert named, f"it is not named: {ended}"
            if target == "last" and ended.status == 0:
                reference.expect_same_bits(folder, ended)
                case.outcome = SAME_BITS
            else:
                assert ended.was_refused, f"it ended with {ended}"
                case.outcome = REFUSED
    mutations.expect_no_findings()


def _damage(rng: random.Random, folder: Path, names: tuple[str, ...], marker: Path) -> str:
    said = []
    for name in names:
        path = folder / f"{name}.pt"
        what, content = damaged(rng, path.read_bytes(), marker)
        path.write_bytes(content)
        said.append(what)
    return "; ".join(said)
