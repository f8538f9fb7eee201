"""A full disk, a folder that cannot be written to, data that vanish: one line, and the last good state is kept."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.bits import unlike
from tests.faults.conftest import FEW, Reference
from tests.faults.fault import Conditions, Fault
from tests.faults.places import (
    BEGIN,
    BUILD,
    CHECK_DATA,
    DRAW,
    END,
    EVALUATE,
    REPLACE,
    SAVE_PREDICTIONS,
    STEP,
    SYNC,
    VALIDATE,
    WRITE,
)
from tests.faults.processes import Ended
from tests.faults.tally import REFUSED, SAME_BITS, Campaign

ENOUGH = 8 << 20  # bytes, for a run with all its files
FILLED = (
    Fault(BEGIN, 1, "after"),
    Fault(WRITE, 5, "half"),
    Fault(CHECK_DATA),
    Fault(BUILD),
    Fault(STEP, 17),
    Fault(VALIDATE, 3),
    Fault(REPLACE, 15, "after"),
    Fault(SYNC, 16),
    Fault(EVALUATE),
    Fault(SAVE_PREDICTIONS),
    Fault(DRAW),
    Fault(END),
)
MAPPED = {"ealinformer.training.windows:SHARE_OF_MEMORY": 0.0}  # whatever fits into memory: nothing does


@pytest.fixture
def half_way(reference: Reference, room: Path) -> Path:
    """A run killed in its fifth epoch."""
    folder = room / "half_way"
    ended = reference.run_under(Conditions(Fault(STEP, 31, send="SIGKILL")), folder)
    assert ended.status == -9, ended
    return folder


def expect_refusal(ended: Ended) -> None:
    """Bad input, in one line below the log."""
    assert ended.was_refused, f"it ended with {ended}"


@pytest.fixture
def disk(reference: Reference, room: Path) -> Callable[[str, int], Path]:
    """`disk("tmpfs", size)`: a small file system for the processes that train; skips where none can be mounted."""
    folder = room / "disk"
    folder.mkdir()

    def mount(kind: str, size: int) -> Path:
        problem = reference.zygote.mount(kind, folder, size)
        if problem:
            pytest.skip(problem)
        return folder

    return mount


def test_a_full_disk_ends_a_run_in_one_line_and_it_goes_on_once_there_is_room(
    reference: Reference, disk: Callable[[str, int], Path], campaign: Callable[[str], Campaign], size: str
) -> None:
    full = campaign("full disk")
    needed = sum(path.stat().st_size for path in reference.folder.rglob("*"))
    # From no room for anything to almost enough, and then at moments of all kinds.
    small = 20 if size == "full" else 2
    for number in range(small + len(FILLED)):
        if size == "quick" and number not in (0, 1, small, small + 1):
            continue
        fault = None if number < small else FILLED[number - small]
        room_for = full.rng(number).randrange(8 << 10, needed) if fault is None else ENOUGH
        with full.case(f"{room_for >> 10} KiB" if fault is None else str(replace(fault, fill="disk"))) as case:
            folder = disk("tmpfs", room_for) / "run"
            conditions = Conditions(None if fault is None else replace(fault, fill=str(folder.parent / "filler")))
            ended = reference.run_under(conditions, folder)
            if ended.status != 0:
                expect_refusal(ended)
                assert str(folder) in ended.errors[0], f"it does not say where: {ended}"
                case.what += f", after {len(ended.err.splitlines()) - 1} lines of log"
                disk("resize", 2 * ENOUGH)
                ended = reference.end_of(folder, *FEW)
            assert ended.status == 0, f"with room it ended with {ended}"
            problem = unlike(reference.zygote.seen(folder), reference.bits)
            assert problem is None, problem
            case.outcome = SAME_BITS
    full.expect_no_findings()


def test_a_file_that_may_not_grow_so_large_leaves_the_last_good_checkpoint(
    reference: Reference, half_way: Path, size: str, campaign: Callable[[str], Campaign], room: Path
) -> None:
    limited = campaign("limited file size")
    for largest in (1000, 20_000, 60_000, 100_000) if size == "full" else (60_000,):
        folder = room / str(largest)
        shutil.copytree(half_way, folder)
        with limited.case(f"{largest} bytes") as case:
            before = {name: (folder / name).read_bytes() for name in ("last.pt", "previous.pt")}
            ended = reference.run_under(Conditions(largest_file=largest), folder)
            expect_refusal(ended)
            assert {name: (folder / name).read_bytes() for name in before} == before, "a checkpoint has changed"
            reference.expect_same_bits(folder, reference.end_of(folder))
            case.outcome = SAME_BITS
    limited.expect_no_findings()


def test_a_read_only_folder_is_refused_before_training(
    reference: Reference, half_way: Path, campaign: Callable[[str], Campaign]
) -> None:
    read_only = campaign("read-only folder")
    before = (half_way / "last.pt").read_bytes()
    way = _make_read_only(reference, half_way)
    if way:
        pytest.skip(way)
    try:
        with read_only.case("a run to go on with") as case:
            ended = reference.end_of(half_way)
            expect_refusal(ended)
            assert len(ended.err.splitlines()) == 1, f"more than one line: {ended}"
            case.outcome = REFUSED
        with read_only.case("a new run in it") as case:
            ended = reference.end_of(half_way / "within" / "run")
            expect_refusal(ended)
            assert len(ended.err.splitlines()) == 1, f"more than one line: {ended}"
            case.outcome = REFUSED
    finally:
        _make_writable(reference, half_way)
    with read_only.case("writable again") as case:
        assert (half_way / "last.pt").read_bytes() == before
        reference.expect_same_bits(half_way, reference.end_of(half_way))
        case.outcome = SAME_BITS
    read_only.expect_no_findings()


def _make_read_only(reference: Reference, folder: Path) -> str | None:
    """By its mode, or by a mount where we are root, who is not asked for modes; why not, where neither can be."""
    if os.geteuid():
        folder.chmod(0o555)
        return None
    return reference.zygote.mount("read-only", folder)


def _make_writable(reference: Reference, folder: Path) -> None:
    if os.geteuid():
        folder.chmod(0o755)
    else:
        reference.zygote.mount("writable", folder)


# What vanishes, and when: before the start, at a step, or before the test part is opened. A file that is cut is still
# there, and whoever reads a map of it is ended by the system.
BEFORE = ("train_data.npy", "graph.npz", "meta.json")
LATER = (
    (STEP, 31, "remove", "test_data.npy"),
    (STEP, 31, "remove", "train_data.npy"),
    (STEP, 31, "remove", "val_timestamps.npy"),
    (STEP, 31, "remove", "meta.json"),
    (STEP, 31, "cut", "train_data.npy"),
    (STEP, 31, "cut", "test_data.npy"),
    (BUILD, 1, "remove", "train_data.npy"),
    (BUILD, 1, "cut", "val_data.npy"),
    (EVALUATE, 1, "remove", "test_timestamps.npy"),
    (EVALUATE, 1, "cut", "test_timestamps.npy"),
)


def test_data_that_vanish_before_the_start_are_named(
    reference: Reference, campaign: Callable[[str], Campaign], room: Path
) -> None:
    vanished = campaign("data vanished before the start")
    for name in BEFORE:
        with vanished.case(name) as case, _kept(reference.town.datasets / "TOWN" / name, room) as path:
            path.unlink()
            ended = reference.end_of(room / "run")
            expect_refusal(ended)
            assert str(path if name != "meta.json" else path.parent) in ended.errors[0], f"it is not named: {ended}"
            assert not (room / "run").exists()
            case.outcome = REFUSED
    vanished.expect_no_findings()


def test_data_that_vanish_while_training_end_it_in_one_line_or_are_not_missed(
    reference: Reference, campaign: Callable[[str], Campaign], size: str, room: Path
) -> None:
    vanished = campaign("data vanished while training")
    for number, (at, call, how, name) in enumerate(LATER if size == "full" else LATER[:1]):
        for values in ({}, MAPPED):
            folder = room / f"{number}{len(values)}"
            with vanished.case(name) as case:
                with _kept(reference.town.datasets / "TOWN" / name, room) as path:
                    fault = Fault(at, call, remove=str(path)) if how == "remove" else Fault(at, call, cut=str(path))
                    case.what = f"{fault}{', not in memory' if values else ''}"
                    ended = reference.run_under(Conditions(fault, values=values), folder)
                if ended.status != 0:
                    expect_refusal(ended)
                    assert "TOWN" in ended.errors[0], f"it is not named: {ended}"
                    case.what += ", refused"
                # Once the data are there again:
                reference.expect_same_bits(folder, ended if ended.status == 0 else reference.end_of(folder))
                case.outcome = SAME_BITS
    vanished.expect_no_findings()


@contextmanager
def _kept(path: Path, room: Path) -> Iterator[Path]:
    """Put a file back after the block."""
    kept = shutil.copy2(path, room / "kept")
    try:
        yield path
    finally:
        shutil.copy2(kept, path)
