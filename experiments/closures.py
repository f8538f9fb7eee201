"""Compare the entropy estimators with softmax's own entropy on random scores; makes the figures of docs/method.md."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from ealinformer.analysis.closures import FAMILIES, sweep
from ealinformer.cli import ArgumentParser, run
from ealinformer.errors import InputError
from ealinformer.files import write_text
from ealinformer.measure import provenance
from ealinformer.report.closures import closures_table, domain_figure, error_figure, theta_figure
from ealinformer.training.runs.folder import write_json

EXAMPLES = """examples:
  python experiments/closures.py
  python experiments/closures.py --lengths 883 --draws 1 --output-dir /tmp/closures
"""
STDS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.7, 8.0, 9.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, sweep, and write rows, table and figures."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--lengths", type=int, nargs="+", default=[12, 307], metavar="N", help="keys (12 307)")
    parser.add_argument("--draws", type=int, default=4, metavar="N", help="draws of keys and queries a case (4)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (0)")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("results/closures"), metavar="DIR", help="where rows and figures go"
    )
    given = parser.parse_args(arguments)
    if min(given.lengths) < 2 or given.draws < 1:
        raise InputError(f"--lengths of at least 2 and --draws of at least 1, got {given.lengths} and {given.draws}")

    torch.set_num_threads(1)  # small matrices; and sums in one order, whatever the machine
    with tqdm(desc="cases", unit="case") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        rows = sweep(list(FAMILIES), STDS, given.lengths, draws=given.draws, seed=given.seed, progress=progress)
    given.output_dir.mkdir(parents=True, exist_ok=True)
    write_json(given.output_dir / "closures.json", {"simulated": True, "rows": rows, **provenance()})
    table = "\n\n".join(closures_table(rows, num_keys=n) for n in given.lengths)
    write_text(given.output_dir / "table.txt", table + "\n")
    longest = max(given.lengths)
    for figure, name in ((theta_figure, "theta"), (error_figure, "error"), (domain_figure, "domain")):
        print(figure(rows, given.output_dir / f"{name}.png", num_keys=longest))
    print(f"\n{table}")


if __name__ == "__main__":
    run(main)
