"""Damage the files of every reader for some minutes: each mutant is read, or refused in one line, or is a finding.

A finding is any other exception, a process that dies or hangs, more than 1 GiB of memory for a file under 1 MiB, or a
refusal that is not one line naming the file. Exit status 1 where there is one.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ealinformer.cli import ArgumentParser, run
from ealinformer.errors import InputError, suggestion
from ealinformer.files import write_text
from ealinformer.measure.provenance import provenance
from ealinformer.report.tables import Column, render_table
from ealinformer.training.runs.folder import write_json
from tests.fuzz import campaign
from tests.fuzz.readers import BY_NAME, Target
from tests.fuzz.worker import TIME_LIMIT, Worker

EXAMPLES = """examples:
  python -m tests.fuzz --minutes 5
  python -m tests.fuzz --minutes 1 --target "series .h5" --seed 7
  python -m tests.fuzz --target "graph .pkl" --replay findings/graph-pkl-0-812.mutant
"""

COLUMNS = (
    Column("target", "reader"),
    Column("mutants", "mutants", ",d"),
    Column("refused", "refused in one line", ",d"),
    Column("valid", "read as valid", ",d"),
    Column("findings", "findings", ",d"),
    Column("peak_mib", "peak MiB", ".0f"),
    Column("slowest_s", "slowest s", ".2f"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and fuzz."""
    parser = ArgumentParser(prog="python -m tests.fuzz", description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--minutes", type=float, default=5, metavar="M", help="for all targets together (5)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the mutants (0)")
    parser.add_argument(
        "--target", action="append", metavar="NAME", help=f"one of {', '.join(BY_NAME)}; all if left out"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where mutants that were findings are kept")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="try this one file on the target")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the rows as JSON, with machine and versions")
    given = parser.parse_args(arguments)
    targets = [chosen(name) for name in given.target or BY_NAME]
    if not given.minutes > 0:
        raise InputError(f"--minutes has to be above 0, got {given.minutes}")
    with Worker() as worker:
        if given.replay:
            replay(targets, given.replay, worker)
            return
        keep = given.keep or Path(tempfile.gettempdir()) / "ealinformer-fuzz"
        tallies = fuzz(targets, worker, minutes=given.minutes, seed=given.seed, keep=keep)
    rows = campaign.table_rows(tallies)
    print(
        render_table(
            COLUMNS, rows, title=f"seed {given.seed}, {given.minutes:g} minutes, {TIME_LIMIT:g} s a file at most"
        )
    )
    if given.record:
        given.record.parent.mkdir(parents=True, exist_ok=True)
        record = {"minutes": given.minutes, "seed": given.seed, "time_limit_s": TIME_LIMIT, "rows": rows}
        write_json(given.record, {**record, **provenance()})
        write_text(given.record.with_suffix(".txt"), render_table(COLUMNS, rows) + "\n")
    if any(tally.findings for tally in tallies):
        sys.exit(1)


def chosen(name: str) -> Target:
    """The target of that name. Raises InputError."""
    if name not in BY_NAME:
        raise InputError(f"--target {name!r} is not known{suggestion(name, BY_NAME)}; known: {', '.join(BY_NAME)}")
    return BY_NAME[name]


def fuzz(targets: Sequence[Target], worker: Worker, *, minutes: float, seed: int, keep: Path) -> list[campaign.Tally]:
    """All targets one after the other, each for its share of the time that is left."""
    end = time.monotonic() + 60 * minutes
    tallies = []
    for number, target in enumerate(targets):
        left = end - time.monotonic()
        say(f"{target.name}: {number + 1} of {len(targets)}, {max(0, left):.0f} s left")
        until = time.monotonic() + left / (len(targets) - number)
        tallies.append(campaign.run(target, worker, seed=seed, keep=keep, until=until, report=say))
    return tallies


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def replay(targets: Sequence[Target], file: Path, worker: Worker) -> None:
    """Say what becomes of one file. Raises InputError without one target and a readable file."""
    if len(targets) != 1:
        raise InputError("--replay needs the --target that the file is of")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"--replay {file}: {error.strerror}") from error
    outcome = campaign.replay(targets[0], content, worker)
    print(f"{outcome.status}: {outcome.reason}" if outcome.reason else outcome.status)
    if outcome.status == "finding":
        sys.exit(1)


if __name__ == "__main__":
    run(main)
