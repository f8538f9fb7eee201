"""benchmarks/train_step.py as a user runs it, on one window of PEMS08's shape."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks import _common, epoch, scaling, train_step
from ealinformer.errors import InputError

ROOT = Path(__file__).parents[2]
QUICK = ["PEMS08", "--batch-size", "1", "--rounds", "1", "--threads", "1"]


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """The benchmark sets torch's threads; the tests after these keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two models."""
    row = tmp_path_factory.mktemp("results") / "train_step" / "cpu.json"
    train_step.main([*QUICK, "--models", "explicit,identity", "--row", str(row)])
    return row


def test_rows_hold_phases_ratios_memory_and_the_roofline(measured: Path) -> None:
    explicit, identity = json.loads(measured.read_text())["rows"]
    for row in (explicit, identity):
        assert row["status"] == "ok", row["reason"]
        assert (row["dataset_shape"], row["num_sensors"], row["batch_size"], row["dtype"]) == (
            "PEMS08",
            170,
            1,
            "float32",
        )
        phases = sum(row[f"{phase}_seconds"] for phase in ("data", "forward", "backward", "optimizer"))
        assert 0 < phases <= row["seconds"]
        assert row["memory_bytes"] > 4 * 4 * 1_000_000  # weights, gradients and both moments of a million and more
        assert row["roofline_seconds"] > 0
    assert (explicit["ratio"], explicit["memory_ratio"]) == (1, 1)
    assert identity["flops"] < explicit["flops"]
    assert identity["memory_ratio"] < 1
    assert identity["ratio_to_second"] is None  # fused softmax was not asked for


def test_the_file_says_where_it_comes_from(measured: Path) -> None:
    content = json.loads(measured.read_text())
    assert (content["kind"], content["random_values"]) == ("train step", True)
    assert content["settings"]["fast_malloc"] is True
    assert content["settings"]["threads"] == content["machine"]["threads"] == 1
    assert content["ceilings"]["flops_per_second"] > 0
    assert {"machine", "versions", "commit", "command", "date", "seed"} <= content.keys()


def test_tables_and_figures_lie_beside_it(measured: Path) -> None:
    names = ["cpu-phases.png", "cpu-roofline.png", "cpu.json", "cpu.txt"]
    assert sorted(path.name for path in measured.parent.iterdir()) == names
    text = measured.with_suffix(".txt").read_text()
    assert text.startswith("measured ceilings: ")
    assert "PEMS08's shape, random values: 170 sensors, batch 1, float32" in text


@pytest.mark.parametrize("short", _common.NAMES)
def test_every_model_is_built_by_what_tables_call_it(short: str) -> None:
    title, settings = _common.NAMES[short]
    with torch.device("meta"):
        model = _common.build(title, 30)
    name, _ = _common.config_settings(short)
    assert type(model).__name__ == name
    _, config = _common.model_and_config(short, 30)
    assert {key: getattr(config, key) for key in settings} == settings


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["PEMS80"], "NAME is a list of .*, got 'PEMS80' .did you mean"),
        (["PEMS08", "PEMS08"], "NAME names one twice"),
        (["PEMS08", "--rounds", "0"], "--rounds has to be at least 1, got 0"),
        (["PEMS08", "--batch-size", "0"], "--batch-size has to be at least 1, got 0"),
        (["PEMS08", "--threads", "0"], "--threads has to be at least 1, got 0"),
        (["PEMS08", "--models", "fussed"], "--models is a list of .*, got 'fussed' .did you mean 'fused'"),
        (["PEMS08", "--dtype", "float16"], "--dtype is one of float32, tf32, bf16, got 'float16'"),
        (["PEMS08", "--dtype", "tf32"], "--dtype tf32 needs --cuda"),
        (["PEMS08", "--compile", "on"], "--compile is one of off, default"),
        (["PEMS08", "--memory-limit", "nan"], "--memory-limit has to be above 0, got nan"),
        (["PEMS08", "--max-seconds", "0"], "--max-seconds has to be above 0"),
        (["PEMS08", "--row", "cpu.txt"], "cpu.txt: a name that ends in .json is expected"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        train_step.main(arguments)
    assert "\n" not in str(caught.value)


def test_as_a_command_it_ends_with_2_on_bad_input() -> None:
    line = [sys.executable, str(ROOT / "benchmarks" / "train_step.py"), "--no-such-option"]
    bad = subprocess.run(line, capture_output=True, text=True)
    assert (bad.returncode, bad.stdout, len(bad.stderr.splitlines())) == (2, "", 1)


@pytest.mark.parametrize("script", [train_step, scaling, epoch])
def test_help_shows_examples(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        script.main(["--help"])
    assert left.value.code == 0
    assert f"python {script.__name__.replace('.', '/')}.py" in capsys.readouterr().out
