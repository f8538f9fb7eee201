"""Print rows of results/ as one table; rows of incomplete runs say so."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ealinformer.cli import ArgumentParser, run
from ealinformer.errors import InputError
from ealinformer.files import write_text
from ealinformer.report.tables import Column, render_table
from ealinformer.training.runs.folder import read_json

EXAMPLES = """examples:
  python experiments/table.py results/PEMS08/*.json
  python experiments/table.py results/PEMS08/floor.json results/PEMS08/ELinFormer.json --output results/PEMS08/table.txt
"""

COLUMNS = (
    Column("name", "forecast"),
    Column("MAE", "MAE", ".2f"),
    Column("RMSE", "RMSE", ".2f"),
    Column("MAPE", "MAPE %", ".2f"),
    Column("steps", "steps"),
    Column("run", "run"),
)

# What tells two runs of one model apart, where a run chose it.
SAID_OF_A_MODEL = ("attention", "entropy")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and print the table."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="written by record.py or floor.py --row")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the table to a text file")
    given = parser.parse_args(arguments)
    rows = [row for file in given.files for row in read_rows(file)]
    kinds = {(row["dataset"], row["split"], row["windows"], row["simulated"]) for row in rows}
    if len(kinds) > 1:
        raise InputError(f"the rows are of {len(kinds)} kinds, expected one data set, split and number of windows")
    ((dataset, split, windows, simulated),) = kinds
    title = f"{dataset}{', SIMULATED series' if simulated else ''}: {split} part, {windows} windows, all horizons"
    table = render_table(COLUMNS, rows, title=title)
    print(table)
    if given.output:
        write_text(given.output, table + "\n")


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of one file, ready to be shown."""
    content = read_json(file)
    try:
        return [shown(row) for row in content.get("rows", [content])]
    except (KeyError, TypeError) as error:
        raise InputError(f"{file} is not a row of results: {error} is missing") from error


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the columns want it."""
    common = {key: row[key] for key in ("dataset", "split", "windows", "simulated")} | row["average"]
    if "forecast" in row:
        return {"name": row["forecast"], **common}
    of_run = "complete" if row["complete"] else f"INCOMPLETE: {row['stopped_by']}"
    params = row["config"]["model_params"]
    chosen = [str(params[key]) for key in SAID_OF_A_MODEL if key in params]
    return {"name": ", ".join([row["model"], *chosen]), **common, "steps": row["steps"], "run": of_run}


if __name__ == "__main__":
    run(main)
