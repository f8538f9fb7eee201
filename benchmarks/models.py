"""A forward and backward pass of every model, beside what the reference implementations took elsewhere.

Sizes are those of PEMS08 with each model's first recipe, values, roads and training part are random, each model has a
process of its own. The reference figures were taken on another machine: a ratio above 1.3 deserves a look, no more.
With --compile passes of the same model with and without torch.compile take turns.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks._common import (
    CATALOGUE,
    COMPILE,
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
  python benchmarks/models.py --compile default --row results/models/cpu-compiled.json
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
COMPILED_COLUMNS = (
    *COLUMNS[:5],
    Column("compiled_seconds", "compiled", ".3f"),
    Column("compiled_seconds_p20", "p20", ".3f"),
    Column("compiled_seconds_p80", "p80", ".3f"),
    Column("compiled_ratio", "of plain", ".2f"),
    Column("compile_seconds", "to compile s", ".0f"),
    COLUMNS[-1],
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print a table and, when asked to, write the rows."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    every = ",".join(CATALOGUE)
    parser.add_argument("--models", default=every, metavar="NAME,...", dest="chosen", help=f"of {every} (all)")
    parser.add_argument("--batch-size", type=int, default=4, metavar="B", help="windows at once (4)")
    parser.add_argument("--rounds", type=int, default=5, metavar="R", help="counted passes (5)")
    parser.add_argument("--compile", default="off", metavar="MODE", help=f"one of {', '.join(COMPILE)} (off)")
    add_options(parser)
    given = parser.parse_args(arguments)
    chosen = listed("--models", given.chosen, CATALOGUE)
    at_least_one(given, "rounds")
    check_options(given)
    device = "cuda" if given.cuda else "cpu"
    settings = {"batch_size": given.batch_size, "rounds": given.rounds, "threads": given.threads, "device": device}
    settings["compile"] = given.compile
    rows: list[Row] = []
    for name in chosen:
        print(f"{name}, {len(rows) + 1} of {len(chosen)}", file=sys.stderr, flush=True)
        rows.append(measured(name, given.batch_size, given.rounds, given.threads, device, given.compile))
    title = f"forward and backward, {SERIES.num_sensors} sensors, batch {given.batch_size}, random values, {device}"
    if given.compile != "off":
        title += f", with torch.compile ({given.compile}) and without in turns"
    table = render_table(COLUMNS if given.compile == "off" else COMPILED_COLUMNS, rows, title=title)
    print(table)
    if given.row:
        write_rows(given.row, content_of("models", settings, rows, reference=REFERENCE), table)


def measured(name: str, batch_size: int, rounds: int, threads: int, device: str, mode: str) -> Row:
    """One row, whatever happens."""
    row: Row = {"model": name, "reference_seconds": REFERENCE.get(name), "reason": None}
    with TemporaryDirectory() as cache:
        outcome = isolated(pass_seconds, name, batch_size, rounds, threads, device, mode, cache)
    if outcome.status != "ok":
        return row | failure_fields(outcome)
    passes: Passes = outcome.value
    row |= {"status": "ok", "parameters": passes.parameters, **median_and_quantiles("seconds", passes.plain)}
    comparable = batch_size == 4 and device == "cpu" and row["reference_seconds"]
    row["ratio"] = row["seconds"] / row["reference_seconds"] if comparable else None
    if passes.compiled:
        row |= median_and_quantiles("compiled_seconds", passes.compiled)
        row |= {"compiled_ratio": row["compiled_seconds"] / row["seconds"], "compile_seconds": passes.to_compile}
    return row


@dataclass(frozen=True)
class Passes:
    """Seconds of each counted pass in training mode, and of the first compiled one; number of parameters."""

    parameters: int
    plain: list[float]
    compiled: list[float]
    to_compile: float | None = None


def pass_seconds(name: str, batch_size: int, rounds: int, threads: int, device: str, mode: str, cache: str) -> Passes:
    """Build a model and time its passes, in turns with those of the same model compiled unless `mode` is off."""
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

    def work(called: Callable[..., Any] = model) -> None:
        found = called(inputs, clock)
        prediction = found["prediction"] if isinstance(found, dict) else found
        (prediction.square().mean() + (found.get("auxiliary_loss", 0) if isinstance(found, dict) else 0)).backward()
        model.zero_grad()

    seconds_of = stopwatch(device)
    works: dict[str, Callable[[], object]] = {"plain": work}
    to_compile = None
    if mode != "off":
        # Read when the compiler is imported: what its cache has would be no time at all, and its pool would outlive us.
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        # Its weights are the model's; sizes are fixed, as in a training.
        works["compiled"] = partial(work, torch.compile(model, mode=None if mode == "default" else mode, dynamic=False))
        to_compile = seconds_of(works["compiled"], 1)
    for each in works.values():
        for _ in range(WARM_PASSES - 1):
            each()
        warm(each, seconds_of)
    once = dict.fromkeys(works, 1)
    samples = interleaved(works, once, rounds=rounds, turn_seconds=0.0, seconds_of=seconds_of)
    seconds = {way: taken.all() for way, taken in samples.items()}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Passes(parameters, seconds["plain"], seconds.get("compiled", []), to_compile)


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
