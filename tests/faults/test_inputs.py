"""Damaged data, meta.json and config files: one line and nothing written, or a run as it should be."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.faults.conftest import Reference
from tests.faults.processes import Ended
from tests.faults.tally import OTHER_RUN, REFUSED, SAME_BITS, Campaign
from tests.faults.town import Town
from tests.fuzz import mutate

CASES = {"quick": 30, "full": 200}
SHORT = ("--max-steps", "3", "--checkpoint-minutes", "1000")
# Nothing that makes a model of many gigabytes: that is no damage but a wish.
_NUMBERS = (
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "1.5",
    "1e999",
    "-0.0",
    "2**31",
    "10**30",
    "None",
    "True",
    "'5'",
    "()",
    "(1, 2)",
)


def test_a_damaged_input_is_refused_in_one_line_or_does_no_harm(
    reference: Reference, campaign: Callable[[str], Campaign], size: str, room: Path
) -> None:
    mutations = campaign("data, meta.json, config")
    town = Town(room / "town.py", room / "datasets")
    expected = _trained(reference, reference.town, room / "expected")
    for number in range(CASES[size]):
        rng, folder = mutations.rng(number), room / "runs" / str(number)
        shutil.rmtree(town.datasets, ignore_errors=True)
        shutil.copytree(reference.town.datasets, town.datasets)
        shutil.copy(reference.town.config, town.config)
        with mutations.case(f"case {number}") as case:
            path, how = _damage(rng, town)
            case.what += f", {path.name} {how}"
            ended = reference.zygote.run("train", *town.training(folder, *SHORT))
            if ended.status == 0:
                same_config = (folder / "config.json").read_bytes() == (room / "expected" / "config.json").read_bytes()
                same = _metrics(folder) == expected
                assert same or (path == town.config and not same_config), "it trains to other numbers in silence"
                case.outcome = SAME_BITS if same else OTHER_RUN
                continue
            _expect_refusal(ended, folder)
            case.outcome = REFUSED
    mutations.expect_no_findings()


def _trained(reference: Reference, town: Town, folder: Path) -> dict[str, object]:
    ended = reference.zygote.run("train", *town.training(folder, *SHORT))
    assert ended.status == 0, ended
    return _metrics(folder)


def _metrics(folder: Path) -> dict[str, object]:
    content = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in content.items() if "seconds" not in name and "memory" not in name}


def _expect_refusal(ended: Ended, folder: Path) -> None:
    assert ended.was_refused, f"it ended with {ended}"
    assert len(ended.err.splitlines()) == 1, f"more than one line: {ended}"
    assert not folder.exists(), f"it left {sorted(path.name for path in folder.iterdir())}"
    assert not folder.parent.exists() or not any(folder.parent.glob(".*")), "it left something beside the folder"


def _damage(rng: random.Random, town: Town) -> tuple[Path, str]:
    """Change one file so that it is another; which, and how."""
    prepared = sorted((town.datasets / "TOWN").iterdir())
    path = rng.choice((town.config, town.datasets / "TOWN" / "meta.json", rng.choice(prepared)))
    before = path.read_bytes()
    ways: dict[str, mutate.Mutation] = {"with other bytes": mutate.bytes_}
    if path == town.config:
        ways |= {
            "with another field": mutate.text,
            "with another number": _other_number,
            "with a line less": _line_less,
        }
    elif path.suffix == ".json":
        ways |= {"with another value": mutate.json_, "with one other value": mutate.json_}
    elif path.suffix == ".npy":
        ways |= {"with another header": mutate.npy}
    elif path.suffix == ".txt":
        ways |= {"with another field": mutate.text}
    how = rng.choice(sorted(ways))
    while (content := ways[how](rng, before)) == before:
        pass
    if rng.random() < 0.05:
        path.unlink()
        return path, "removed"
    path.write_bytes(content)
    return path, how


def _other_number(rng: random.Random, data: bytes) -> bytes:
    numbers = list(re.finditer(rb"(?<==)[\d.e-]+|(?<=: )[\d.e-]+", data))
    found = rng.choice(numbers)
    return data[: found.start()] + rng.choice(_NUMBERS).encode() + data[found.end() :]


def _line_less(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)
