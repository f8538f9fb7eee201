"""benchmarks/models.py as a user runs it, on two models."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import models
from ealinformer.errors import InputError


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """The benchmark sets torch's threads; the tests after these keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_pass_is_a_row_beside_the_reference(tmp_path: Path) -> None:
    row = tmp_path / "cpu.json"
    models.main(["--models", "STGCN,ELinFormer", "--rounds", "1", "--threads", "1", "--row", str(row)])
    content = json.loads(row.read_text())
    stgcn, ours = content["rows"]
    assert (stgcn["model"], stgcn["parameters"], stgcn["status"]) == ("STGCN", 227_084, "ok")
    assert stgcn["ratio"] == pytest.approx(stgcn["seconds"] / 0.045)
    assert (ours["reference_seconds"], ours["ratio"]) == (None, None)
    assert content["random_values"]
    assert "elsewhere s" in row.with_suffix(".txt").read_text()


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler, which torch.compile needs")
def test_compiled_passes_take_turns_with_plain_ones(tmp_path: Path) -> None:
    row = tmp_path / "compiled.json"
    command = ["--models", "STGCN", "--batch-size", "1", "--rounds", "1", "--threads", "1", "--row", str(row)]
    models.main([*command, "--compile", "default"])
    content = json.loads(row.read_text())
    (stgcn,) = content["rows"]
    assert (stgcn["status"], content["settings"]["compile"]) == ("ok", "default")
    assert stgcn["compiled_ratio"] == pytest.approx(stgcn["compiled_seconds"] / stgcn["seconds"])
    assert stgcn["compile_seconds"] > stgcn["compiled_seconds"]
    assert "of plain" in row.with_suffix(".txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--models", "STGNN"], r"--models is a list of ELinFormer, AGCRN.*got 'STGNN' \(did you mean 'D2STGNN'\?\)"),
        (["--compile", "on"], "--compile is one of off, default"),
        (["--rounds", "0"], "--rounds has to be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        models.main(arguments)
