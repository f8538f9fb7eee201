"""Exact metrics over a whole split: sums and counts per horizon, divided once at the end."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NULL_TOLERANCE = 5e-5  # BasicTS's: readings this near to the null value are missing


def present_mask(targets: Tensor, null_value: float) -> Tensor:
    """True where a reading is present, in the shape of `targets`."""
    present = ~torch.isnan(targets)
    return present if null_value != null_value else present & ((targets - null_value).abs() > NULL_TOLERANCE)


@dataclass
class MetricSums:
    """Masked MAE, RMSE and MAPE as sums `[H]` in float64, kept on the device so that no step waits for it.

    MAPE counts the readings that are present and not zero (BasicTS weighs its batches otherwise and is not exact).
    """

    absolute: Tensor
    squared: Tensor
    count: Tensor
    relative: Tensor
    nonzero: Tensor

    @classmethod
    def zeros(cls, output_len: int, device: torch.device | str = "cpu") -> "MetricSums":
        return cls(*(torch.zeros(output_len, dtype=torch.float64, device=device) for _ in range(5)))

    @torch.no_grad()
    def update(self, prediction: Tensor, targets: Tensor, mask: Tensor) -> None:
        """Add a batch of forecasts and readings `[B, H, N]` in units of the series; `mask` says which are present.

        A batch may hold the first horizons only, as curriculum learning leaves it.
        """
        # One float64 copy of the errors: sums of millions of float32 squares would lose digits.
        errors = torch.where(mask, prediction.double() - targets.double(), 0).abs()
        nonzero = mask & (targets.abs() > NULL_TOLERANCE)
        relative = torch.where(nonzero, errors / targets.abs(), 0)
        steps = targets.shape[1]
        self.absolute[:steps] += errors.sum(dim=(0, 2))
        self.squared[:steps] += errors.square().sum(dim=(0, 2))
        self.count[:steps] += mask.sum(dim=(0, 2))
        self.relative[:steps] += relative.sum(dim=(0, 2))
        self.nonzero[:steps] += nonzero.sum(dim=(0, 2))

    def average(self) -> dict[str, float | None]:
        """MAE, RMSE (units of the series) and MAPE (percent) over all horizons together; None where nothing counts."""
        sums = (self.absolute, self.squared, self.count, self.relative, self.nonzero)
        return _divide(*(float(s.sum()) for s in sums))

    def horizons(self) -> dict[str, dict[str, float | None]]:
        """The same for every horizon by itself, keyed "1" ... "H"."""
        rows = torch.stack([self.absolute, self.squared, self.count, self.relative, self.nonzero], dim=1).tolist()
        return {str(step + 1): _divide(*row) for step, row in enumerate(rows)}

    def as_dict(self) -> dict[str, Any]:
        """`{"average": ..., "horizons": ...}`, the form of metrics.json."""
        return {"average": self.average(), "horizons": self.horizons()}


def _divide(absolute: float, squared: float, count: float, relative: float, nonzero: float) -> dict[str, float | None]:
    return {
        "MAE": absolute / count if count else None,
        "RMSE": (squared / count) ** 0.5 if count else None,
        "MAPE": 100 * relative / nonzero if nonzero else None,
    }
