"""Training losses on the original scale of the series.

Plain functions without defaults, because BasicTS's own runner rebuilds a loss from its code object and would drop them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_mae(prediction: Tensor, targets: Tensor, targets_mask: Tensor) -> Tensor:
    """Mean absolute error over the readings `[B, H, N]` that are not missing; 0 where all are."""
    return _masked_mean((prediction - _without_nan(targets, targets_mask)).abs(), targets_mask)


def masked_huber(prediction: Tensor, targets: Tensor, targets_mask: Tensor) -> Tensor:
    """Huber loss with delta 1 over the readings `[B, H, N]` that are not missing; 0 where all are."""
    errors = F.huber_loss(prediction, _without_nan(targets, targets_mask), reduction="none")
    return _masked_mean(errors, targets_mask)


def huber(prediction: Tensor, targets: Tensor) -> Tensor:
    """Huber loss with delta 1 over all readings, the missing ones included: what STAEformer's authors minimise."""
    return F.huber_loss(prediction, targets)


def huber_2(prediction: Tensor, targets: Tensor) -> Tensor:
    """Huber loss with delta 2 over all readings, the missing ones included: what PDFormer's authors minimise."""
    return F.huber_loss(prediction, targets, delta=2.0)


def _without_nan(targets: Tensor, mask: Tensor) -> Tensor:
    # Before the error is taken: masked out after it, a NaN still reaches the gradient of the forecast as 0 * NaN.
    return torch.where(mask, targets, 0)


def _masked_mean(errors: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, errors, 0).sum() / mask.sum().clamp(min=1)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "masked_mae": masked_mae,
    "masked_huber": masked_huber,
    "huber": huber,
    "huber_2": huber_2,
}


def is_masked(loss: str) -> bool:
    """Whether a loss leaves missing readings out."""
    return loss.startswith("masked_")
