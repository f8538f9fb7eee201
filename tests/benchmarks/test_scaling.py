"""benchmarks/scaling.py as a user runs it, on few sensors."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import scaling
from ealinformer.errors import InputError


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """The benchmark sets torch's threads; the tests after these keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_forecasts_over_n_are_rows_with_exponents_a_table_and_a_figure(tmp_path: Path) -> None:
    row = tmp_path / "scaling" / "cpu.json"
    quick = ["--lengths", "32,16", "--rounds", "1", "--fit-from", "16", "--threads", "1", "--max-seconds", "30"]
    scaling.main([*quick, "--inference-only", "--models", "elinformer", "--row", str(row)])
    content = json.loads(row.read_text())
    assert [(found["length"], found["pass"], found["status"]) for found in content["rows"]] == [
        (16, "inference", "ok"),
        (32, "inference", "ok"),
    ]
    (fit,) = content["fits"]
    assert (fit["model"], fit["from_length"], fit["to_length"]) == ("ELinFormer", 16, 32)
    assert content["settings"]["batch_size"] == 1
    assert sorted(path.name for path in row.parent.iterdir()) == ["cpu.json", "cpu.png", "cpu.txt"]
    assert "cost = a N^p" in row.with_suffix(".txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lengths", "16,many"], "--lengths is a list of whole numbers above 0, such as 2048,4096, got '16,many'"),
        (["--lengths", "0"], "--lengths is a list of whole numbers"),
        (["--fit-from", "0"], "--fit-from has to be at least 1, got 0"),
        (["--max-seconds", "nan"], "--max-seconds has to be above 0, got nan"),
        (["--models", "fused,fused"], "--models names one twice"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        scaling.main(arguments)
