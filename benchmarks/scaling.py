"""Time and memory of whole models over the number of sensors N: one train step, and one forecast.

The values are random. Every case runs in a fresh process under a memory limit: running out of memory is a row, and so
is what would take too long. Exponents are fitted in log-log.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks._common import (
    NAMES,
    add_model_options,
    add_options,
    as_settings,
    at_least_one,
    build,
    check_options,
    content_of,
    device_note,
    memory_limit,
    setting_of,
    write_rows,
)
from ealinformer.cli import ArgumentParser, run
from ealinformer.errors import InputError
from ealinformer.measure.model_scaling import INFERENCE, LINE, PASSES, Plan, measure_scaling
from ealinformer.measure.rows import fits_of
from ealinformer.report.performance import model_fits_table, model_scaling_table

EXAMPLES = """examples:
  python benchmarks/scaling.py --lengths 256,512,1024
  python benchmarks/scaling.py --rounds 3 --row results/scaling/cpu.json
  python benchmarks/scaling.py --inference-only --models elinformer --lengths 100000 --row results/scaling/100000.json
"""
MODELS = ("explicit", "fused", "elinformer", "elinformer-recompute")
LENGTHS = "2048,4096,8192,16384,32768,65536"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print tables and, when asked to, write rows and a figure."""
    given = parse(arguments)
    setting = setting_of(given, max(given.lengths))
    limit = memory_limit(given)
    titles = tuple(NAMES[short][0] for short in given.models)
    passes = (INFERENCE,) if given.inference_only else PASSES
    plan = Plan(titles, passes, given.lengths, setting, given.rounds, given.max_seconds, limit)
    settings = {**as_settings(setting), "rounds": given.rounds, "memory_limit": limit, "max_seconds": given.max_seconds}
    rows: list[dict[str, Any]] = []
    title = f"whole models over N, random values: batch {given.batch_size}, {given.dtype}"
    for row in measure_scaling(plan, build, lambda what: print(what, file=sys.stderr, flush=True)):
        rows.append(row)
        fits = fits_of(rows, given.fit_from, LINE)
        text = model_scaling_table(rows, title=title)
        if fits:
            text += f"\n\n{model_fits_table(fits)}"
        if given.row:
            content = content_of("scaling", settings, rows, fits=fits)
            write_rows(given.row, content, text)
    print(text)
    if given.row and any(row["memory_bytes"] for row in rows):
        draw(given, content, f"{title}; {device_note(content['machine'], setting)}")


def parse(arguments: Sequence[str] | None) -> Namespace:
    """The command line, checked. Raises InputError."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--lengths", default=LENGTHS, metavar="N,...", help=f"numbers of sensors ({LENGTHS})")
    parser.add_argument("--batch-size", type=int, default=1, metavar="B", help="windows at once (1)")
    parser.add_argument("--inference-only", action="store_true", help="forecasts alone, no train steps")
    parser.add_argument("--rounds", type=int, default=3, metavar="R", help="counted passes of every case (3)")
    parser.add_argument("--max-seconds", type=float, default=300, metavar="S", help="leave out longer passes (300)")
    parser.add_argument("--fit-from", type=int, default=2048, metavar="N", help="fit exponents from this N up (2048)")
    add_model_options(parser, MODELS)
    add_options(parser)
    given = parser.parse_args(arguments)
    lengths = given.lengths.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) for part in lengths):
        raise InputError(f"--lengths is a list of whole numbers above 0, such as 2048,4096, got {given.lengths!r}")
    given.lengths = tuple(sorted({int(part) for part in lengths}))
    if not given.max_seconds > 0:
        raise InputError(f"--max-seconds has to be above 0, got {given.max_seconds}")
    at_least_one(given, "fit_from")
    check_options(given)
    return given


def draw(given: Namespace, content: Mapping[str, Any], note: str) -> None:
    """The figure beside the rows."""
    # Here, because every process that measures imports this file, and should take no second to do so.
    from ealinformer.report.scaling import scaling_figure

    rows, fits = (
        [{**row, "attention": row["model"]} for row in content[key]] for key in ("rows", "fits")
    )  # the figure's word for what a line is of
    path = given.row.with_suffix(".png")
    scaling_figure(rows, path, memory_limit=content["settings"]["memory_limit"], fits=fits, note=note)
    print(f"figure: {path}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
