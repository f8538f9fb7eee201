"""Seconds and peak memory of a whole epoch: models on the loop of stock BasicTS and on ours, on shapes of data sets.

The readings are random values in the shape of a data set, prepared in a temporary folder. Every run is a fresh process;
its second epoch counts, the first one warms up. Overhead is the share of the epoch that is not forward, backward and
optimizer, which are timed in the same process after it.
"""

import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._common import NAMES, add_options, check_options, content_of, listed, memory_limit, write_rows
from benchmarks._epochs import RUNNERS, Case, epoch_of, run_config, write_series
from ealinformer.cli import ArgumentParser, run
from ealinformer.data import PUBLIC
from ealinformer.errors import InputError, suggestion
from ealinformer.measure.isolated import isolated
from ealinformer.report.performance import epoch_table

EXAMPLES = """examples:
  python benchmarks/epoch.py PEMS08 --steps 10
  python benchmarks/epoch.py PEMS08 PEMS04 --steps 20 --row results/epoch/cpu.json
  python benchmarks/epoch.py PEMS07 --batch-size 4 --steps 8 --cases explicit:stock,elinformer:ours
  python benchmarks/epoch.py PEMS08 --cuda --set dtype=bf16 --set compile=default --row results/epoch/gpu-bf16.json
"""
CASES = "explicit:stock,fused:ours,elinformer:ours,elinformer:stock,identity:ours"
MEASURED = ("epoch_seconds", "ratio", "steps", "step_seconds", "data_seconds", "overhead", "peak_mib", "memory_ratio")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print tables and, when asked to, write rows."""
    given = parse(arguments)
    limit = memory_limit(given)
    settings = {"threads": given.threads, "device": "cuda" if given.cuda else "cpu", "memory_limit": limit}
    rows: list[dict[str, Any]] = []
    texts: list[str] = []
    for dataset in given.datasets:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            series = write_series(dataset, root, given.batch_size, given.steps)
            shared = (series, root, given.batch_size, given.threads, given.cuda)
            cases = [Case(model, runner, *shared, tuple(given.settings), limit) for model, runner in given.cases]
            for case in cases:
                run_config(case)  # a setting that cannot be is found before anything runs
            found: list[dict[str, Any]] = []
            for case in cases:
                print(f"{dataset}: {NAMES[case.model][0]}, {case.runner}", file=sys.stderr, flush=True)
                found.append(row_of(case, found[0] if found else None, given))
        rows += found
        texts.append(epoch_table(found, title=title_of(dataset, series.num_sensors, found[0], given)))
        print(texts[-1], end="\n\n", flush=True)
        if given.row:
            write_rows(given.row, content_of("epoch", settings, rows), "\n\n".join(texts))


def parse(arguments: Sequence[str] | None) -> Namespace:
    """The command line, checked. Raises InputError."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("datasets", nargs="+", metavar="NAME", help=f"whose shape to take: {', '.join(PUBLIC)}")
    parser.add_argument("--cases", default=CASES, metavar="MODEL:RUNNER,...", help=f"ratios are to the first ({CASES})")
    parser.add_argument(
        "--steps", type=int, metavar="K", help="cut the series so that an epoch has K steps, at least 2"
    )
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="windows in a step (16)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="for our loop, as in train.py"
    )
    add_options(parser)
    given = parser.parse_args(arguments)
    given.datasets = listed("NAME", ",".join(given.datasets), PUBLIC)
    given.cases = [case_of(text) for text in given.cases.split(",")]
    check_options(given)
    if given.steps == 1:
        raise InputError("--steps has to be at least 2, got 1: BasicTS counts epochs of one step wrongly")
    return given


def case_of(text: str) -> tuple[str, str]:
    """Short name of a model and of a runner. Raises InputError."""
    model, _, runner = text.strip().partition(":")
    for value, known in ((model, tuple(NAMES)), (runner, RUNNERS)):
        if value not in known:
            raise InputError(f"--cases: {text!r}: {value!r} is none of {', '.join(known)}{suggestion(value, known)}")
    return model, runner


def row_of(case: Case, first: dict[str, Any] | None, given: Namespace) -> dict[str, Any]:
    """What was measured of a case, in units of the first one's too, or why nothing was."""
    outcome = isolated(epoch_of, case)
    row: dict[str, Any] = {
        "dataset_shape": case.series.name,
        "num_sensors": case.series.num_sensors,
        "model": NAMES[case.model][0],
        "runner": case.runner,
        "batch_size": case.batch_size,
        "series_cut": given.steps is not None,
        "set": list(case.settings) if case.runner == "ours" else [],
        "status": outcome.status,
        "reason": outcome.reason,
        "needed_bytes": outcome.needed_bytes,
        **dict.fromkeys(MEASURED),
    }
    if outcome.status == "ok":
        row |= outcome.value
        reference = row if first is None else first
        if reference["status"] == "ok":
            row["ratio"] = row["epoch_seconds"] / reference["epoch_seconds"]
            row["memory_ratio"] = row["peak_mib"] / reference["peak_mib"]
    return row


def title_of(dataset: str, num_sensors: int, row: dict[str, Any], given: Namespace) -> str:
    """What stands above a table."""
    steps = f", cut to {given.steps} steps an epoch" if given.steps else ""
    chosen = f"; ours with {', '.join(given.settings)}" if given.settings else ""
    return (
        f"{dataset}'s shape, random values: {num_sensors} sensors, batch {given.batch_size}{steps}; "
        f"ratio to {row['model']}, {row['runner']}{chosen}"
    )


if __name__ == "__main__":
    run(main)
