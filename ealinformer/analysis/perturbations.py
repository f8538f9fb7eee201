"""What goes wrong with the readings that a forecast is made from: noise, gaps, outages, shifts and trends.

A perturbation changes the input windows alone, in the unit of the data; the targets stay what came. It is a pattern,
drawn once for a window, times a strength, so that a stronger one is the same one and more of it: noise of 0.2 is twice
the noise of 0.1, and what is missing at 10 % is missing at 20 %. The pattern depends on the seed, the perturbation and
the number of the window, so it is the same for every model, batch size and subset of windows.

Missing readings stay missing. Where no reading of the series is negative, what would become so is held at 0. In a
series that marks missing readings by 0 it then looks like one of them, as it would in the feed of such a sensor; the
models are told no difference either, since they z-score zeros like any reading.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ealinformer.errors import InputError, suggestion
from ealinformer.training.metrics import NULL_TOLERANCE

# A fifth of the sensors: the others can tell.
RECALIBRATED = 0.2
# Far beyond any use, and far from what float32 cannot hold.
LARGEST_STRENGTH = 100.0
ROWS_AT_A_TIME = 4096

Pattern = Callable[[Generator, int, int], NDArray[np.float64]]


@dataclass(frozen=True)
class Perturbation:
    """One way for readings to go wrong.

    Args:
        meaning: what happens, for tables.
        axis: what a strength counts, for figures.
        pattern: generator, L and N -> `[L, N]`, or what broadcasts to it. Readings move by strength x training std x
            pattern; with `gaps` those whose pattern lies below the strength go missing instead.
        strengths: the usual ones, from weak to strong.
        gaps: strengths are shares of the readings, from 0 to 1, and otherwise standard deviations of the training part.
        signed: strengths may be negative.
    """

    meaning: str
    axis: str
    pattern: Pattern
    strengths: tuple[float, ...]
    gaps: bool = False
    signed: bool = False


def _normal(rng: Generator, steps: int, sensors: int) -> NDArray[np.float64]:
    return rng.standard_normal(size=(steps, sensors))


def _each_reading(rng: Generator, steps: int, sensors: int) -> NDArray[np.float64]:
    return rng.random(size=(steps, sensors))


def _whole_sensors(rng: Generator, steps: int, sensors: int) -> NDArray[np.float64]:
    return rng.random(size=(1, sensors))


def _some_sensors(rng: Generator, steps: int, sensors: int) -> NDArray[np.float64]:
    return (_whole_sensors(rng, steps, sensors) < RECALIBRATED).astype(np.float64)


def _all_alike(rng: Generator, steps: int, sensors: int) -> NDArray[np.float64]:
    return np.ones((1, 1))


def _ramp(rng: Generator, steps: int, sensors: int) -> NDArray[np.float64]:
    """0 at the oldest reading, 1 at the newest; nothing where a window has but one."""
    return np.arange(steps)[:, None] / max(steps - 1, 1)


_SHARES = (0.05, 0.1, 0.2, 0.4, 0.6)
_MOVES = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0)

PERTURBATIONS: dict[str, Perturbation] = {
    "noise": Perturbation(
        "Gaussian noise at every reading",
        "std of the noise (training std)",
        _normal,
        (0.1, 0.2, 0.5, 1.0),
    ),
    "missing": Perturbation(
        "readings missing, each by itself", "share of readings missing", _each_reading, _SHARES, gaps=True
    ),
    "outage": Perturbation(
        "sensors without a reading in the whole window", "share of sensors out", _whole_sensors, _SHARES, gaps=True
    ),
    "shift": Perturbation(
        "all sensors read so much more", "shift of all sensors (training std)", _all_alike, _MOVES, signed=True
    ),
    "recalibration": Perturbation(
        f"{RECALIBRATED:.0%} of the sensors read so much more",
        f"shift of {RECALIBRATED:.0%} of the sensors (training std)",
        _some_sensors,
        _MOVES,
        signed=True,
    ),
    "trend": Perturbation(
        "readings rise by a ramp, from 0 at the oldest to so much at the newest",
        "rise over the window (training std)",
        _ramp,
        _MOVES,
        signed=True,
    ),
}


def find_perturbation(name: str) -> Perturbation:
    """The perturbation of a name.

    Raises:
        InputError: there is none.
    """
    if name not in PERTURBATIONS:
        known = ", ".join(PERTURBATIONS)
        raise InputError(f"unknown perturbation {name!r}{suggestion(name, PERTURBATIONS)}; known: {known}")
    return PERTURBATIONS[name]


def check_strength(name: str, strength: float) -> None:
    """Raises InputError where a perturbation cannot have a strength."""
    kind = find_perturbation(name)
    low = -LARGEST_STRENGTH if kind.signed else 0.0
    high = 1.0 if kind.gaps else LARGEST_STRENGTH
    if not low <= strength <= high:  # NaN too
        raise InputError(f"{name}: strengths from {low:g} to {high:g} are expected, got {strength:g}")


def is_missing(readings: NDArray, null_value: float) -> NDArray[np.bool_]:
    """True where a reading is NaN or the null value, within the tolerance of the metrics."""
    absent = np.isnan(readings)
    return absent if math.isnan(null_value) else absent | (np.abs(readings - null_value) <= NULL_TOLERANCE)


def lowest_allowed(readings: NDArray, null_value: float) -> float:
    """0 where no present reading of `[T, N]` is negative, as of flow or speed; else minus infinity."""
    for first in range(0, len(readings), ROWS_AT_A_TIME):
        block = readings[first : first + ROWS_AT_A_TIME]
        if ((block < 0) & ~is_missing(block, null_value)).any():
            return -math.inf
    return 0.0


def window_pattern(name: str, window: int, steps: int, sensors: int, seed: int) -> NDArray[np.float64]:
    """The pattern of a window, `[steps, sensors]` or what broadcasts to it, at a strength of 1."""
    # A stream for each perturbation, so that outages do not fall where noise is strong.
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), window])
    return find_perturbation(name).pattern(rng, steps, sensors)


def perturb(
    readings: NDArray[np.float32],
    name: str,
    strength: float,
    *,
    window: int,
    seed: int,
    std: float,
    null_value: float,
    lowest: float,
) -> NDArray[np.float32]:
    """The input window `[L, N]`, perturbed; at strength 0 the very array that was given.

    Args:
        readings: in the unit of the data.
        name: one of `PERTURBATIONS`.
        strength: of the perturbation, as its `meaning` says.
        window: number of the window in its part.
        seed: of all draws.
        std: standard deviation of the training part, in the unit of the data.
        null_value: what a missing reading looks like; may be NaN.
        lowest: what moved readings are held at, see `lowest_allowed`.
    """
    if strength == 0:
        return readings
    missing = is_missing(readings, null_value)
    pattern = window_pattern(name, window, len(readings), readings.shape[1], seed)
    if find_perturbation(name).gaps:
        return np.where(missing | (pattern >= strength), readings, np.float32(null_value))
    moved = np.maximum(readings + strength * std * pattern, lowest).astype(readings.dtype)
    return np.where(missing, readings, moved)


class PerturbedWindows(Dataset):
    """Windows of a data set with their inputs perturbed; counts what readings that costs.

    Args:
        windows: gives items with `inputs` `[L, N]` in the unit of the data; what else they hold stays as it is.
        numbers: which of them, by number.
        name: one of `PERTURBATIONS`.
        strength: of the perturbation.
        settings: the other arguments of `perturb`, but for the window.
    """

    def __init__(
        self, windows: Dataset, numbers: Sequence[int], name: str, strength: float, settings: Mapping[str, Any]
    ) -> None:
        self.windows, self.numbers = windows, numbers
        self.name, self.strength, self.settings = name, strength, settings
        self._present = self._lost = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> dict[str, Any]:
        number = self.numbers[place]
        item = dict(self.windows[number])
        before = item["inputs"]
        item["inputs"] = perturb(before, self.name, self.strength, window=number, **self.settings)
        self._count(before, item["inputs"])
        return item

    @property
    def lost_share(self) -> float:
        """Of the readings given so far that were present, the share that is now missing or held at the lowest."""
        return self._lost / max(self._present, 1)

    def _count(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> None:
        null_value, lowest = self.settings["null_value"], self.settings["lowest"]
        present = ~is_missing(before, null_value)
        lost = is_missing(after, null_value) | ((after <= lowest) & (before > lowest))
        self._present += int(present.sum())
        self._lost += int((present & lost).sum())


def spread_windows(available: int, wanted: int | None) -> list[int]:
    """Numbers of `wanted` windows spread evenly from the first to the last of `available`; all where None.

    Raises:
        InputError: there are not as many.
    """
    if wanted is None:
        return list(range(available))
    if not 1 <= wanted <= available:
        raise InputError(f"--windows {wanted}: from 1 to {available} are expected, the windows there are")
    return [int(number) for number in np.linspace(0, available - 1, wanted).round()]
