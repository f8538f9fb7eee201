"""How the learning rate goes over the epochs."""

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, ReduceLROnPlateau

from ealinformer.recipe import Recipe


class WarmUpCosine(LRScheduler):
    """Rises in a line from `warmup_lr` in the first `warmup_epochs`, then follows a half cosine to `min_lr`.

    The cosine (SGDR, arXiv 1608.03983, equation 5, without restarts) counts from the first epoch and not from the end
    of the warm-up, as in timm, whose schedule PDFormer's authors took.
    """

    def __init__(
        self, optimizer: Optimizer, num_epochs: int, min_lr: float, warmup_epochs: int, warmup_lr: float
    ) -> None:
        self.num_epochs, self.min_lr = num_epochs, min_lr
        self.warmup_epochs, self.warmup_lr = warmup_epochs, warmup_lr
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the epoch that comes next."""
        return [self._rate(base) for base in self.base_lrs]

    def _rate(self, base: float | Tensor) -> float | Tensor:
        epoch = self.last_epoch
        if epoch < self.warmup_epochs:
            return self.warmup_lr + epoch * (base - self.warmup_lr) / self.warmup_epochs
        share = min(epoch / self.num_epochs, 1.0)
        return self.min_lr + (base - self.min_lr) * (1 + math.cos(math.pi * share)) / 2


def schedule_of(recipe: Recipe) -> tuple[type[LRScheduler] | None, dict[str, Any]]:
    """The scheduler's class and its arguments; None where the rate stays."""
    if recipe.schedule == "cosine":
        names = ("num_epochs", "min_lr", "warmup_epochs", "warmup_lr")
        return WarmUpCosine, {name: getattr(recipe, name) for name in names}
    if recipe.schedule == "plateau":
        # A loss counts as lower where it is so by a thousandth, which is STWave's; torch has a ten-thousandth.
        found = {"factor": recipe.gamma, "patience": recipe.plateau_epochs, "min_lr": recipe.min_lr, "threshold": 1e-3}
        return ReduceLROnPlateau, found
    steps = {"milestones": list(recipe.milestones), "gamma": recipe.gamma}
    return (MultiStepLR, steps) if recipe.milestones else (None, steps)


def step_schedule(schedule: LRScheduler, loss: float) -> None:
    """End an epoch, whose validation loss was `loss`."""
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(loss)
    else:
        schedule.step()


def place_schedule(schedule: LRScheduler, epochs_done: int) -> None:
    """Put a schedule that has just been made behind so many epochs; the optimizer's rates become those of the next.

    One that waits for a plateau begins to wait.
    """
    if isinstance(schedule, ReduceLROnPlateau):
        return
    for group, base in zip(schedule.optimizer.param_groups, schedule.base_lrs, strict=True):
        group["initial_lr"] = group["lr"] = base
    if isinstance(schedule, MultiStepLR):
        done = sum(count for milestone, count in schedule.milestones.items() if milestone <= epochs_done)
        rates = [base * schedule.gamma**done for base in schedule.base_lrs]
        schedule.last_epoch = epochs_done
    else:
        schedule.last_epoch = epochs_done
        rates = schedule.get_lr()
    schedule._step_count = epochs_done + 1
    schedule._last_lr = rates
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
