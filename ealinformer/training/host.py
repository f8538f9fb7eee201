"""The settings under which BasicTS runs our run, and its quiet."""

import logging
from dataclasses import fields
from pathlib import Path

from basicts.configs import BasicTSForecastingConfig, BasicTSModelConfig
from basicts.runners.callback import BasicTSCallback, GradientClipping
from easytorch.utils import get_logger
from torch.optim import Adafactor, Adam, AdamW, Optimizer

from ealinformer.errors import InputError
from ealinformer.models import ModelEntry
from ealinformer.training.config import RunConfig
from ealinformer.training.early_stopping import PatientStopping
from ealinformer.training.losses import LOSSES
from ealinformer.training.resolve import RUN_KEYS
from ealinformer.training.scaler import GlobalZScoreScaler
from ealinformer.training.schedules import schedule_of
from ealinformer.training.taskflow import OriginalScaleTaskFlow
from ealinformer.training.windows import WindowDataset

METRICS = ["MAE", "RMSE", "MAPE"]
# In one kernel, on the CPU too: the numbers of the plain form but for rounding, in a fraction of its time.
_FUSED = {"fused": True}
_OPTIMIZERS: dict[str, tuple[type[Optimizer], dict[str, bool]]] = {
    "adam": (Adam, _FUSED),
    "adamw": (AdamW, _FUSED),
    "adafactor": (Adafactor, {}),
}
_HOST_LOGGERS = ("BasicTS", "BasicTS-launcher", "easytorch-env", "easytorch-launcher", "easytorch-checkpoint")


def host_config(
    run: RunConfig, entry: ModelEntry, *, data_dir: Path, folder: Path, gpus: str | None
) -> BasicTSForecastingConfig:
    """BasicTS's config of a run.

    Raises:
        InputError: a parameter of the model is not known, or is not the config's to choose.
    """
    model_config = config_of(run, entry, data_dir)
    recipe = run.recipe
    optimizer, fused = _OPTIMIZERS[recipe.optimizer]
    options = fused | ({"eps": recipe.eps} if fused else {})  # Adafactor has two of them, for other things
    schedule, schedule_params = schedule_of(recipe)
    callbacks: list[BasicTSCallback] = []
    if recipe.patience is not None:
        callbacks.append(PatientStopping(recipe.patience))
    if recipe.clip_grad_norm is not None:
        callbacks.append(GradientClipping(recipe.clip_grad_norm))
    return BasicTSForecastingConfig(
        model=entry.model,
        model_config=model_config,
        dataset_name=run.series.name,
        dataset_params={"data_file_path": str(data_dir)},
        input_len=run.input_len,
        output_len=run.output_len,
        use_timestamps=True,
        dataset_type=WindowDataset,
        memmap=None,  # the data set decides, by the memory there is
        null_val=run.series.null_value,
        scaler=GlobalZScoreScaler,
        norm_each_channel=False,
        rescale=True,
        taskflow=OriginalScaleTaskFlow(),
        callbacks=callbacks,
        metrics=list(METRICS),
        target_metric=recipe.select_by,
        loss=LOSSES[recipe.loss],
        optimizer=optimizer,
        optimizer_params={"lr": recipe.lr, "weight_decay": recipe.weight_decay, **options},
        lr_scheduler=schedule,
        lr_scheduler_params=schedule_params,
        num_epochs=recipe.num_epochs,
        train_batch_size=recipe.batch_size,
        eval_after_train=False,
        seed=run.seed,
        deterministic=run.deterministic,
        cudnn_benchmark=not run.deterministic,
        cudnn_determinstic=run.deterministic,  # spelt so by the host
        gpus=gpus,
        ckpt_save_dir=str(folder),
    )


def config_of(run: RunConfig, entry: ModelEntry, data_dir: Path) -> BasicTSModelConfig:
    """The config of a run's model.

    Raises:
        InputError: a parameter is not known, or is not the config's to choose; or a graph is chosen for a model that
            takes none.
    """
    known = {f.name for f in fields(entry.config)}
    sizes = {
        "input_len": run.input_len,
        "output_len": run.output_len,
        "num_features": run.series.num_sensors,
        "num_time_in_day": run.series.steps_per_day,
        "data_dir": str(data_dir),
    }
    sizes = {name: value for name, value in sizes.items() if name in known}
    for name in sizes.keys() & run.model_params.keys():
        hint = f"; use --set {name}={run.model_params[name]}" if name in RUN_KEYS else ""
        raise InputError(f"model.{name} cannot be set, it follows from series and windows: {sizes[name]} here{hint}")
    if entry.takes_prior:
        if "graph" in run.model_params:
            raise InputError(f"model.graph cannot be set: --graph {run.model_params['graph']} is expected")
        sizes["graph"] = run.graph
    elif run.graph != RunConfig.model_fields["graph"].default:
        raise InputError(f"--graph {run.graph}: {run.model} takes no graph")
    return entry.build_config(**sizes, **run.model_params)


def quiet_host() -> None:
    """Let the host's own loggers speak of warnings only."""
    for name in _HOST_LOGGERS:
        get_logger(name).setLevel(logging.WARNING)
