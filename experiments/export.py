"""Export a trained model: its weights as safetensors, a program that needs torch alone, and what their inputs mean."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _common import CATALOGUE

from ealinformer.cli import ArgumentParser, run
from ealinformer.errors import InputError
from ealinformer.training.checkpoints.checkpoint import BEST
from ealinformer.training.exports.export import CONFIG, PROGRAM, WEIGHTS, export_checkpoint
from ealinformer.training.exports.forecaster import Comparison

EXAMPLES = """examples:
  python experiments/export.py checkpoints/ELinFormer/PEMS08/RUN --output-dir exports/PEMS08
  python experiments/export.py RUN/last.pt --output-dir exports/PEMS08 --no-program --json

the folder then holds model.safetensors, forecaster.pt2 and config.json, which says the shapes and units of the inputs,
the scaler, the scores and the sha256 of both files. The program runs wherever torch does, on the original scale:

  import torch
  forecaster = torch.export.load("exports/PEMS08/forecaster.pt2").module()
  with torch.no_grad():
      forecast = forecaster(inputs, inputs_timestamps)  # [B, L, N] and [B, L, 2], float32 -> [B, H, N]

torch.export.load can run code from a file, so compare its sha256 first where it comes from somebody else. The weights
cannot, and go into the model of this project, with its scaler around it:

  from pathlib import Path
  from baselines import MODELS as BASELINES
  from ealinformer.models import MODELS
  from ealinformer.training.exports.export import load_forecaster
  run, forecaster = load_forecaster(Path("exports/PEMS08"), {**MODELS, **BASELINES})

without this project they are a dict of tensors, named as in the model:

  from safetensors.torch import load_file
  weights = load_file("exports/PEMS08/model.safetensors")
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and export."""
    parser = ArgumentParser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, whose best.pt is taken; or a .pt file")
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="a new or an empty folder")
    parser.add_argument("--no-program", action="store_true", help="write weights and config alone")
    parser.add_argument(
        "--datasets-dir",
        type=Path,
        default=Path("datasets"),
        metavar="DIR",
        help="prepared data sets: the program is compared on real windows where the run's is there",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the summary")
    given = parser.parse_args(arguments)

    said, compared = export_checkpoint(
        checkpoint := checkpoint_of(given.run),
        given.output_dir,
        CATALOGUE,
        datasets_dir=given.datasets_dir,
        program=not given.no_program,
    )
    if given.json:
        keys = ("model", "dataset", "simulated", "epoch", "parameters", "files")
        program = None if compared is None else dataclasses.asdict(compared)
        about = {"folder": str(given.output_dir), "checkpoint": str(checkpoint), **{key: said[key] for key in keys}}
        print(json.dumps({**about, "program": program}, indent=2))
    else:
        print(summary(said, compared, given.output_dir))


def checkpoint_of(run: Path) -> Path:
    """The checkpoint that a run folder is taken for; a file is one itself.

    Raises:
        InputError: the folder has none.
    """
    if not run.is_dir():
        return run
    if not (run / BEST).is_file():
        raise InputError(f"{run} has no {BEST}: the folder of a run or the name of a checkpoint is expected")
    return run / BEST


def summary(said: dict[str, Any], compared: Comparison | None, folder: Path) -> str:
    """The files with their sizes, and what was found when they were read back."""
    notes = {WEIGHTS: "read back, equal bit by bit", CONFIG: ""}
    if compared is not None:
        unit = said["output"]["unit"]
        batches = ", ".join(map(str, compared.batches))
        notes[PROGRAM] = (
            f"largest difference {compared.largest_difference:.3g} {unit} ({compared.tolerance:.3g} is allowed), on "
            f"{compared.windows} windows of {compared.windows_of} in batches of {batches}"
        )
    simulated = ", simulated series" if said["simulated"] else ""
    lines = [
        f"{said['model']} on {said['dataset']}{simulated}: epoch {said['epoch']}, {said['parameters']:,} parameters, "
        f"in {folder}"
    ]
    for name in (WEIGHTS, PROGRAM, CONFIG):
        if name in notes:
            size = (folder / name).stat().st_size
            lines.append(f"  {name:<{len(WEIGHTS)}}  {size:>12,} bytes  {notes[name]}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
