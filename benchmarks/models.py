"""A forward and backward pass of every model, beside what the reference implementations took elsewhere.

Sizes are those of PEMS08 with each model's first recipe, values, roads and training part are random, each model has a
process of its own. The reference figures were taken on another machine: a ratio above 1.3 deserves a look, no more.
"""

import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from benchmarks._common import (
    CATALOGUE,
    add_options,
    at_least_one,
    check_options,
    content_of,
    listed,
    write_rows,
)
from ealinformer.cli import ArgumentParser, run
from ealinformer.data.prior import ArrayPrior
from ealinformer.data.sources import PUBLIC
from ealinformer.measure.isolated import isolated
from ealinformer.measure.rows import Row, failure_fields, median_and_quantiles
from ealinformer.measure.timing import interleaved, stopwatch, warm
from ealinformer.measure.train_step import SEED
from ealinformer.report.tables import Column, render_table
from ealinformer.training import Experiment
from ealinformer.training.resolve import resolve

EXAMPLES = """examples:
  python benchmarks/models.py --threads 2
  python benchmarks/models.py --models DCRNN,GWNet --rounds 3 --row results/models/cpu.json
"""
# Seconds of the authors' or BasicTS 0.5.8's code: the median of 3 passes after 2, batch 4, 170 sensors, 12 steps in and
# 12 out, 2 threads, random inputs and graph, PyTorch 2.12.1.
REFERENCE = {
    "AGCRN": 0.52,
    "DCRNN": 0.332,
    "GTS": 0.89,
    "D2STGNN": 0.42,
    "HimNet": 2.35,
    "STGCN": 0.045,
    "MTGNN": 0.06,
    "GWNet": 0.123,
    "PDFormer": 0.502,
    "STWave": 0.434,
    "STAEformer": 0.663,
}
SERIES = PUBLIC["PEMS08"]
TRAIN_STEPS = 10_713
STEPS = 12
WARM_PASSES = 2
COLUMNS = (
    Column("model", "model"),
    Column("parameters", "parameters", ",d"),
    Column("seconds", "s/pass", ".3f"),
    Column("seconds_p20", "p20", ".3f"),
    Column("seconds_p80", "p80", ".3f"),
    Column("reference_seconds", "elsewhere s", ".3f"),
    Column("ratio", "ratio", ".2f"),
    Column("reason", "note"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print a table and, when asked to, write the rows."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    every = ",".join(CATALOGUE)
    parser.add_argument("--models", default=every, metavar="NAME,...", dest="chosen", help=f"of {every} (all)")
    parser.add_argument("--batch-size", type=int, default=4, metavar="B", help="windows at once (4)")
    parser.add_argument("--rounds", type=int, default=5, metavar="R", help="counted passes (5)")
    add_options(parser)
    given = parser.parse_args(arguments)
    chosen = listed("--models", given.chosen, CATALOGUE)
    at_least_one(given, "rounds")
    check_options(given)
    device = "cuda" if given.cuda else "cpu"
    settings = {"batch_size": given.batch_size, "rounds": given.rounds, "threads": given.threads, "device": device}
    rows: list[Row] = []
    for name in chosen:
        print(f"{name}, {len(rows) + 1} of {len(chosen)}", file=sys.stderr, flush=True)
        rows.append(measured(name, given.batch_size, given.rounds, given.threads, device))
    title = f"forward and backward, {SERIES.num_sensors} sensors, batch {given.batch_size}, random values, {device}"
    table = render_table(COLUMNS, rows, title=title)
    print(table)
    if given.row:
        write_rows(given.row, content_of("models", settings, rows, reference=REFERENCE), table)


def measured(name: str, batch_size: int, rounds: int, threads: int, device: str) -> Row:
    """One row, whatever happens."""
    row: Row = {"model": name, "reference_seconds": REFERENCE.get(name), "reason": None}
    outcome = isolated(pass_seconds, name, batch_size, rounds, threads, device)
    if outcome.status != "ok":
        return row | failure_fields(outcome)
    parameters, seconds = outcome.value
    row |= {"status": "ok", "parameters": parameters, **median_and_quantiles("seconds", seconds)}
    comparable = batch_size == 4 and device == "cpu" and row["reference_seconds"]
    return row | {"ratio": row["seconds"] / row["reference_seconds"] if comparable else None}


def pass_seconds(name: str, batch_size: int, rounds: int, threads: int, device: str) -> tuple[int, list[float]]:
    """Number of parameters, and the seconds of each counted pass in training mode."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    entry = CATALOGUE[name]
    run = resolve(Experiment(series=SERIES), model=name, catalogue=CATALOGUE)
    sizes: dict[str, Any] = {"num_features": SERIES.num_sensors, "num_time_in_day": SERIES.steps_per_day}
    known = {key.name for key in fields(entry.config)}
    config = entry.build_config(**{key: value for key, value in sizes.items() if key in known}, **run.model_params)
    model = (entry.model(config, random_prior()) if entry.takes_prior else entry.model(config)).to(device).train()
    inputs = torch.randn(batch_size, STEPS, SERIES.num_sensors, device=device)
    clock = torch.rand(batch_size, STEPS, 2, device=device) * 0.99

    def work() -> None:
        found = model(inputs, clock)
        prediction = found["prediction"] if isinstance(found, dict) else found
        (prediction.square().mean() + (found.get("auxiliary_loss", 0) if isinstance(found, dict) else 0)).backward()
        model.zero_grad()

    seconds_of = stopwatch(device)
    for _ in range(WARM_PASSES - 1):
        work()
    warm(work, seconds_of)
    samples = interleaved({"": work}, {"": 1}, rounds=rounds, turn_seconds=0.0, seconds_of=seconds_of)[""]
    return sum(parameter.numel() for parameter in model.parameters()), samples.all()


def random_prior() -> ArrayPrior:
    """A ring of sensors with as many roads across, and a training part of a daily wave with noise."""
    rng = np.random.default_rng(SEED)
    sensors, day = SERIES.num_sensors, SERIES.steps_per_day
    adjacency = np.roll(np.eye(sensors, dtype=np.float32), 1, axis=1)
    adjacency[rng.integers(sensors, size=sensors), rng.integers(sensors, size=sensors)] = 1
    np.fill_diagonal(adjacency, 0)
    step = np.arange(TRAIN_STEPS)
    wave = np.sin(2 * np.pi * step[:, None] / day + np.linspace(0, 3, sensors))
    series = 200 + 100 * wave + rng.normal(scale=10, size=wave.shape)
    calendar = np.stack([step % day / day, step // day % 7 / 7], axis=1)
    return ArrayPrior(
        sensors, np.maximum(adjacency, adjacency.T), series.astype(np.float32), calendar.astype(np.float32)
    )


if __name__ == "__main__":
    run(main)
