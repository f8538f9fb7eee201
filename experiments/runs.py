"""Look at the folders of runs, compare runs, and free the space of those that came to nothing."""

import argparse
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ealinformer.cli import ArgumentParser, run
from ealinformer.errors import InputError
from ealinformer.report.runs import comparison_page, removals_table, run_page, runs_table
from ealinformer.training.runs.cleaning import carry_out, plan
from ealinformer.training.runs.details import compare_runs, run_details
from ealinformer.training.runs.folder import STATES
from ealinformer.training.runs.listing import DAMAGED, list_runs
from ealinformer.training.runs.strict_json import json_text

EXAMPLES = """examples:
  python experiments/runs.py list
  python experiments/runs.py list checkpoints/STAEformer --state finished --dataset PEMS08
  python experiments/runs.py show checkpoints/ELinFormer/PEMS08/RUN
  python experiments/runs.py compare RUN1 RUN2 RUN3
  python experiments/runs.py clean --older-than 7
  python experiments/runs.py clean --checkpoints --yes
"""
LIST_EXAMPLES = """examples:
  python experiments/runs.py list --state running
  python experiments/runs.py list /data/checkpoints --model ELinFormer --json
"""
SHOW_EXAMPLES = """examples:
  python experiments/runs.py show checkpoints/ELinFormer/PEMS08/RUN
"""
COMPARE_EXAMPLES = """examples:
  python experiments/runs.py compare checkpoints/ELinFormer/PEMS08/*-seed42
"""
CLEAN_EXAMPLES = """examples:
  python experiments/runs.py clean                            what could go: failed, interrupted and killed runs
  python experiments/runs.py clean --older-than 7 --yes       removes those that have not changed for a week
  python experiments/runs.py clean --checkpoints              last.pt and previous.pt of finished runs

An interrupted or killed run could still be resumed: train.py with the same --output-dir.
"""
ROOT = Path("checkpoints")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and do what it says."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, do, about, examples in (
        ("list", print_list, "one line for each run", LIST_EXAMPLES),
        ("show", print_run, "everything about one run", SHOW_EXAMPLES),
        ("compare", print_comparison, "what runs differ in, and their metrics side by side", COMPARE_EXAMPLES),
        ("clean", clean, "free the space of runs without a result", CLEAN_EXAMPLES),
    ):
        command = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.", epilog=examples)
        command.set_defaults(do=do)
        if name in ("list", "clean"):
            command.add_argument("root", type=Path, nargs="?", default=ROOT, metavar="ROOT", help=f"folder ({ROOT})")
        if name == "list":
            command.add_argument("--state", choices=(*STATES, DAMAGED), help="only runs in that state")
            command.add_argument("--model", metavar="NAME", help="only runs of that model")
            command.add_argument("--dataset", metavar="NAME", help="only runs on that data set")
        if name == "show":
            command.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
        if name == "compare":
            command.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of two runs or more")
        if name == "clean":
            command.add_argument("--older-than", type=float, default=0.0, metavar="DAYS", help="unchanged for so long")
            command.add_argument("--checkpoints", action="store_true", help="last.pt and previous.pt of finished runs")
            command.add_argument("--yes", action="store_true", help="remove, in place of only saying what could go")
        command.add_argument("--json", action="store_true", help="print JSON in place of tables")
    given = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of folders may hold what cannot be printed
    given.do(given)


def print_list(given: argparse.Namespace) -> None:
    """`list`."""
    runs = list_runs(given.root)
    asked = {"model": given.model, "dataset": given.dataset}
    fitting = [
        one.as_dict()
        for one in runs
        if all(value in (None, getattr(one, key)) for key, value in asked.items())
        and (given.state in (None, one.state) or (given.state == DAMAGED and one.damage))
    ]
    if given.json:
        print(json_text(fitting))
    elif fitting:
        print(runs_table(fitting))
    else:
        print(f"{given.root}: no run" if not runs else f"{given.root}: none of {len(runs)} runs fits")


def print_run(given: argparse.Namespace) -> None:
    """`show`."""
    details = run_details(given.run)
    print(json_text(details) if given.json else run_page(details))


def print_comparison(given: argparse.Namespace) -> None:
    """`compare`."""
    comparison = compare_runs(given.runs)
    print(json_text(comparison) if given.json else comparison_page(comparison))


def clean(given: argparse.Namespace) -> None:
    """`clean`: say what could go, or remove it."""
    if not (math.isfinite(given.older_than) and given.older_than >= 0):
        raise InputError(f"--older-than {given.older_than}: a number of days is expected, 0 or more")
    removals, kept = plan(given.root, older_than=given.older_than, checkpoints=given.checkpoints)
    problems = []
    if given.yes:
        for removal in list(removals):
            try:
                carry_out(removal, given.root)
            except InputError as error:
                problems.append(str(error))
                removals.remove(removal)
    content: dict[str, Any] = {
        "root": str(given.root),
        "removed": given.yes,
        "size_bytes": sum(removal.size_bytes for removal in removals),
        "runs": [removal.as_dict() for removal in removals],
        "kept": [{"run": str(one.folder), "why": one.why} for one in kept],
    }
    print(json_text(content) if given.json else cleaning_page(content))
    if problems:
        raise InputError(f"{len(problems)} of {len(problems) + len(removals)} could not be removed: {problems[0]}")


def cleaning_page(content: dict[str, Any]) -> str:
    """What went or could go, what stays in those folders, and the runs that stay although they came to nothing."""
    lines = [removals_table(content["runs"]), ""] if content["runs"] else []
    for one in content["runs"]:
        lines += [f"{one['run']}/{name} stays: no run has written it" for name in one["foreign"]]
    lines += [f"{one['run']} stays: {one['why']}" for one in content["kept"]]
    size = f"{content['size_bytes'] / 1e6:.1f} MB"
    if not content["runs"]:
        lines.append(f"{content['root']}: nothing to remove")
    else:
        lines.append(f"{size} freed" if content["removed"] else f"{size} would be freed; --yes removes these files")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
