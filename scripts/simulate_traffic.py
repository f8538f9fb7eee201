"""Write a simulated series and its road graph to the raw folder, in the layout of the published PEMS files."""

import textwrap
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from ealinformer.cli import ArgumentParser, run
from ealinformer.data.simulation import SimulatedTraffic, simulate_traffic, write_raw
from ealinformer.data.spec import SeriesSpec
from ealinformer.errors import InputError

START = datetime(2024, 1, 1)

EXAMPLES = """\
examples:
  python scripts/simulate_traffic.py DEMO
  python scripts/simulate_traffic.py CITY --sensors 2000 --days 14 --quantity speed --missing 0.05
  python scripts/simulate_traffic.py HOURLY --sensors 300 --days 90 --interval 60 --seed 7

The series is simulated, on simulated roads: it shows how to use the package and how fast it is, never how accurate.
"""


def main(arguments: Sequence[str] | None) -> None:
    """Run the command line."""
    args = _parser().parse_args(arguments)
    series = _describe(args)
    _refuse_to_replace(args)
    traffic = simulate_traffic(
        args.sensors,
        args.days * series.steps_per_day,
        seed=args.seed,
        quantity=args.quantity,
        interval_minutes=args.interval,
        start=START,
        missing_share=args.missing,
    )
    write_raw(args.raw_dir, args.name, traffic)
    print(_summary(args, traffic))
    print(_next_steps(args, series))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="simulate_traffic.py", description=__doc__, epilog=EXAMPLES)
    parser.add_argument("name", metavar="NAME", help="name of the data set: letters, digits, '.', '_' and '-'")
    parser.add_argument("--sensors", type=int, default=40, help="number of sensors N (default: %(default)s)")
    parser.add_argument("--days", type=int, default=28, help="length of the series (default: %(default)s)")
    parser.add_argument("--quantity", choices=("flow", "speed"), default="flow", help="(default: %(default)s)")
    parser.add_argument("--interval", type=int, default=5, help="minutes from row to row (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--missing", type=float, default=0.01, help="share of missing readings (default: %(default)s)")
    parser.add_argument(
        "--raw-dir", type=Path, default=Path("datasets/raw"), help="where NAME/ is made (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files of that name")
    return parser


def _refuse_to_replace(args: Namespace) -> None:
    """Raw files of that name may be measured ones, which no seed brings back."""
    for file in _files(args):
        if file.exists() and not args.overwrite:
            raise InputError(f"{file} is there already: choose another name, or --overwrite it")


def _files(args: Namespace) -> list[Path]:
    return [args.raw_dir / args.name / f"{args.name}{suffix}" for suffix in (".npz", ".csv")]


def _describe(args: Namespace) -> SeriesSpec:
    """What a config file has to say of the series."""
    if args.days < 1:
        raise InputError(f"--days is {args.days}, expected 1 or more")
    try:
        return SeriesSpec(
            name=args.name,
            num_sensors=args.sensors,
            interval_minutes=args.interval,
            start=START,
            target=args.quantity,
            unit=f"vehicles per {args.interval} minutes" if args.quantity == "flow" else "mph",
            raw_file=f"{args.name}.npz",
            graph_file=f"{args.name}.csv",
            simulated=True,
        )
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{first['loc'][0]} is {first['input']!r}: {message}") from error


def _summary(args: Namespace, traffic: SimulatedTraffic) -> str:
    num_steps, num_sensors = traffic.values.shape
    readings = traffic.values[traffic.values > 0]
    mean, spread = readings.mean(dtype=np.float64), readings.std(dtype=np.float64)
    rows = {
        "simulated": f"{args.quantity}, seed {args.seed}",
        "sensors": f"{num_sensors:,}",
        "roads": f"{traffic.adjacency.nnz:,}",
        "steps": f"{num_steps:,} of {args.interval} minutes, {args.days} days from {START:%Y-%m-%d}",
        "readings": f"mean {mean:.1f}, std {spread:.1f}, {readings.min():g} to {readings.max():g}",
        "missing": f"{1 - readings.size / traffic.values.size:.2%}, as zeros",
        "written": ", ".join(map(str, _files(args))),
    }
    return "\n".join(f"{name:<10} {value}" for name, value in rows.items())


def _next_steps(args: Namespace, series: SeriesSpec) -> str:
    config = Path("configs") / f"{args.name}.py"
    fields = series.model_dump(exclude_defaults=True)
    lines = "\n".join(f"        {field}={_literal(value)}," for field, value in fields.items())
    text = f"""\
from datetime import datetime

from ealinformer.data.spec import SeriesSpec
from ealinformer.training.config import Experiment

CONFIG = Experiment(
    series=SeriesSpec(
{lines}
    ),
)"""
    return (
        f"\nNext, write {config}:\n\n{textwrap.indent(text, '    ')}\n\n"
        f"and prepare the series:\n\n    python scripts/prepare_dataset.py {args.name} --raw-dir {args.raw_dir}"
    )


def _literal(value: object) -> str:
    """A value as a config file would have it."""
    return repr(value).replace("datetime.datetime", "datetime").replace("'", '"')


if __name__ == "__main__":
    run(main)
