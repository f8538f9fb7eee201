"""Damaged files of every reader are read or refused in one line; `make fuzz` tries more of them."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import campaign
from tests.fuzz.readers import TARGETS, Target
from tests.fuzz.worker import Worker

NUM_MUTANTS = 25


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as process:
        yield process


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_whole_hostile_and_damaged_files_are_read_or_refused(target: Target, worker: Worker, tmp_path: Path) -> None:
    lines: list[str] = []
    tally = campaign.run(
        target,
        worker,
        seed=2024,
        keep=tmp_path,
        until=time.monotonic() + 60,
        max_mutants=NUM_MUTANTS,
        report=lines.append,
    )
    assert not tally.findings, "\n".join(lines)
    assert tally.counts["valid"], "not even the whole files are read"
    assert tally.counts.total() >= NUM_MUTANTS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_mutants_depend_on_the_seed_alone_and_are_under_one_mebibyte(target: Target, tmp_path: Path) -> None:
    mutants = campaign.Mutants(target, tmp_path, seed=1)
    numbers = range(mutants.num_first + 60)
    contents = [mutants.content(number) for number in numbers]
    assert max(map(len, contents)) < 2**20
    assert contents == [mutants.content(number) for number in numbers]
    (tmp_path / "other").mkdir()
    other = campaign.Mutants(target, tmp_path / "other", seed=2)
    assert contents[mutants.num_first :] != [other.content(number) for number in numbers][mutants.num_first :]
