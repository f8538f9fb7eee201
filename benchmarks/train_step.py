"""Time one train step (forward, backward, Adam) of ELinFormer against STAEformer on the shapes of a data set.

The values are random: time and memory do not depend on them. Models take turns, so that a drift of the machine hits all
alike, and what counts is the ratio of two steps that follow each other.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from baselines.STAEformer import STAEformer, STAEformerConfig
from ealinformer.cli import ArgumentParser, run
from ealinformer.data import PUBLIC
from ealinformer.errors import InputError, suggestion
from ealinformer.files import write_text
from ealinformer.measure import provenance
from ealinformer.measure.timing import quantile, synchronize
from ealinformer.models import ELinFormer, ELinFormerConfig
from ealinformer.report.tables import Column, render_table

EXAMPLES = """examples:
  python benchmarks/train_step.py PEMS08
  python benchmarks/train_step.py PEMS07 --batch-size 4 --rounds 20 --row results/train_step/PEMS07-cpu.json
"""

SEED = 0
REFERENCE = "STAEformer, explicit softmax"
MODELS: dict[str, Callable[[int], nn.Module]] = {
    REFERENCE: lambda n: STAEformer(STAEformerConfig(num_features=n, attention="softmax")),
    "STAEformer, fused softmax": lambda n: STAEformer(STAEformerConfig(num_features=n)),
    "ELinFormer, taylor": lambda n: ELinFormer(ELinFormerConfig(num_features=n)),
    "ELinFormer, gaussian": lambda n: ELinFormer(ELinFormerConfig(num_features=n, entropy="gaussian")),
}

COLUMNS = (
    Column("model", "model"),
    Column("seconds", "s/step", ".3f"),
    Column("ratio", "ratio", ".3f"),
    Column("ratio_p20", "p20", ".3f"),
    Column("ratio_p80", "p80", ".3f"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print a table and, when asked to, write a row."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("dataset", metavar="NAME", help=f"whose shape to take: {', '.join(PUBLIC)}")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="windows in a step (16)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="counted steps of every model (10)")
    parser.add_argument("--cuda", action="store_true", help="on the GPU in place of the CPU")
    parser.add_argument(
        "--row", type=Path, metavar="FILE", help="also write the measurement as JSON, and the table beside it"
    )
    given = parser.parse_args(arguments)
    if given.dataset not in PUBLIC:
        raise InputError(f"unknown data set {given.dataset!r}{suggestion(given.dataset, PUBLIC)}")
    if given.batch_size < 1 or given.rounds < 1:
        raise InputError("--batch-size and --rounds have to be at least 1")
    if given.cuda and not torch.cuda.is_available():
        raise InputError(f"--cuda: no CUDA device (torch {torch.__version__})")

    torch.manual_seed(SEED)
    num_sensors = PUBLIC[given.dataset].num_sensors
    rows = measure(num_sensors, given.batch_size, given.rounds, "cuda" if given.cuda else "cpu")
    title = (
        f"{given.dataset}'s shape, random values: {num_sensors} sensors, batch {given.batch_size}; ratio to {REFERENCE}"
    )
    table = render_table(COLUMNS, rows, title=title)
    print(table)
    if given.row:
        given.row.parent.mkdir(parents=True, exist_ok=True)
        kind = {"kind": "train step", "dataset_shape": given.dataset, "random_values": True, "seed": SEED}
        sizes = {"num_sensors": num_sensors, "batch_size": given.batch_size, "rounds": given.rounds, "dtype": "float32"}
        write_text(given.row, json.dumps({**kind, **sizes, "rows": rows, **provenance()}, indent=2) + "\n")
        write_text(given.row.with_suffix(".txt"), table + "\n")


def measure(num_sensors: int, batch_size: int, rounds: int, device: str) -> list[dict[str, Any]]:
    """One row a model: median seconds of a step, and the ratio to the reference's step of the same round."""
    steps = {name: train_step(build(num_sensors).to(device), num_sensors, batch_size) for name, build in MODELS.items()}
    for step in steps.values():  # the first steps allocate and choose kernels
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(rounds), desc="rounds", leave=False, disable=not sys.stderr.isatty()):
        for name, step in steps.items():
            seconds[name].append(step())
    return [{"model": name, **summary(taken, seconds[REFERENCE])} for name, taken in seconds.items()]


def train_step(model: nn.Module, num_sensors: int, batch_size: int) -> Callable[[], float]:
    """A function that takes one step on random windows and returns its seconds."""
    device = next(model.parameters()).device
    inputs = torch.randn(batch_size, 12, num_sensors, device=device)
    targets = torch.randn(batch_size, 12, num_sensors, device=device)
    timestamps = torch.rand(batch_size, 12, 2, device=device) * 0.99
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> float:
        synchronize(device)
        start = time.perf_counter()
        optimizer.zero_grad()
        (model(inputs, timestamps) - targets).abs().mean().backward()
        optimizer.step()
        synchronize(device)
        return time.perf_counter() - start

    return step


def summary(taken: list[float], reference: list[float]) -> dict[str, float]:
    """Median seconds; median, 20th and 80th percentile of the ratios round by round."""
    ratios = [a / b for a, b in zip(taken, reference, strict=True)]
    return {
        "seconds": statistics.median(taken),
        "ratio": statistics.median(ratios),
        "ratio_p20": quantile(ratios, 0.2),
        "ratio_p80": quantile(ratios, 0.8),
    }


if __name__ == "__main__":
    run(main)
