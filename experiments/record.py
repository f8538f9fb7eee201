"""Keep what a finished run measured as a row of results/, with its config, history, machine, versions and commit."""

from collections.abc import Sequence
from pathlib import Path

from ealinformer.cli import ArgumentParser, run
from ealinformer.errors import InputError
from ealinformer.training.runs.folder import read_row, write_json

EXAMPLES = """examples:
  python experiments/record.py checkpoints/ELinFormer/PEMS08/RUN results/PEMS08/ELinFormer-seed42.json
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and write the row."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("row", type=Path, metavar="ROW", help="JSON file to write, not there yet")
    given = parser.parse_args(arguments)
    if given.row.suffix != ".json" or given.row.exists():
        raise InputError(f"row {given.row}: a new file that ends in .json is expected")
    row = read_row(given.run_folder)
    try:
        given.row.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"row {given.row}: its folder cannot be made: {error.strerror}") from error
    write_json(given.row, row)
    incomplete = "" if row["complete"] else f", NOT a complete run: stopped by {row['stopped_by']}"
    resumed = ", resumed with other code or on another machine" if "resumed" in row else ""
    mae = row["average"]["MAE"]
    score = "no MAE that is a number" if mae is None else f"MAE {mae:.4f}"
    print(f"{given.row}: {row['model']} on {row['dataset']}, {score}{incomplete}{resumed}")


if __name__ == "__main__":
    run(main)
