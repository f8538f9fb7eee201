"""A run with all that it needs, checked before anything is written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ealinformer.data.prepared import PreparedSeries, open_prepared
from ealinformer.data.prior import BlankPrior, open_prior
from ealinformer.errors import InputError
from ealinformer.models import Catalogue, ModelEntry, find_model
from ealinformer.training.compilation import check_parts
from ealinformer.training.config import RunConfig
from ealinformer.training.distributed.devices import select_devices
from ealinformer.training.distributed.ranks import ranks_from_environment
from ealinformer.training.host import host_config
from ealinformer.training.losses import is_masked
from ealinformer.training.precision import check_dtype
from ealinformer.training.runs import folder as run_folder


@dataclass(frozen=True)
class Job:
    """A run with where it reads and writes, all of it checked; it is handed to every process of the run as it is."""

    run: RunConfig
    entry: ModelEntry
    data_dir: Path
    folder: Path
    gpus: str | None
    predictions: Path | None = None
    resume: str = "auto"  # one of resume.MODES
    accept_changes: bool = False  # of config or code, when a run is taken up again
    checkpoint_minutes: float = 10.0  # between two checkpoints within an epoch
    check_data: bool = True  # compare the files with their checksums before training


def prepare_job(
    run: RunConfig,
    catalogue: Catalogue,
    *,
    datasets_dir: Path,
    folder: Path | None = None,
    gpus: str | None = None,
    with_prior: bool = True,
) -> Job:
    """Check everything that can be wrong before anything is written, and choose the devices.

    Without `with_prior` the graph is not looked for: that of a checkpoint's run may be another one.

    Raises:
        InputError: the model, a parameter of it, its graph, the data, the windows or the devices do not fit.
    """
    entry = find_model(run.model, catalogue)
    data = open_prepared(datasets_dir / run.series.name)
    check_data(run, data)
    folder = folder or run_folder.default_folder(run)
    try:
        # On the meta device: checks all sizes without memory or time.
        with torch.device("meta"):
            config = host_config(run, entry, data_dir=data.directory, folder=folder, gpus=None)
            build_blank(entry, config.model_config, num_steps=data.meta["steps"]["train"])
    except InputError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: a size beyond what torch counts
        problem = str(error).splitlines()[0]
        raise InputError(f"model {run.model} cannot be built: {problem}") from error
    if with_prior:
        check_prior(run, entry, data.directory)
    select_devices(gpus, ranks_from_environment())
    check_dtype(run.dtype, cuda=gpus is not None)
    check_parts(run.compile, run.recipe.micro_batch_size, cuda=gpus is not None)
    return Job(run, entry, data.directory, folder, gpus)


def build_blank(entry: ModelEntry, config: Any, *, num_steps: int) -> nn.Module:
    """A model whose prior is unknown: all zeros, of a training part of `num_steps`. Raises what its class raises."""
    if not entry.takes_prior:
        return entry.model(config)
    return entry.model(config, BlankPrior(config.num_features, num_steps))


def check_prior(run: RunConfig, entry: ModelEntry, data_dir: Path) -> None:
    """Raises InputError that names the model where it needs a graph which is not there, or does not fit the series."""
    if not entry.needs_graph:
        return
    try:
        open_prior(str(data_dir), run.graph, run.series.num_sensors).adjacency()
    except InputError as error:
        raise InputError(f"{run.model} needs a graph: {error}") from error


def check_data(run: RunConfig, data: PreparedSeries) -> None:
    """Compare what the config says of the series with what was prepared.

    Raises:
        InputError: names the first difference, or a split that is shorter than one window.
    """
    series = run.series
    prepared = {
        "num_sensors": (series.num_sensors, data.num_sensors),
        "interval_minutes": (series.interval_minutes, data.interval_minutes),
        "raw_file": (series.raw_file, data.meta["raw_file"]),
        "channel": (series.channel, data.meta["channel"]),
        "null_value": (series.null_value, data.null_value),
        "start": (series.start, data.start),
        "split": (list(series.split), list(data.meta["split"])),
        "day_of_week": (series.day_of_week, data.meta["day_of_week"]),
        "simulated": (series.simulated, data.meta["simulated"]),
    }
    for name, (said, found) in prepared.items():
        both_nan = said != said and found != found
        if said != found and not both_nan:
            raise InputError(
                f"the config says {name}={said}, {data.directory} was prepared with {found}: mend the config or run  "
                f"python scripts/prepare_dataset.py {series.name}  again"
            )
    window = run.input_len + run.output_len
    for split, steps in data.meta["steps"].items():
        if steps < window:
            raise InputError(
                f"{data.directory}: the {split} part has {steps} steps, one window of {run.input_len} in and "
                f"{run.output_len} out needs {window}"
            )
    if not is_masked(run.recipe.loss) and series.null_value != series.null_value:
        raise InputError(f"loss {run.recipe.loss} counts missing readings, which are NaN here: --set loss=masked_mae")
