"""What a training has to notice by itself: numbers that are not finite, divergence, metrics that say nothing."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ealinformer.errors import InputError

DIVERGED = 10.0  # a validation loss that many times the best one is reported
UNCHANGED = 3  # epochs with the very same validation metrics are reported
_SHOWN_WINDOWS = 8


class NotFiniteError(InputError):
    """A loss or a gradient is not finite, and the run was stopped."""


class FiniteWatch:
    """Notices the first step whose loss or gradients are not finite.

    At once where reading costs nothing (CPU) or steps are to be skipped, which has to be known before the optimizer
    goes on; on a GPU it only keeps the number of the first such step on the device until `first_bad` reads it.
    """

    def __init__(self, device: torch.device, *, at_once: bool) -> None:
        self.at_once = at_once or device.type == "cpu"
        self._first_bad = torch.full((), -1, dtype=torch.int64, device=device)

    def see(self, step: int, loss: Tensor, gradients: Iterable[Tensor]) -> bool:
        """Whether a step may be taken, as far as is known now."""
        finite = torch.isfinite(loss.detach()) & torch.isfinite(_combined(list(gradients)))
        if self.at_once:
            return bool(finite)
        self._first_bad = torch.where((self._first_bad < 0) & ~finite, step, self._first_bad)
        return True

    def first_bad(self) -> int | None:
        """The first step that was not finite, or None; waits for the device."""
        step = int(self._first_bad)
        return None if step < 0 else step


def _combined(gradients: list[Tensor]) -> Tensor:
    """A number `[]` that is finite where all gradients are, as long as they stay far from the largest float.

    Not the sum of squares, which overflows at the root of it.
    """
    if gradients and gradients[0].device.type == "cpu":  # plain sums are the fastest there, the largest entry slowest
        return torch.stack([gradient.sum() for gradient in gradients]).sum()
    return torch.nn.utils.get_total_norm(gradients, norm_type=math.inf)


def describe_bad_step(loss: float | None, place: str, windows: Sequence[int], last: Path, may_skip: int) -> str:
    """One line: what is not finite and where, the windows of the step, and where the last good weights are.

    `loss` is None where it was noticed too late to know which of loss and gradient it was.
    """
    if loss is None:
        what = "the loss or a gradient is"
    else:
        what = "a gradient is" if math.isfinite(loss) else f"the loss, {loss}, is"
    shown = ", ".join(str(index) for index in windows[:_SHOWN_WINDOWS])
    more = f" and {len(windows) - _SHOWN_WINDOWS} more" if len(windows) > _SHOWN_WINDOWS else ""
    kept = f"{last} is the last good checkpoint" if last.is_file() else "there is no checkpoint before it"
    skip = f"{may_skip} such steps may be skipped" if may_skip else "--set skip_nonfinite=3 would skip up to three such"
    return f"{what} not finite in {place}, windows {shown}{more} of the training part; {kept}; {skip}"


def warnings(history: Sequence[dict[str, float]], metrics: Sequence[str]) -> list[str]:
    """What is wrong with the newest row of a history, one line each; usually nothing."""
    row, before = history[-1], history[:-1]
    said = []
    undefined = [name for name in metrics if math.isnan(row[f"val_{name}"])]
    if undefined:
        said.append(f"validation {', '.join(undefined)} undefined: no reading counts, or a forecast is not a number")
    losses = [(r["val_loss"], r["epoch"]) for r in before if math.isfinite(r["val_loss"])]
    if losses and row["val_loss"] > DIVERGED * min(losses)[0]:
        best, epoch = min(losses)
        times = row["val_loss"] / best if best > 0 else math.inf
        said.append(
            f"diverging: validation loss {row['val_loss']:.4g} is {times:.0f} times the best, {best:.4g} in epoch "
            f"{epoch:.0f}"
        )
    newest = [[r[f"val_{name}"] for name in metrics] for r in history[-UNCHANGED:]]
    if not undefined and len(newest) == UNCHANGED and all(values == newest[0] for values in newest):
        said.append(f"dead: the validation metrics are the same to the last digit for {UNCHANGED} epochs")
    return said
