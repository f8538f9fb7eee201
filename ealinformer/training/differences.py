"""What two configs, or two records of versions, differ in: key by key."""

from collections.abc import Mapping
from typing import Any

from ealinformer.training.config import MAX_SHOWN, RunConfig

_UNSET = "(not set)"
_SAME_BITS = {"windows"}  # settings that are free to change when a run is taken up


def compare_run(saved: RunConfig, wanted: RunConfig) -> list[str]:
    """Every difference that changes numbers, as `recipe.lr 0.001 -> 0.002`; none for equal configs."""
    # As JSON has them, because a list in a checkpoint was a tuple in the config file.
    return _differences(*(flat(run.model_dump(mode="json", exclude=_SAME_BITS)) for run in (saved, wanted)))


def compare_code(saved: dict[str, str], now: dict[str, str]) -> list[str]:
    """Every difference between two records of versions, in the same form."""
    return _differences(saved, now)


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one, their keys joined by dots; lists stay values, empty objects leave nothing."""
    result: dict[str, Any] = {}
    for key, value in content.items():
        result.update(flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return result


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys((*saved, *now))
    pairs = [(name, saved.get(name, _UNSET), now.get(name, _UNSET)) for name in names]
    return [f"{name} {_shown(one)} -> {_shown(two)}" for name, one, two in pairs if not _equal(one, two)]


def _equal(one: object, two: object) -> bool:
    return one == two or (one != one and two != two)  # NaN, as a null value, is not equal to itself


def _shown(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
