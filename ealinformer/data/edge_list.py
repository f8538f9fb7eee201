"""Reading road graphs published as edge lists, and the sensor ids that such lists may use."""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ealinformer.data.files import decoding, first_repeated, read_text, shown
from ealinformer.errors import InputError

_HEADERS = (["from", "to", "cost"], ["from", "to", "distance"], ["from", "to"])
_EXPECTED = "an edge list with header 'from,to,cost', 'from,to,distance' or 'from,to'"
# The published PEMS03 file ends its lines in CR CR LF. A row of CRs is looked at once, from its first.
_LINE_END = re.compile(r"(?:(?<!\r)\r+)?\n|\r")


@dataclass(frozen=True, eq=False)
class EdgeList:
    """Distinct edges as sensor numbers; `costs` is None for a list without third column."""

    sources: np.ndarray  # [E] int64
    destinations: np.ndarray  # [E] int64
    costs: np.ndarray | None  # [E] float32


def read_ids(path: Path, num_sensors: int | None = None) -> list[str]:
    """Sensor ids in column order, from a text file with one id a line or all in a line with commas.

    Raises InputError for a missing or empty file, an id that occurs twice, and other than `num_sensors` ids.
    """
    expected = "a text file with one sensor id a line"
    ids = [token.strip() for token in re.split(r"[,\r\n]", read_text(path, expected)) if token.strip()]
    if not ids:
        raise InputError(f"{path}: holds no sensor id; expected {expected}")
    check_ids(path, ids, len(ids) if num_sensors is None else num_sensors)
    return ids


def check_ids(path: Path, ids: Sequence[str], num_sensors: int) -> None:
    """Raise InputError unless `ids` are `num_sensors` different ones."""
    if len(ids) != num_sensors:
        raise InputError(f"{path}: found {len(ids)} sensor ids; expected {num_sensors}, one for each sensor")
    twice = first_repeated(ids)
    if twice is not None:
        raise InputError(f"{path}: sensor id {shown(twice)} occurs twice; expected {num_sensors} different ids")


def read_edge_list(path: Path, num_sensors: int, ids: Sequence[str] | None) -> EdgeList:
    """Edges of a CSV file that names sensors by number 0..N-1, or by id where `ids` are given.

    An edge that is listed again counts once, with its smallest cost. Raises InputError for a wrong header or row, a
    sensor that is not one of the N, a cost that is negative or not finite, and a file without edges.
    """
    rows = _rows(path)
    header = [name.strip().lower() for name in rows[0][1]] if rows else []
    if header not in _HEADERS:
        found = ",".join(header)[:80]
        raise InputError(f"{path}: the header is {found!r}; expected {_EXPECTED}")
    if len(rows) == 1:
        raise InputError(f"{path}: holds a header and no edges; expected at least one")
    numbers = None if ids is None else {name: number for number, name in enumerate(ids)}
    edges: dict[tuple[int, int], float] = {}
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise InputError(f"{path}: line {line} has {len(row)} fields; expected {len(header)} as in the header")
        ends = _sensor(path, line, row[0], num_sensors, numbers), _sensor(path, line, row[1], num_sensors, numbers)
        cost = _cost(path, line, row[2]) if len(row) == 3 else 1.0
        edges[ends] = min(cost, edges.get(ends, math.inf))
    sources, destinations = np.array(list(edges), dtype=np.int64).T
    costs = np.array(list(edges.values()), dtype=np.float32) if len(header) == 3 else None
    return EdgeList(sources, destinations, costs)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and fields of every line that is not blank."""
    lines = _LINE_END.split(read_text(path, _EXPECTED))
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    with decoding(path, _EXPECTED):
        fields = csv.reader([line for _, line in numbered], strict=True)
        return [(number, row) for (number, _), row in zip(numbered, fields, strict=True)]


def _sensor(path: Path, line: int, token: str, num_sensors: int, numbers: dict[str, int] | None) -> int:
    name = token.strip()
    if numbers is not None:
        if name not in numbers:
            raise InputError(
                f"{path}: line {line} names sensor {name[:40]!r}; expected one of the N = {num_sensors} ids"
            )
        return numbers[name]
    if not (name.isascii() and name.isdigit() and len(name) < 19 and int(name) < num_sensors):
        wanted = f"a number from 0 to {num_sensors - 1} (N = {num_sensors}), or an id file that lists it"
        raise InputError(f"{path}: line {line} names sensor {name[:40]!r}; expected {wanted}")
    return int(name)


def _cost(path: Path, line: int, token: str) -> float:
    try:
        cost = float(token)
    except ValueError:
        cost = math.nan
    if not 0 <= cost <= float(np.finfo(np.float32).max):
        raise InputError(f"{path}: line {line} has cost {token.strip()[:40]!r}; expected a number that is 0 or more")
    return cost
