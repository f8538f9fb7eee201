"""Train models side by side on one series, each in a process of its own; or print what is published of them."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any

from _common import CATALOGUE
from _published import TABLES, published_pages
from _side_by_side import plan, say, train_all
from demo import prepare_demo

from ealinformer.cli import ArgumentParser, run
from ealinformer.data.meta import is_prepared
from ealinformer.errors import InputError
from ealinformer.files import write_text
from ealinformer.measure import provenance
from ealinformer.models import find_model
from ealinformer.report.comparison import comparison_page
from ealinformer.report.comparison_figure import comparison_figure, drawable
from ealinformer.training import Experiment, load_config
from ealinformer.training.resolve import resolve
from ealinformer.training.runs.folder import read_json, write_json

EXAMPLES = """examples:
  python experiments/compare.py -c configs/DEMO.py --models all --epochs 2
  python experiments/compare.py -c configs/PEMS08.py --models ELinFormer,GWNet,DCRNN --seeds 1,2,3 --gpus 0 \\
      --output-dir checkpoints/comparisons/mine --row results/comparison/PEMS08.json
  python experiments/compare.py -c configs/PEMS07.py --set DCRNN:batch_size=16 --set dtype=bf16 --gpus 0
  python experiments/compare.py --table
  python experiments/compare.py --table sources -c configs/PEMS08.py --models GWNet

Given the same --output-dir a comparison goes on: finished runs are kept, one that was begun goes on from its
checkpoint, one that failed is tried again. A model that cannot be trained is a line of the table that says why; the
exit status then is 1. --set MODEL:KEY=VALUE is for that model alone.
"""
EXIT_FAILED = 1
ALL = "all"
OF_TRAINING = ("seeds", "epochs", "recipe", "graph", "settings", "gpus", "row")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, train what is not trained yet, print the comparison and write it."""
    given = parse(arguments)
    if given.table is not None:
        models = None if given.models == [ALL] else given.models
        where = {"results": given.results, "runs": given.output_dir}
        print(published_pages(given.table, CATALOGUE, config=given.config, models=models, **where))
        return
    experiment = load_config(given.config)
    series = experiment.series
    models = list(CATALOGUE) if given.models == [ALL] else given.models
    for model in models:
        find_model(model, CATALOGUE)
    seeds = given.seeds or [experiment.seed]
    if series.simulated and not is_prepared(given.datasets_dir / series.name):
        with redirect_stdout(sys.stderr):  # standard output is the table
            prepare_demo(resolve(experiment, catalogue=CATALOGUE), given.datasets_dir)
    folder = given.output_dir or Path("checkpoints/comparisons") / series.name / f"{datetime.now():%Y%m%d-%H%M%S}"
    planned = [plan(model, seed, experiment, folder, given) for seed in seeds for model in models]
    reasons = {one.refused for one in planned}
    if len(reasons) == 1 and planned[0].refused:
        raise InputError(planned[0].refused)  # the data, the devices or a setting that all of them share

    about = {"dataset": series.name, "simulated": series.simulated, "models": models, "seeds": seeds}
    if given.row:
        check_row(given.row, about)
    targets = [folder / "comparison.json", *([given.row] if given.row else [])]
    for path in targets:
        make_folder(path.parent)

    say(f"{len(planned)} runs in {folder}; the same command with --output-dir {folder} goes on with them")
    rows, failures = train_all(planned, folder)
    page = comparison_page(rows, failures, models=models, title=title_of(experiment, rows, seeds, given.epochs))
    content = {**about, "rows": rows, "failures": failures, **provenance()}
    for path in targets:
        write(path, content, page, experiment)
    print(page)
    if failures:
        sys.exit(EXIT_FAILED)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with what needs no config checked. Raises InputError."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    add("-c", "--config", type=Path, metavar="FILE", help="e.g. configs/PEMS08.py; --table does without")
    add("--models", default=ALL, metavar="LIST", help=f"{ALL} (default), or some with commas: {', '.join(CATALOGUE)}")
    add("--seeds", metavar="LIST", help="such as 1,2,3: the table has their means; the config's when left out")
    add("--epochs", type=int, metavar="N", help="at most N epochs a run; as its recipe has it when left out")
    add("--recipe", metavar="NAME", help="of all models: basicts, authors ...; the first of each when left out")
    add("--graph", metavar="KIND", help="of models that take one: road (default), correlation, knn, none or a file")
    add("--set", action="append", default=[], metavar="[MODEL:]KEY=VALUE", dest="settings", help="as in train.py")
    add("--gpus", metavar="LIST", help="0, or 0,1 for several; the CPU when left out")
    add("--datasets-dir", type=Path, default=Path("datasets"), metavar="DIR", help="prepared data sets")
    add("--output-dir", type=Path, metavar="DIR", help="folder of the runs and their comparison, new or to go on with")
    add(
        "--row", type=Path, metavar="FILE", help="also write rows (.json), table (.txt) and figure (.png), for results/"
    )
    which = "; ".join(f"{name}, {about}" for name, about in TABLES.items())
    add(
        "--table", nargs="?", choices=TABLES, const="ours", metavar="WHAT", help=f"train nothing, print tables: {which}"
    )
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="of --table: where our rows are (results)")
    given = parser.parse_args(arguments)

    given.models = [name.strip() for name in given.models.split(",")]
    if given.table is None and given.config is None:
        raise InputError(
            f"-c FILE is expected, the config of a series; --table does without (see {parser.prog} --help)"
        )
    for name in OF_TRAINING if given.table is not None else ():
        if getattr(given, name) not in (None, []):
            raise InputError(f"--{name.replace('settings', 'set')} does not go with --table, which trains nothing")
    try:
        given.seeds = [int(text) for text in given.seeds.split(",")] if given.seeds is not None else []
    except ValueError:
        raise InputError(f"--seeds {given.seeds}: whole numbers with commas are expected, such as 1,2,3") from None
    for option, chosen in (("--models", given.models), ("--seeds", given.seeds)):
        if len(set(chosen)) < len(chosen):
            raise InputError(f"{option} {','.join(map(str, chosen))}: one of them is there twice")
    if given.row is not None and given.row.suffix != ".json":
        raise InputError(f"--row {given.row}: a file that ends in .json is expected")
    return given


def check_row(path: Path, about: dict[str, Any]) -> None:
    """Raises InputError where a file of rows is there already and of something else than this comparison."""
    if path.exists():
        content = read_json(path)
        if any(content.get(key) != value for key, value in about.items()):
            raise InputError(f"--row {path}: there already, and no row of this comparison; a new file is expected")


def title_of(experiment: Experiment, rows: Sequence[dict[str, Any]], seeds: Sequence[int], epochs: int | None) -> str:
    """Headline of the table."""
    series = experiment.series
    name = f"{series.name}, SIMULATED series" if series.simulated else series.name
    windows = f"{rows[0]['windows']} windows, " if rows else ""
    config = rows[0]["config"] if rows else {"output_len": experiment.output_len}
    cut = f"; at most {epochs} epoch{'s' * (epochs > 1)}" if epochs is not None else ""
    horizons = f"{config['output_len']} horizons of {series.interval_minutes} minutes"
    return f"{name}: test part, {windows}average over {horizons}; seed {', '.join(map(str, seeds))}{cut}"


def make_folder(path: Path) -> None:
    """Raises InputError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {path} cannot be made: {error.strerror}") from error


def write(path: Path, content: dict[str, Any], page: str, experiment: Experiment) -> None:
    """Rows, and beside them the table and, where there is anything to draw, the figure."""
    write_json(path, content)
    write_text(path.with_suffix(".txt"), page + "\n")
    written = [path, path.with_suffix(".txt")]
    if drawable(content["rows"]):
        note = "simulated series" if content["simulated"] else None
        written.append(
            comparison_figure(content["rows"], path.with_suffix(".png"), unit=experiment.series.unit, note=note)
        )
    say(f"written: {', '.join(map(str, written))}")


if __name__ == "__main__":
    run(main)
