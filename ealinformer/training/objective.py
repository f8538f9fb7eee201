"""What a training step minimises: the recipe's loss, of the horizons that a curriculum shows, and what a model adds."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

_BY_HORIZON = ("prediction", "targets", "targets_mask", "auxiliary_prediction", "auxiliary_targets")


def first_horizons(data: dict[str, Any], horizons: int | None) -> dict[str, Any]:
    """A batch or what came of it with the first horizons of `[B, H, N]` alone; None: as it is."""
    if horizons is None:
        return data
    return data | {name: data[name][:, :horizons] for name in _BY_HORIZON if name in data}


def whole_loss(loss_of: Callable[[dict[str, Any]], Tensor], forward_return: dict[str, Any]) -> Tensor:
    """The recipe's loss of the forecast, of a second forecast that a model makes, and a loss of the model's own: `[]`.

    A model returns `auxiliary_prediction` and `auxiliary_targets`, `[B, H, N]`, or `auxiliary_loss`, `[]`.
    """
    loss = loss_of(forward_return)
    if "auxiliary_prediction" in forward_return:
        second = {name: forward_return[f"auxiliary_{name}"] for name in ("prediction", "targets")}
        loss = loss + loss_of({**forward_return, **second})
    if "auxiliary_loss" in forward_return:
        loss = loss + forward_return["auxiliary_loss"]
    return loss
