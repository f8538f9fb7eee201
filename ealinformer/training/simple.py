"""The simple forecasts that a model has to beat, scored on the same windows as a model."""

from typing import Any

import numpy as np
import torch

from ealinformer.data.meta import Split
from ealinformer.data.prepared import PreparedSeries
from ealinformer.models.naive import WeeklyProfile, historical_inertia, last_value
from ealinformer.training.config import RunConfig
from ealinformer.training.metrics import MetricSums, present_mask
from ealinformer.training.predictions import input_windows, target_windows

WINDOWS_AT_A_TIME = 256


def simple_forecasts(data: PreparedSeries, split: Split, run: RunConfig) -> dict[str, np.ndarray]:
    """Forecasts `[W, H, N]` by name: last value, weekly profile of the training part and, where H <= L, inertia.

    Zeros are taken as they are, those that stand for missing readings too, as the published floors do. Where NaN or a
    number such as -1 marks them, the profile leaves them out and the newest reading before takes their place.
    """
    null_value = run.series.null_value
    rows, timestamps = data.data(split), data.timestamps(split)
    marker = null_value if null_value != 0 else None
    profile = WeeklyProfile().fit(data.data("train"), data.timestamps("train"), data.steps_per_day, marker)
    if marker is not None:
        rows = filled_forward(rows, marker, profile.predict(timestamps))
    inputs = input_windows(rows, run)
    forecasts = {
        "last value": last_value(inputs, run.output_len),
        "weekly profile": profile.predict(target_windows(timestamps, run)),
    }
    if run.output_len <= run.input_len:
        forecasts["historical inertia"] = historical_inertia(inputs, run.output_len)
    return forecasts


def filled_forward(rows: np.ndarray, null_value: float, otherwise: np.ndarray) -> np.ndarray:
    """Every missing reading of `rows` `[T, N]` replaced by the one before it, by `otherwise` where there is none."""
    present = present_mask(torch.tensor(rows), null_value).numpy()
    newest = np.maximum.accumulate(np.where(present, np.arange(len(rows))[:, None], -1), axis=0)
    return np.where(newest < 0, otherwise, np.take_along_axis(rows, np.maximum(newest, 0), axis=0))


def score_forecast(forecast: np.ndarray, data: PreparedSeries, split: Split, run: RunConfig) -> dict[str, Any]:
    """Metrics of a forecast `[W, H, N]` of all windows of a split, in the form of metrics.json."""
    targets = target_windows(data.data(split), run)
    sums = MetricSums.zeros(run.output_len)
    for first in range(0, len(targets), WINDOWS_AT_A_TIME):
        part = slice(first, first + WINDOWS_AT_A_TIME)
        batch = torch.from_numpy(targets[part].copy())
        sums.update(torch.from_numpy(forecast[part]), batch, present_mask(batch, run.series.null_value))
    return sums.as_dict()
