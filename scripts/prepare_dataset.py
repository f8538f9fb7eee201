"""Prepare a series for training: find or fetch its raw files, check them, split them, write them for BasicTS."""

from collections.abc import Sequence
from pathlib import Path

from ealinformer.cli import ArgumentParser, run
from ealinformer.data import PUBLIC, PreparedSeries, SeriesSpec, open_prepared, prepare
from ealinformer.data.meta import is_prepared
from ealinformer.data.prepare import DEFAULT_MIN_WINDOW
from ealinformer.data.raw_files import at_hand
from ealinformer.errors import InputError, suggestion
from ealinformer.report.tables import Column, render_table
from ealinformer.training import load_config

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RAW_DIR = Path("datasets/raw")

EXAMPLES = """examples:
  python scripts/prepare_dataset.py PEMS08 --download          fetch, check and prepare a public series
  python scripts/prepare_dataset.py PEMS08 --raw-dir ~/pems    from files at hand: ~/pems/PEMS08/ or ~/pems/
  python scripts/prepare_dataset.py MYCITY                     a series of your own: configs/MYCITY.py
  python scripts/prepare_dataset.py -c ../mycity.py            ... or a config anywhere
  python scripts/prepare_dataset.py --list                     what is known, and what is prepared
"""

COLUMNS = (
    Column("name", "name"),
    Column("sensors", "sensors"),
    Column("steps", "steps"),
    Column("minutes", "minutes"),
    Column("target", "target"),
    Column("split", "split"),
    Column("prepared", "prepared"),
)


def parser() -> ArgumentParser:
    """The command line."""
    parser = ArgumentParser(prog="prepare_dataset.py", description=__doc__, epilog=EXAMPLES)
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"{', '.join(PUBLIC)}, or NAME of configs/NAME.py")
    parser.add_argument("-c", "--config", type=Path, help="config file whose series is prepared")
    parser.add_argument("--raw-dir", type=Path, default=RAW_DIR, help="raw files (default: %(default)s)")
    parser.add_argument(
        "--datasets-dir", type=Path, default=Path("datasets"), help="prepared series (default: %(default)s)"
    )
    parser.add_argument("--download", action="store_true", help="fetch raw files that are not at hand")
    parser.add_argument(
        "--day-of-week",
        choices=("calendar", "row"),
        help='Monday is 0 ("calendar"), or days are counted from row 0 as BasicTS\'s scripts do ("row")',
    )
    parser.add_argument("--force", action="store_true", help="prepare again what is up to date")
    parser.add_argument("--list", action="store_true", help="print what is known and what is prepared")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, prepare, summarise."""
    args = parser().parse_args(argv)
    if args.list:
        print(listing(args.datasets_dir))
        return
    spec, min_window = find_spec(args.name, args.config)
    if args.day_of_week:
        spec = spec.model_copy(update={"day_of_week": args.day_of_week})
    if spec.simulated and not is_prepared(args.datasets_dir / spec.name) and not at_hand(spec, args.raw_dir).series:
        folder = "" if args.raw_dir == RAW_DIR else f" --raw-dir {args.raw_dir}"
        raise InputError(
            f"{args.raw_dir / spec.name / spec.raw_file} is not there: make it with  python "
            f"scripts/simulate_traffic.py {spec.name} --sensors {spec.num_sensors}{folder}"
        )
    target = prepare(
        spec,
        args.raw_dir,
        args.datasets_dir,
        allow_download=args.download,
        force=args.force,
        min_window=min_window,
        report=lambda line: print(line, flush=True),
    )
    print(summary(open_prepared(target)))


def find_spec(name: str | None, config: Path | None) -> tuple[SeriesSpec, int]:
    """The series that is asked for and how many steps one of its windows spans."""
    if (name is None) == (config is None):
        raise InputError("give either the NAME of a series or -c CONFIG (see prepare_dataset.py --help)")
    if config is None:
        assert name is not None
        if name in PUBLIC:
            return PUBLIC[name], DEFAULT_MIN_WINDOW
        config = CONFIGS / f"{name}.py"
        known = known_names()
        if name not in known:
            raise InputError(
                f"no series is called {name!r}{suggestion(name, known)}, known are {', '.join(known)}; one of a config "
                "that is not in configs/ is prepared with -c CONFIG"
            )
    experiment = load_config(config)
    return experiment.series, experiment.input_len + experiment.output_len


def known_names() -> list[str]:
    """Public series, then configs that are none of them."""
    return [*PUBLIC, *(path.stem for path in sorted(CONFIGS.glob("*.py")) if path.stem not in PUBLIC)]


def listing(datasets_dir: Path) -> str:
    """A table of all known series and of what else is prepared in `datasets_dir`."""
    known = known_names()
    others = sorted({path.parent.name for path in datasets_dir.glob("*/meta.json")} - set(known))
    return render_table(COLUMNS, [row(name, datasets_dir) for name in (*known, *others)])


def row(name: str, datasets_dir: Path) -> dict[str, object]:
    """One line of the table; sizes come from the prepared folder, else from the public description."""
    directory = datasets_dir / name
    state = "no" if name in PUBLIC else f"no, see configs/{name}.py"
    if (directory / "meta.json").is_file():
        try:
            meta = open_prepared(directory).meta
        except InputError:
            state = f"{directory} is damaged or not ours"
        else:
            target = meta["target"] + (", simulated" if meta["simulated"] else "")
            sizes = (meta["num_sensors"], meta["num_steps"], meta["interval_minutes"])
            return line(name, *sizes, target, meta["split"], str(directory))
    if name in PUBLIC:
        spec = PUBLIC[name]
        return line(name, spec.num_sensors, spec.num_steps, spec.interval_minutes, spec.target, spec.split, state)
    return {"name": name, "prepared": state}


def line(
    name: str,
    sensors: int,
    steps: int | None,
    minutes: int,
    target: str,
    split: tuple[float, float, float],
    prepared: str,
) -> dict[str, object]:
    """The cells of a series whose description is known."""
    cells = (name, sensors, steps, minutes, target, shares(split), prepared)
    return {column.key: cell for column, cell in zip(COLUMNS, cells, strict=True)}


def shares(split: tuple[float, float, float]) -> str:
    """The split as 0.6:0.2:0.2."""
    return ":".join(f"{share:g}" for share in split)


def summary(series: PreparedSeries) -> str:
    """What was prepared, a few aligned lines."""
    meta, statistics = series.meta, series.meta["statistics"]
    readings = series.num_steps * series.num_sensors
    graph = meta["graph"]
    lines = {
        "series": f"{meta['name']}: {'SIMULATED ' * meta['simulated']}{meta['target']}, {meta['unit']}",
        "shape": f"{series.num_steps} steps x {series.num_sensors} sensors, every {series.interval_minutes} minutes",
        "start": f"{series.start:%A %Y-%m-%d %H:%M}, day of week by {meta['day_of_week']}",
        "split": " / ".join(f"{meta['steps'][split]}" for split in ("train", "val", "test")),
        "missing": f"{statistics['missing'] / readings:.2%} of the readings are {series.null_value:g}",
        "range": f"{statistics['min']:g} to {statistics['max']:g}",
        "all": f"mean {statistics['mean']:.6f}, std {statistics['std']:.6f}",
        "train": f"mean {statistics['train_mean']:.6f}, std {statistics['train_std']:.6f}",
        "copies": f"{series.num_sensors - statistics['distinct_sensors']} sensors repeat another one",
        "graph": f"{graph['edges']} edges, weights are {graph['weights']}" if graph else "none",
        "folder": f"{series.directory}",
    }
    return "\n".join(f"  {label:<8}{text}" for label, text in lines.items())


if __name__ == "__main__":
    run(main)
