"""A town that trains in about a second, with everything that a resume can get wrong.

Dropout, clipped gradients, a rate that falls twice, early stopping before the last epoch, and a last batch that is
smaller than the others.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.faults.processes import ROOT, environment

NUM_SENSORS, NUM_STEPS, STEPS_PER_DAY = 5, 480, 48
CONFIG = """# The town of the fault campaigns.
from ealinformer.training import Experiment, Recipe, SeriesSpec

CONFIG = Experiment(
    series=SeriesSpec(
        name="TOWN",
        num_sensors=5,
        interval_minutes=30,
        start="2020-02-05",
        raw_file="town.npz",
        channel=1,
        graph_file="roads.csv",
        ids_file="ids.txt",
    ),
    input_len=6,
    output_len=4,
    model_params={
        "input_hidden_size": 4,
        "tid_hidden_size": 4,
        "diw_hidden_size": 4,
        "adaptive_hidden_size": 4,
        "intermediate_size": 16,
        "n_heads": 2,
        "num_layers": 1,
        "dropout": 0.2,
    },
    recipes={
        "short": Recipe(
            loss="masked_mae",
            lr=0.03,
            milestones=(2, 6),
            gamma=0.7,
            batch_size=40,
            eval_batch_size=32,
            num_epochs=9,
            patience=2,
            clip_grad_norm=5.0,
        )
    },
    seed=8,
)
"""


@dataclass(frozen=True)
class Town:
    """A prepared data set and its config: 288 steps to train on, 96 to validate and 96 to test."""

    config: Path
    datasets: Path

    def training(self, folder: Path, *more: object) -> tuple[object, ...]:
        """The arguments of train.py for a run in `folder`."""
        data = ("-c", self.config, "--datasets-dir", self.datasets)
        return (*data, "--output-dir", folder, "--predictions", *more)

    def evaluation(self, checkpoint: Path) -> tuple[object, ...]:
        """The arguments of evaluate.py for a checkpoint."""
        return ("-c", self.config, "--datasets-dir", self.datasets, "--checkpoint", checkpoint)


def make_town(folder: Path) -> Town:
    """Write the town's raw files and prepare them by the command line."""
    rng = np.random.default_rng(11)
    phase = 2 * np.pi * np.arange(NUM_STEPS)[:, None] / STEPS_PER_DAY
    values = 200 + 20 * np.arange(NUM_SENSORS) + 90 * np.sin(phase) + 3 * rng.standard_normal((NUM_STEPS, NUM_SENSORS))
    values[rng.random(values.shape) < 0.04] = 0
    np.savez(folder / "town.npz", data=np.stack([np.full_like(values, 9.0), values], axis=2))
    ids = [str(300 + 7 * sensor) for sensor in range(NUM_SENSORS)]
    (folder / "ids.txt").write_text("\n".join(ids) + "\n")
    ring = [
        f"{one},{two},{1.5 + number}\n" for number, (one, two) in enumerate(zip(ids, [*ids[1:], ids[0]], strict=True))
    ]
    (folder / "roads.csv").write_text("from,to,distance\n" + "".join(ring))
    town = Town(folder / "town.py", folder / "datasets")
    town.config.write_text(CONFIG)
    command: list[str | Path] = [sys.executable, ROOT / "scripts" / "prepare_dataset.py", "-c", town.config]
    command += ["--datasets-dir", town.datasets, "--raw-dir", folder]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return town
