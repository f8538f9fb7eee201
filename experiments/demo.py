"""Simulate traffic, train STAEformer and ELinFormer on it, and compare them with simple forecasts."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import _interrupt  # noqa: F401  before what takes seconds to import
import numpy as np

from ealinformer.cli import EXIT_INTERRUPTED, ArgumentParser, run
from ealinformer.data import PreparedSeries, open_prepared, prepare, simulate_traffic, write_raw
from ealinformer.errors import InputError
from ealinformer.files import write_text
from ealinformer.report.figures import error_by_horizon, forecast_against_truth, loss_curves
from ealinformer.report.tables import Column, render_table
from ealinformer.training import RunConfig, load_config
from ealinformer.training.predictions import read_predictions
from ealinformer.training.resolve import resolve
from ealinformer.training.runs.folder import read_row, write_json
from ealinformer.training.simple import score_forecast, simple_forecasts

CONFIG = Path("configs/DEMO.py")
DAYS = 28
SEED = 0
MODELS = ("ELinFormer", "STAEformer")
SIMPLE = ("last value", "weekly profile")
NOTE = "simulated series"

COLUMNS = (
    Column("forecast", "forecast"),
    Column("MAE", "MAE", ".2f"),
    Column("RMSE", "RMSE", ".2f"),
    Column("MAPE", "MAPE %", ".2f"),
    Column("seconds_per_epoch", "s/epoch", ".1f"),
    Column("peak_memory_mib", "peak MiB", ".0f"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run the demo."""
    parser = ArgumentParser(description=__doc__, epilog="example:\n  python experiments/demo.py --epochs 1\n")
    parser.add_argument("--epochs", type=int, metavar="N", help="at most N epochs a model; the config's when left out")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="folder of runs, figures and demo.json")
    parser.add_argument("--datasets-dir", type=Path, default=Path("datasets"), metavar="DIR")
    parser.add_argument("--record", type=Path, metavar="DIR", help="also copy table, rows and figures there")
    given = parser.parse_args(arguments)
    if not CONFIG.is_file():
        raise InputError(f"{CONFIG} is not here: run the demo from the top of the project")
    folder = given.output_dir or Path("checkpoints") / "DEMO" / f"{datetime.now():%Y%m%d-%H%M%S}"

    started = time.monotonic()
    config = resolve(load_config(CONFIG), settings=[f"num_epochs={given.epochs}"] if given.epochs is not None else [])
    data = prepare_demo(config, given.datasets_dir)
    for model in MODELS:
        print(f"\n--- {model}", flush=True)
        train(model, config, folder / model, given.datasets_dir)
    rows, predictions = compare(config, data, folder)
    write_json(folder / "demo.json", {"simulated": True, "rows": rows})
    figures = draw(config, data, folder, rows, predictions)
    table = render_table(COLUMNS, [{**r, **r["average"]} for r in rows], title=title(config, data))
    write_text(folder / "demo.txt", table + "\n")
    if given.record:
        record(given.record, [folder / "demo.json", folder / "demo.txt", *figures])
    print(f"\n{table}")
    print(farewell(folder, figures, time.monotonic() - started))


def prepare_demo(config: RunConfig, datasets_dir: Path) -> PreparedSeries:
    """Make the raw files by simulation where they are not there yet, and prepare them like any other data set."""
    raw_dir = datasets_dir / "raw"
    series = config.series
    if not (raw_dir / series.name / series.raw_file).is_file():
        print(f"simulating {series.num_sensors} sensors for {DAYS} days")
        traffic = simulate_traffic(series.num_sensors, DAYS * series.steps_per_day, seed=SEED, start=series.start)
        write_raw(raw_dir, series.name, traffic)
    return open_prepared(prepare(series, raw_dir, datasets_dir))


def train(model: str, config: RunConfig, folder: Path, datasets_dir: Path) -> None:
    """Train in a process of its own, so that peak memory is that of one model."""
    script = os.path.relpath(Path(__file__).with_name("train.py"))  # the run records its command
    command = [sys.executable, script, "-c", str(CONFIG), "--model", model]
    command += ["--epochs", str(config.recipe.num_epochs), "--datasets-dir", str(datasets_dir), "--predictions"]
    training = subprocess.Popen([*command, "--output-dir", str(folder)])
    try:
        status = training.wait()
    except KeyboardInterrupt:
        training.wait()  # it was interrupted as well and is tidying up
        raise
    if status == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        sys.exit(status)  # it has said why


def compare(
    config: RunConfig, data: PreparedSeries, folder: Path
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """One row a forecast, and the forecasts `[W, H, N]` of the test part by name."""
    simple = simple_forecasts(data, "test", config)
    predictions = {name: simple[name] for name in SIMPLE}
    rows = [{"forecast": name, **score_forecast(predictions[name], data, "test", config)} for name in SIMPLE]
    for model in reversed(MODELS):
        rows.append({"forecast": model, **read_row(folder / model)})
        predictions[model] = read_predictions(folder / model / "predictions.npz")["prediction"]
    return rows, predictions


def draw(
    config: RunConfig,
    data: PreparedSeries,
    folder: Path,
    rows: Sequence[dict[str, Any]],
    predictions: dict[str, np.ndarray],
) -> list[Path]:
    """Write the three figures."""
    unit, interval = config.series.unit, config.series.interval_minutes
    saved = read_predictions(folder / MODELS[0] / "predictions.npz")
    truth = np.where(saved["targets"] == config.series.null_value, np.nan, saved["targets"])
    two_days = slice(0, 2 * config.series.steps_per_day)
    busiest = np.argsort(np.nanmean(truth[:, 0], axis=0))[[-1, len(truth[0, 0]) // 2, 3]]
    by_name = {r["forecast"]: r for r in rows}
    # The same order in every figure: a model's colour goes by its place.
    curves = {name: [h["MAE"] for h in by_name[name]["horizons"].values()] for name in (*MODELS, *SIMPLE)}
    histories = {name: by_name[name]["history"] for name in MODELS}
    return [
        forecast_against_truth(
            saved["times"][two_days, 0],
            truth[two_days],
            {m: predictions[m][two_days] for m in MODELS},
            sensors=[int(s) for s in busiest],
            path=folder / "forecast.png",
            unit=unit,
            interval_minutes=interval,
            note=NOTE,
        ),
        error_by_horizon(curves, folder / "error_by_horizon.png", unit=unit, interval_minutes=interval, note=NOTE),
        loss_curves(histories, folder / "loss.png", unit=unit, note=NOTE),
    ]


def record(target: Path, files: Sequence[Path]) -> None:
    """Copy what the demo measured to a folder that is tracked."""
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, target)


def title(config: RunConfig, data: PreparedSeries) -> str:
    """Headline of the table."""
    days = data.num_steps // data.steps_per_day
    return (
        f"SIMULATED traffic, {data.num_sensors} sensors, {days} days: test part, average over {config.output_len} "
        f"horizons of {config.series.interval_minutes} minutes"
    )


def farewell(folder: Path, figures: Sequence[Path], seconds: float) -> str:
    """What was written and what to try next."""
    pictures = "\n".join(f"  {figure}" for figure in figures)
    return f"""
{seconds:.0f} seconds in all. Pictures to look at:
{pictures}

What next:
  source .venv/bin/activate
  python experiments/evaluate.py -c configs/DEMO.py --checkpoint {folder}/ELinFormer/best.pt
  python experiments/train.py -c configs/DEMO.py --set model.entropy=gaussian
  python scripts/prepare_dataset.py PEMS08 --download
  python experiments/train.py -c configs/PEMS08.py --gpus 0"""


if __name__ == "__main__":
    run(main)
