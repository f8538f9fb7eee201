"""Hold entropy-equal weights against softmax's in a trained model: entropy, theta, distances, negatives, output error.

Queries, keys and values of every attention layer are taken from real windows of the test part, as the model computes
them. Softmax and every entropy estimator then answer the same scores.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import CATALOGUE, add_run_arguments
from torch import Tensor, nn
from tqdm import tqdm

from ealinformer.analysis.attention import CLIP, EPS
from ealinformer.analysis.attention_capture import Call, attention_layers, captured
from ealinformer.analysis.attention_tally import LayerTally
from ealinformer.cli import ArgumentParser, run
from ealinformer.data import open_prepared
from ealinformer.errors import InputError
from ealinformer.files import write_text
from ealinformer.measure import provenance
from ealinformer.report.attention_analysis import deficit_figure, error_figure, theta_figure
from ealinformer.report.attention_analysis_tables import head_table, summarise, summary_table
from ealinformer.training import RunConfig, load_config
from ealinformer.training.checkpoints.checkpoint import check_fits, load_checkpoint, load_weights
from ealinformer.training.host import host_config
from ealinformer.training.jobs import Job, prepare_job
from ealinformer.training.predictions import input_windows
from ealinformer.training.progress import duration
from ealinformer.training.resolve import resolve
from ealinformer.training.runs.folder import STATUS, birth, write_json
from ealinformer.training.scaler import GlobalZScoreScaler

EXAMPLES = """examples:
  python experiments/analyze_attention.py -c configs/PEMS08.py --model STAEformer --checkpoint RUN/best.pt
  python experiments/analyze_attention.py -c configs/PEMS08.py --checkpoint RUN/best.pt --windows 8 \\
      --output results/attention/PEMS08-ELinFormer.json

written are FILE.json (a row of results), FILE.txt (the tables) and the figures FILE-deficit.png, FILE-theta.png and
FILE-error.png; FILE is attention-best beside the checkpoint best.pt unless --output names another.
"""
# All else is the checkpoint's, and a --set without effect would mislead.
SETTINGS = ("input_len", "output_len")
WINDOWS, QUERIES = 32, 2048
SECONDS_BETWEEN_LINES = 30.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, analyse, and write row, tables and figures."""
    given = parse(arguments)
    config = resolve(load_config(given.config), model=given.model, settings=given.settings, catalogue=CATALOGUE)
    job = prepare_job(config, CATALOGUE, datasets_dir=given.datasets_dir, gpus=given.gpus)
    saved, state = load_checkpoint(given.checkpoint)
    check_fits(given.checkpoint, saved, config)
    model = load_model(job, saved, given.checkpoint, state)
    inputs, timestamps, chosen = choose_windows(job, saved, state, given.windows)
    checkpoint = describe_checkpoint(given.checkpoint, state)
    output = given.output or given.checkpoint.with_name(f"attention-{given.checkpoint.stem}.json")
    make_folder(output)  # before minutes of work

    tallies = analyse(model, inputs, timestamps, given.queries, saved.seed, given.checkpoint)
    heads = rows_of(tallies)
    row = {
        "kind": "attention_analysis",
        "model": saved.model,
        "dataset": saved.series.name,
        "simulated": saved.series.simulated,
        "split": "test",
        "windows": len(chosen),
        "window_indices": chosen,
        "queries_at_most": given.queries,  # of each head, in a layer and window
        "eps": EPS,
        "clip": CLIP,
        "seed": saved.seed,
        "checkpoint": checkpoint,
        "summary": rounded(summarise(heads)),
        "heads": heads,
        "config": saved.model_dump(mode="json"),
        **provenance(),
    }
    write(row, tallies, output)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked as far as it goes without a file."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    add_run_arguments(parser, set_help="input_len=24 or output_len=24")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="best.pt or last.pt of a run")
    parser.add_argument(
        "--windows", type=int, default=WINDOWS, metavar="W", help=f"evenly spread over the test part ({WINDOWS})"
    )
    parser.add_argument(
        "--queries",
        type=int,
        default=QUERIES,
        metavar="Q",
        help=f"of a head, in a layer and window, at most ({QUERIES})",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON to write; beside the checkpoint if left out")
    given = parser.parse_args(arguments)
    for option in ("windows", "queries"):
        if getattr(given, option) < 1:
            raise InputError(f"--{option} has to be at least 1, got {getattr(given, option)}")
    for setting in given.settings:
        key = setting.partition("=")[0].strip()
        if key not in SETTINGS:
            raise InputError(f"--set {key}: the checkpoint brings its own; {', '.join(SETTINGS)} can be set here")
    if given.output is not None and (given.output.suffix != ".json" or given.output.is_dir()):
        raise InputError(f"output {given.output}: the name of a file that ends in .json is expected")
    if given.gpus is not None and "," in given.gpus:
        raise InputError(f"--gpus {given.gpus}: one device is expected here")
    return given


def load_model(job: Job, saved: RunConfig, checkpoint: Path, state: dict[str, Any]) -> nn.Module:
    """The model of the checkpoint, ready to forecast.

    Raises:
        InputError: the weights do not fit, or it has no attention to look at.
    """
    config = host_config(saved, job.entry, data_dir=job.data_dir, folder=checkpoint.parent, gpus=None)
    model = job.entry.model(config.model_config)
    load_weights(checkpoint, model, state)
    if not attention_layers(model):
        raise InputError(
            f"{saved.model} has no layer of ealinformer.attention.MultiHeadAttention, at least one is expected"
        )
    return model.eval().to("cuda" if job.gpus else "cpu")


def choose_windows(job: Job, saved: RunConfig, state: dict[str, Any], count: int) -> tuple[Tensor, Tensor, list[int]]:
    """z-scored inputs `[W, L, N]` and timestamps `[W, L, 2]` of windows of the test part, and which they are."""
    data = open_prepared(job.data_dir)
    windows = input_windows(data.data("test"), saved)
    chosen = np.unique(np.linspace(0, len(windows) - 1, count).round().astype(int))
    scaler = GlobalZScoreScaler(norm_each_channel=False, rescale=True)
    scaler.stats.update({name: torch.tensor(value) for name, value in state["scaler"].items()})
    inputs = torch.nan_to_num(scaler.transform(torch.tensor(windows[chosen])))
    timestamps = torch.tensor(input_windows(data.timestamps("test"), saved)[chosen])
    return inputs, timestamps, chosen.tolist()


def analyse(
    model: nn.Module, inputs: Tensor, timestamps: Tensor, queries: int, seed: int, checkpoint: Path
) -> dict[str, LayerTally]:
    """One tally a layer, by its name in the model.

    Raises:
        InputError: the model gives numbers that are not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    tallies = {name: LayerTally(queries, generator) for name in attention_layers(model)}

    def take(name: str, call: Call) -> None:
        try:
            tallies[name].add(call)
        except ValueError as error:
            raise InputError(f"{checkpoint}: {name} has {error}") from error

    device = next(model.parameters()).device
    with torch.no_grad(), captured(model, take):
        # One window at a time, so that memory is that of one.
        for window in shown(range(len(inputs))):
            model(inputs[window : window + 1].to(device), timestamps[window : window + 1].to(device))
    return {name: tally for name, tally in tallies.items() if tally.count}


def shown(windows: range) -> Iterator[int]:
    """The windows, with a bar on a terminal, and now and then a line elsewhere."""
    if sys.stderr is not None and sys.stderr.isatty():
        yield from tqdm(windows, desc="windows", unit="window", leave=False, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    for window in windows:
        yield window
        now, done = time.monotonic(), window + 1
        if now - last > SECONDS_BETWEEN_LINES and sys.stderr is not None:
            left = duration((now - start) / done * (len(windows) - done))
            print(f"window {done}/{len(windows)}, {left} left", file=sys.stderr)
            last = now


def rows_of(tallies: dict[str, LayerTally]) -> list[dict[str, Any]]:
    """A row for every layer and head. `temporal_layers.0.attention` is layer 1 of the axis temporal."""
    rows: list[dict[str, Any]] = []
    places: dict[str, int] = {}
    for name, tally in tallies.items():
        axis = axis_of(name)
        places[axis] = places.get(axis, 0) + 1
        for head, row in enumerate(tally.heads(), start=1):
            rows.append({"axis": axis, "layer": places[axis], "head": head, "module": name, **rounded(row)})
    return rows


def rounded(content: Any) -> Any:
    """Numbers to six digits: more would be noise of the windows chosen, and twice the file."""
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [rounded(value) for value in content]
    return float(f"{content:.6g}") if isinstance(content, float) else content


def axis_of(name: str) -> str:
    """What a layer attends along, as its place in the model says: `spatial` of `spatial_layers.2.attention`."""
    return name.partition(".")[0].removesuffix("_layers")


def describe_checkpoint(checkpoint: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Which weights these are, and how they were trained as far as the run's folder says."""
    folder = checkpoint.parent
    return {
        "file": str(checkpoint),
        "epoch": state["epoch"],
        "step": state.get("step"),
        "run": birth(folder) if (folder / STATUS).is_file() else None,
    }


def make_folder(output: Path) -> None:
    """Raises InputError where there can be none."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {output}: its folder cannot be made: {error.strerror}") from error


def write(row: dict[str, Any], tallies: dict[str, LayerTally], output: Path) -> None:
    """Print the tables; write them, the row and the figures."""
    simulated = ", SIMULATED series" if row["simulated"] else ""
    title = (
        f"{row['model']} on {row['dataset']}{simulated}: {row['windows']} windows of the test part, "
        f"epoch {row['checkpoint']['epoch']}"
    )
    tables = f"{title}\n\n{head_table(row['heads'])}\n\n{summary_table(row['summary'])}"
    write_json(output, row)
    write_text(output.with_suffix(".txt"), tables + "\n")
    print(tables)
    deficits: dict[str, list[dict[str, Any]]] = {}
    for name, tally in tallies.items():
        deficits.setdefault(axis_of(name), []).append({"num_keys": tally.num_keys, "deficits": tally.deficits()})
    deficit_figure(deficits, output.with_name(f"{output.stem}-deficit.png"), note=title)
    theta_figure(row["heads"], output.with_name(f"{output.stem}-theta.png"), note=title)
    error_figure(row["heads"], output.with_name(f"{output.stem}-error.png"), note=title)
    print(f"\n{output}, {output.stem}.txt, {output.stem}-{{deficit,theta,error}}.png")


if __name__ == "__main__":
    run(main)
