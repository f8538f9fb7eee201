"""Time and memory of one train step of whole models on shapes of data sets, in phases, against the machine's ceilings.

The values are random: time and memory do not depend on them. Peak memory is that of a fresh process each. For time,
models take turns in one process, so that a drift of the machine hits all alike, and what counts is the ratio of two
steps of the same round. FLOPs and bytes are counted, and held against a large matrix product and a large copy.
Running out of memory is a row.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks._common import (
    EXPLICIT,
    FUSED,
    NAMES,
    add_model_options,
    add_options,
    as_settings,
    build,
    ceilings_of,
    check_options,
    content_of,
    device_note,
    listed,
    memory_limit,
    setting_of,
    write_rows,
)
from ealinformer.cli import ArgumentParser, run
from ealinformer.data import PUBLIC
from ealinformer.errors import InputError
from ealinformer.measure.model_sweep import Plan, measure_models
from ealinformer.measure.train_step import COMPILE
from ealinformer.report.performance import ceilings_line, step_table

EXAMPLES = """examples:
  python benchmarks/train_step.py PEMS08
  python benchmarks/train_step.py PEMS08 PEMS04 PEMS07 --batch-size 16 --rounds 5 --row results/train_step/cpu.json
  python benchmarks/train_step.py PEMS08 --models fused,elinformer,identity --dtype bf16
  python benchmarks/train_step.py PEMS07 --cuda --dtype tf32 --compile default
"""
MODELS = ("explicit", "fused", "fused-lean", "elinformer", "elinformer-plain", "elinformer-gaussian", "identity")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print tables and, when asked to, write rows and figures."""
    given = parse(arguments)
    limit = memory_limit(given)
    titles = tuple(NAMES[short][0] for short in given.models)
    plan = Plan(titles, (EXPLICIT, FUSED), given.rounds, given.max_seconds, limit)
    settings = {name: setting_of(given, PUBLIC[name].num_sensors) for name in given.datasets}
    first = settings[given.datasets[0]]
    ceilings = ceilings_of(first)
    texts, rows = [ceilings_line(asdict(ceilings))], []
    print(texts[0], flush=True)
    for name, setting in settings.items():

        def tell(what: str, name: str = name) -> None:
            print(f"{name}: {what}", file=sys.stderr, flush=True)

        found = measure_models(plan, setting, ceilings, build, tell)
        rows += [{"dataset_shape": name, **row} for row in found]
        texts.append(step_table(found, title=title_of(name, given, setting.num_sensors)))
        print(f"\n{texts[-1]}", flush=True)
        if given.row:  # after each, for what comes next may take long
            common = {**as_settings(first), "rounds": given.rounds, "memory_limit": limit, "optimizer": "Adam, fused"}
            content = content_of("train step", common, rows, ceilings=asdict(ceilings))
            write_rows(given.row, content, "\n\n".join(texts))
    if given.row:
        draw(given, content, device_note(content["machine"], first))


def parse(arguments: Sequence[str] | None) -> Namespace:
    """The command line, checked. Raises InputError."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("datasets", nargs="+", metavar="NAME", help=f"whose shape to take: {', '.join(PUBLIC)}")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="windows in a step (16)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="counted steps of every model (5)")
    parser.add_argument("--max-seconds", type=float, default=600, metavar="S", help="do not time longer steps (600)")
    parser.add_argument("--compile", default="off", metavar="MODE", help=f"one of {', '.join(COMPILE)} (off)")
    add_model_options(parser, MODELS)
    add_options(parser)
    given = parser.parse_args(arguments)
    given.datasets = listed("NAME", ",".join(given.datasets), PUBLIC)
    if not given.max_seconds > 0:
        raise InputError(f"--max-seconds has to be above 0, got {given.max_seconds}")
    check_options(given)
    return given


def title_of(dataset: str, given: Namespace, num_sensors: int) -> str:
    """What stands above a table."""
    return (
        f"{dataset}'s shape, random values: {num_sensors} sensors, batch {given.batch_size}, {given.dtype}; "
        f"ratios to {EXPLICIT}"
    )


def draw(given: Namespace, content: dict[str, Any], device: str) -> None:
    """Figures beside the rows: phases, and the roofline."""
    # Here, because every process that measures imports this file, and should take no second to do so.
    from ealinformer.report.performance_figures import phases_figure, roofline_figure

    note = f"one train step, batch {given.batch_size}, {given.dtype}, random values; {device}"
    for ending, figure in (("phases", phases_figure), ("roofline", roofline_figure)):
        if any(row["seconds"] for row in content["rows"]):
            path = given.row.with_name(f"{given.row.stem}-{ending}.png")
            print(f"figure: {figure(content, path, note=note)}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
