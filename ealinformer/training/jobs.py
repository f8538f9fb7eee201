"""A run with all that it needs, checked before anything is written."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ealinformer.data.prepared import PreparedSeries, open_prepared
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
) -> Job:
    """Check everything that can be wrong before anything is written, and choose the devices.

    Raises:
        InputError: the model, a parameter of it, the data, the windows or the devices do not fit.
    """
    entry = find_model(run.model, catalogue)
    data = open_prepared(datasets_dir / run.series.name)
    check_data(run, data)
    folder = folder or run_folder.default_folder(run)
    try:
        # On the meta device: checks all sizes without memory or time.
        with torch.device("meta"):
            config = host_config(run, entry, data_dir=data.directory, folder=folder, gpus=None)
            entry.model(config.model_config)
    except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: a size beyond what torch counts
        problem = str(error).splitlines()[0]
        raise InputError(f"model {run.model} cannot be built: {problem}") from error
    select_devices(gpus, ranks_from_environment())
    check_dtype(run.dtype, cuda=gpus is not None)
    check_parts(run.compile, run.recipe.micro_batch_size, cuda=gpus is not None)
    return Job(run, entry, data.directory, folder, gpus)


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
