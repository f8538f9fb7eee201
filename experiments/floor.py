"""Score the simple forecasts that a model has to beat on the test part of a prepared data set."""

from collections.abc import Sequence
from pathlib import Path

from ealinformer.cli import ArgumentParser, run
from ealinformer.data import open_prepared
from ealinformer.measure import provenance
from ealinformer.report.tables import Column, render_table
from ealinformer.training import load_config
from ealinformer.training.jobs import check_data
from ealinformer.training.resolve import resolve
from ealinformer.training.runs.folder import write_json
from ealinformer.training.simple import score_forecast, simple_forecasts

EXAMPLES = """examples:
  python experiments/floor.py -c configs/PEMS08.py
  python experiments/floor.py -c configs/PEMS08.py --split val --set output_len=6
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and print one table."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("-c", "--config", type=Path, required=True, metavar="FILE", help="e.g. configs/PEMS08.py")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="part to score (test)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="input_len=24")
    parser.add_argument("--datasets-dir", type=Path, default=Path("datasets"), metavar="DIR", help="prepared data sets")
    parser.add_argument("--row", type=Path, metavar="FILE", help="also write the scores as JSON, to keep in results/")
    given = parser.parse_args(arguments)

    config = resolve(load_config(given.config), settings=given.settings)
    data = open_prepared(given.datasets_dir / config.series.name)
    check_data(config, data)
    common = {"dataset": config.series.name, "simulated": config.series.simulated, "split": given.split}
    rows = [
        {
            "forecast": name,
            **common,
            "windows": len(forecast),
            **score_forecast(forecast, data, given.split, config),
        }
        for name, forecast in simple_forecasts(data, given.split, config).items()
    ]
    columns = [Column("forecast", "forecast"), *(Column(m, m if m != "MAPE" else "MAPE %", ".4f") for m in METRICS)]
    simulated = ", simulated series" if config.series.simulated else ""
    title = f"{config.series.name}{simulated}: {given.split} part, average over {config.output_len} horizons"
    print(render_table(columns, [{**row, **row["average"]} for row in rows], title=title))
    if given.row:
        write_json(given.row, {"rows": rows, **provenance()})


METRICS = ("MAE", "RMSE", "MAPE")

if __name__ == "__main__":
    run(main)
