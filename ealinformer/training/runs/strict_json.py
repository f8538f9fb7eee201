"""JSON files of runs and results: written whole, and such that every reader of JSON takes them."""

import json
import math
from pathlib import Path
from typing import Any

from ealinformer.errors import InputError
from ealinformer.files import write_text


def json_text(content: Any) -> str:
    """JSON with two spaces a level; NaN and infinity, which are no JSON, become null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole, as in `json_text`."""
    write_text(path, json_text(content) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run.

    Raises:
        InputError: it is not there or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_int=_whole_number)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


def _whole_number(digits: str) -> int:
    if len(digits) > 20:  # which no float could hold in the end
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)
