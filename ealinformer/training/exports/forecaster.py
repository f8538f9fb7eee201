"""A model with its scaler, as a module and as an exported program that needs torch alone."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ealinformer.data.meta import is_prepared
from ealinformer.data.prepared import open_prepared
from ealinformer.errors import InputError
from ealinformer.training.config import RunConfig
from ealinformer.training.jobs import check_data
from ealinformer.training.precision import stored_dtype
from ealinformer.training.predictions import input_windows
from ealinformer.training.scaler import GlobalZScoreScaler

TRACED_BATCH = 3  # none of those compared, so that a program for one batch alone is noticed
BATCHES = (1, 2, 7)
TOLERANCE = 1e-5  # of |mean| + std of the series: above the rounding of float32, below every digit of a table
_MAX_REASON = 160  # characters of what torch says


class Forecaster(nn.Module):
    """A model between the scaler of its training: readings in, forecasts out, both in the unit of the series.

    Args:
        model: `inputs [B, L, N], inputs_timestamps [B, L, 2]` -> `[B, H, N]`, z-scored.
        mean: of the readings of the training part.
        std: of the same.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.model = model
        self.dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, inputs: Tensor, inputs_timestamps: Tensor) -> Tensor:
        """Readings `[B, L, N]` (NaN become the mean) and their timestamps `[B, L, 2]` -> forecast `[B, H, N]`.

        Inputs are float32, in which training takes the z-scores of any run; the forecast has the dtype of the model.
        """
        z_scores = torch.nan_to_num((inputs - self.mean) / self.std)
        return self.model(z_scores.to(self.dtype), inputs_timestamps.to(self.dtype)) * self.std + self.mean


@dataclass(frozen=True)
class Comparison:
    """How far a program is from its model at most."""

    largest_difference: float  # in the unit of the series
    tolerance: float
    windows: int
    windows_of: str
    batches: tuple[int, ...] = BATCHES


def export_program(run: RunConfig, forecaster: Forecaster) -> bytes:
    """What `torch.export.load` reads: a program for any number of windows, on the CPU.

    Raises:
        InputError: torch cannot follow the model.
    """
    length, sensors = run.input_len, run.series.num_sensors
    example = (torch.zeros(TRACED_BATCH, length, sensors), torch.zeros(TRACED_BATCH, length, 2))
    batch = {0: torch.export.Dim("batch", min=1)}
    shapes = {"inputs": batch, "inputs_timestamps": batch}
    try:
        with torch.no_grad(), _silent():
            # Not strict: the model's Python runs as it does in training. Older torch is strict unless told otherwise.
            program = torch.export.export(forecaster, example, dynamic_shapes=shapes, strict=False)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # names the folders of this machine
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    except Exception as error:  # torch raises errors of every kind here, some of them its own
        raise _refused(run, error) from error
    return buffer.getvalue()


def compare_program(
    path: Path, run: RunConfig, model: nn.Module, scaler: dict[str, float], datasets_dir: Path
) -> Comparison:
    """Hold the program in `path` against the model and the scaler of training.

    Windows are those of the test part where the series is prepared in `datasets_dir`, else random numbers.

    Raises:
        InputError: the program differs by more than the tolerance, or the model forecasts numbers that are not finite
            or changes its own state.
    """
    training = GlobalZScoreScaler(norm_each_channel=False, rescale=True)
    training.stats.update({name: torch.tensor(value) for name, value in scaler.items()})
    inputs, timestamps, windows_of = _windows(run, scaler, datasets_dir)
    try:
        program = torch.export.load(path).module()
    except Exception as error:
        raise _refused(run, error) from error
    tolerance = TOLERANCE * (abs(scaler["mean"]) + scaler["std"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    largest, dtype = 0.0, stored_dtype(run.dtype)
    for batch in zip(inputs.split(BATCHES), timestamps.split(BATCHES), strict=True):
        with torch.no_grad():
            given = (torch.nan_to_num(training.transform(batch[0])), batch[1])
            expected = training.inverse_transform(model(*(tensor.to(dtype) for tensor in given)))
            if not expected.isfinite().all():
                raise _refused(run, "with these weights it forecasts numbers that are not finite")
            try:
                found = program(*batch)
            except Exception as error:
                raise _refused(run, error) from error
        if found.shape != expected.shape:
            raise _refused(run, f"its program gives {tuple(found.shape)} for {tuple(expected.shape)}")
        difference = float((found.double() - expected.double()).abs().max())
        if not difference <= tolerance:  # written so that NaN fails too
            raise _refused(run, f"its program differs by {difference:g} {run.series.unit}, {tolerance:g} is allowed")
        largest = max(largest, difference)
    changed = [name for name, tensor in model.state_dict().items() if not same_bits(tensor, before[name])]
    if changed:
        raise _refused(run, f"it changes its own state while it forecasts: {', '.join(changed)}")
    return Comparison(largest, tolerance, len(inputs), windows_of)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal bit by bit, so that NaN is equal to itself."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(*(tensor.detach().reshape(-1).view(torch.uint8) for tensor in (one, other)))


def first_line(error: Exception) -> str:
    """What an error of torch says, short enough for one line."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return said if len(said) <= _MAX_REASON else f"{said[:_MAX_REASON]}..."


@contextmanager
def _silent() -> Iterator[None]:
    """Keep torch from printing the whole graph, and warnings about it, where it cannot go on; the error says enough."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _windows(run: RunConfig, scaler: dict[str, float], datasets_dir: Path) -> tuple[Tensor, Tensor, str]:
    """Inputs `[W, L, N]` in the unit of the series, their timestamps `[W, L, 2]`, and where they are from."""
    count, directory = sum(BATCHES), datasets_dir / run.series.name
    if is_prepared(directory):
        data = open_prepared(directory)
        check_data(run, data)
        readings, times = (input_windows(rows, run) for rows in (data.data("test"), data.timestamps("test")))
        chosen = np.linspace(0, len(readings) - 1, count).round().astype(int)
        return torch.tensor(readings[chosen]), torch.tensor(times[chosen]), "the test part"
    generator = torch.Generator().manual_seed(run.seed)
    shape = (count, run.input_len, run.series.num_sensors)
    inputs = scaler["mean"] + scaler["std"] * torch.randn(shape, generator=generator)
    missing = torch.rand(shape, generator=generator) < 0.05
    return inputs.masked_fill(missing, torch.nan), torch.rand(*shape[:2], 2, generator=generator), "random numbers"


def _refused(run: RunConfig, why: str | Exception) -> InputError:
    reason = first_line(why) if isinstance(why, Exception) else why
    return InputError(f"{run.model} cannot be exported as a program: {reason}; --no-program writes the weights alone")
