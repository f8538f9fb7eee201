"""Mutants by number: the same target, seed and number give the same bytes in every run."""

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.mutate import MAX_SIZE, spliced
from tests.fuzz.readers import Target
from tests.fuzz.worker import Outcome, Worker

_SPLICED = 0.1  # share of mutants that are two files in one


@dataclass
class Tally:
    """What became of the mutants of one target."""

    target: str
    counts: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Path] = field(default_factory=dict)  # the first file of each kind, by its reason
    seconds: float = 0.0
    peak: int = 0  # bytes

    def row(self) -> dict[str, object]:
        """For tables and for results/."""
        return {
            "target": self.target,
            "mutants": self.counts.total(),
            "refused": self.counts["refused"],
            "valid": self.counts["valid"],
            "findings": self.counts["finding"],
            "kinds": list(self.findings),
            "peak_mib": round(self.peak / 2**20, 1),
            "slowest_s": round(self.seconds, 2),
        }


class Mutants:
    """The files to try on one target: the whole ones, those made to hurt, then mutants without end."""

    def __init__(self, target: Target, folder: Path, seed: int) -> None:
        self.target, self.path, self._seed = target, folder / target.file, seed
        self._seeds = target.seeds(folder)
        self._first = [*self._seeds, *target.hostile()]

    @property
    def num_first(self) -> int:
        """How many there are before the mutants begin."""
        return len(self._first)

    def content(self, number: int) -> bytes:
        """The bytes of file `number`, under 1 MiB."""
        if number < len(self._first):
            return self._first[number]
        rng = random.Random(f"{self._seed}/{self.target.name}/{number}")
        seed = rng.choice(self._seeds)
        if rng.random() < _SPLICED:
            return spliced(rng, seed, rng.choice(self._seeds))[:MAX_SIZE]
        return rng.choice(self.target.mutations)(rng, seed)[:MAX_SIZE]


def run(
    target: Target,
    worker: Worker,
    *,
    seed: int,
    keep: Path,
    until: float,
    max_mutants: int | None = None,
    report: Callable[[str], None] = print,
) -> Tally:
    """Try mutants on one target until the clock (`time.monotonic`) says `until`, or as many as there may be.

    The first file of each kind of finding is kept in the folder `keep`, with its reason beside it.
    """
    tally = Tally(target.name)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        mutants = Mutants(target, Path(name), seed)
        last = None if max_mutants is None else mutants.num_first + max_mutants
        number = 0
        while (last is None or number < last) and time.monotonic() < until:
            content = mutants.content(number)
            mutants.path.write_bytes(content)
            start = time.monotonic()
            outcome = worker.read(target.read, mutants.path)
            tally.counts[outcome.status] += 1
            tally.seconds = max(tally.seconds, time.monotonic() - start)
            tally.peak = max(tally.peak, outcome.peak)
            if outcome.status == "finding":
                _keep(tally, content, outcome, name, keep / f"{_slug(target.name)}-{seed}-{number}", report)
            number += 1
    return tally


def replay(target: Target, content: bytes, worker: Worker) -> Outcome:
    """What becomes of these bytes."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        target.seeds(Path(name))
        path = Path(name) / target.file
        path.write_bytes(content)
        return worker.read(target.read, path)


def _keep(
    tally: Tally, content: bytes, outcome: Outcome, folder: str, stem: Path, report: Callable[[str], None]
) -> None:
    reason = outcome.reason.replace(folder, "DIR")
    if _kind(reason) in map(_kind, tally.findings):
        return
    stem.parent.mkdir(parents=True, exist_ok=True)
    path = stem.with_suffix(".mutant")
    path.write_bytes(content)
    stem.with_suffix(".txt").write_text(f"{tally.target}: {reason}\n")
    tally.findings[reason] = path
    report(f"FINDING in {tally.target}: {reason}\n  kept as {path}")


def _kind(reason: str) -> str:
    """What two findings of one fault have in common: `ValueError at meta.py:155`."""
    return reason.split(": ")[0]


def _slug(name: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name).split())


def table_rows(tallies: Iterable[Tally]) -> list[dict[str, object]]:
    """A row a target, and one for all of them."""
    tallies = list(tallies)
    total = Tally("all", sum((tally.counts for tally in tallies), Counter()))
    total.peak = max((tally.peak for tally in tallies), default=0)
    total.seconds = max((tally.seconds for tally in tallies), default=0.0)
    return [tally.row() for tally in (*tallies, total)]
