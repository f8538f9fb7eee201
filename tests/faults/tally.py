"""What became of the cases of a campaign, counted: a table for a person and rows for results/."""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ealinformer.files import write_text
from ealinformer.measure import provenance
from ealinformer.report.tables import Column, render_table

# What may become of a case; everything else is a finding.
SAME_BITS, REFUSED, OTHER_RUN = "same_bits", "refused", "other_run"
COLUMNS = (
    Column("campaign", "campaign"),
    Column("cases", "cases", "d"),
    Column(SAME_BITS, "same bits", "d"),
    Column(REFUSED, "refused in one line", "d"),
    Column(OTHER_RUN, "another valid run", "d"),
    Column("findings", "findings", "d"),
    Column("seed", "seed", "d"),
    Column("seconds", "seconds", ".0f"),
)


@dataclass
class Campaign:
    """Cases by number: the same seed and number make the same case in every run."""

    name: str
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    cases: list[str] = field(default_factory=list)  # what was done, a line each
    findings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def rng(self, number: int) -> random.Random:
        """The random numbers of one case."""
        return random.Random(f"{self.seed}/{self.name}/{number}")

    @contextmanager
    def case(self, what: str) -> Iterator["Case"]:
        """One case; an assertion that fails in the block is a finding, and the campaign goes on."""
        started, case = time.monotonic(), Case(what)
        try:
            yield case
            assert case.outcome, "nothing came of it"
            self.counts[case.outcome] += 1
        except AssertionError as error:
            said = " ".join(str(error).split("\nassert ")[0].split())
            self.findings.append(f"{case.what}: {said}")
            case.outcome = "finding"
        finally:
            self.seconds += time.monotonic() - started
            self.cases.append(f"{case.what}: {case.outcome}")

    def row(self) -> dict[str, object]:
        """For the table and for results/."""
        outcomes = {name: self.counts[name] for name in (SAME_BITS, REFUSED, OTHER_RUN)}
        return {
            "campaign": self.name,
            "cases": len(self.cases),
            **outcomes,
            "findings": len(self.findings),
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
        }

    def expect_no_findings(self) -> None:
        """Fail a test with all of them."""
        if self.findings:
            said = "\n".join((f"{self.name}, seed {self.seed}: {len(self.findings)} findings", *self.findings))
            pytest.fail(said, pytrace=False)


@dataclass
class Case:
    """One of them; `what` may be said more exactly as it goes, `outcome` is one of the three above."""

    what: str
    outcome: str = ""


def table(campaigns: Sequence[Campaign], size: str) -> str:
    """The counts, aligned."""
    return render_table(COLUMNS, [campaign.row() for campaign in campaigns], title=f"Fault campaigns, {size}")


def record(folder: Path, campaigns: Sequence[Campaign], size: str) -> None:
    """Write the table, and its rows with all that was done and where, to `faults.txt` and `faults.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**campaign.row(), "done": campaign.cases, "found": campaign.findings} for campaign in campaigns]
    content = {"size": size, "campaigns": rows, **provenance()}
    write_text(folder / "faults.json", json.dumps(content, indent=2) + "\n")
    write_text(folder / "faults.txt", table(campaigns, size) + "\n")
