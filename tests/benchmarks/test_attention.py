"""benchmarks/attention.py as a user runs it, on shapes of a blink."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import attention
from ealinformer.attention import ATTENTIONS
from ealinformer.errors import InputError
from ealinformer.measure.attention_cost import BOTH, FORWARD

ROOT = Path(__file__).parents[2]
QUICK = ["--batch", "1", "--heads", "2", "--head-sizes", "8", "--repeats", "2", "--seconds", "0.01", "--threads", "1"]
NAMES = "sdpa,entropy_equal:gaussian"


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    """The benchmark sets torch's threads; the tests after these keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: two attentions, two lengths, both passes."""
    output = tmp_path_factory.mktemp("results") / "attention" / "cpu.json"
    quick = [*QUICK, "--lengths", "24,12", "--attentions", NAMES, "--fit-from", "12", "--memory-limit", "2"]
    attention.main([*quick, "--output", str(output), "--check"])
    return output


def content(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_rows_hold_time_ratio_and_memory(measured: Path) -> None:
    rows = content(measured)["rows"]
    assert [(row["length"], row["pass"], row["attention"]) for row in rows] == [
        (length, kind, name) for length in (12, 24) for kind in (FORWARD, BOTH) for name in NAMES.split(",")
    ]
    for row in rows:
        assert row["status"] == "ok", row["reason"]
        assert 0 < row["seconds_p20"] <= row["seconds"] <= row["seconds_p80"] < 1
        assert row["memory_bytes"] >= 4 * 2 * row["length"] * 8  # the output at least
        assert row["samples"] >= 2
        assert row["passes_in_a_sample"] > 1
        assert (row["ratio"] == 1) == (row["attention"] == "sdpa")


def test_the_file_says_where_it_comes_from(measured: Path) -> None:
    found = content(measured)
    assert found["kind"] == "attention"
    assert found["complete"] is True
    assert found["settings"]["lengths"] == [24, 12]
    assert found["settings"]["memory_limit"] == 2 * 2**30
    assert {"machine", "versions", "commit", "command", "date", "seed"} <= found.keys()
    assert found["machine"]["threads"] == 1


def test_exponents_are_stored(measured: Path) -> None:
    fits = content(measured)["fits"]
    assert len(fits) == 4
    assert all(fit["from_length"] == 12 and fit["to_length"] == 24 for fit in fits)


def test_tables_and_figure_lie_beside_it(measured: Path) -> None:
    assert sorted(path.name for path in measured.parent.iterdir()) == ["cpu.json", "cpu.png", "cpu.txt"]
    text = measured.with_suffix(".txt").read_text()
    assert "N = 12, batch 1, 2 heads, C = 8, float32, cpu" in text
    assert "cost = a N^p" in text
    assert "not measured" in text  # the targets are about another setting


def test_a_finished_run_is_not_measured_again(
    measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attention, "measure_shape", lambda *_: pytest.fail("measured"))
    before = content(measured)
    quick = [*QUICK, "--lengths", "24,12", "--attentions", NAMES, "--fit-from", "12"]
    attention.main([*quick, "--output", str(measured)])  # without --memory-limit: that of the file
    assert content(measured) == before
    assert "2 of 2 shapes are measured already" in capsys.readouterr().err


def test_an_interrupted_run_goes_on_where_it_stopped(
    measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = content(measured)
    half = {**whole, "rows": whole["rows"][:4], "complete": False, "fits": []}
    output = tmp_path / "cpu.json"
    output.write_text(json.dumps(half))
    asked = []

    def measure_shape(plan: Any, shape: Any, earlier: Any, build: Any, tell: Any) -> list[dict[str, Any]]:
        asked.append(shape.length)
        assert earlier == half["rows"]
        return whole["rows"][4:]

    monkeypatch.setattr(attention, "measure_shape", measure_shape)
    quick = [*QUICK, "--lengths", "24,12", "--attentions", NAMES, "--fit-from", "12", "--memory-limit", "2"]
    attention.main([*quick, "--output", str(output)])
    assert asked == [24]
    assert content(output) == whole


def test_rows_of_another_run_are_neither_mixed_nor_overwritten(measured: Path) -> None:
    before = measured.read_bytes()
    with pytest.raises(InputError, match=r"is of another run: batch was 1, is 2; --overwrite begins anew"):
        attention.main([*QUICK, "--batch", "2", "--lengths", "24,12", "--attentions", NAMES, "--output", str(measured)])
    assert measured.read_bytes() == before


def test_a_file_can_be_reported_without_measuring(
    measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attention, "measure_shape", lambda *_: pytest.fail("measured"))
    for ending in (".png", ".txt"):
        measured.with_suffix(ending).unlink()
    attention.main(["--report", str(measured), "--check"])
    assert capsys.readouterr().out.strip() == measured.with_suffix(".txt").read_text().strip()
    assert measured.with_suffix(".png").exists()


def test_running_out_of_memory_is_a_row_of_a_real_process(tmp_path: Path) -> None:
    output = tmp_path / "limit.json"
    shapes = ["--lengths", "16,4096,8192", "--attentions", "softmax,entropy_equal:gaussian", "--forward"]
    attention.main([*QUICK, *shapes, "--memory-limit", "0.1", "--output", str(output)])
    rows = {(row["attention"], row["length"]): row for row in content(output)["rows"]}
    assert [rows["entropy_equal:gaussian", n]["status"] for n in (16, 4096, 8192)] == ["ok"] * 3
    assert [rows["softmax", n]["status"] for n in (16, 4096, 8192)] == ["ok", "out of memory", "skipped"]
    scores = 4 * 2 * 4096**2
    assert scores <= rows["softmax", 4096]["needed_bytes"] < 3 * scores
    assert rows["softmax", 4096]["seconds"] is None
    assert "out of memory: needs at least" in output.with_suffix(".txt").read_text()


def test_an_attention_that_cannot_is_a_row_with_its_message(tmp_path: Path) -> None:
    output = tmp_path / "causal.json"
    shapes = ["--lengths", "16", "--attentions", "sdpa,linformer", "--causal", "--forward"]
    attention.main([*QUICK, *shapes, "--output", str(output)])
    sdpa, linformer = content(output)["rows"]
    assert sdpa["status"] == "ok"
    assert linformer["status"] == "failed"
    assert "causal" in linformer["reason"]


def test_all_registered_attentions_and_the_gaussian_closure_are_the_default() -> None:
    plan = attention.plan_of(attention.parse([]))
    assert set(plan.attentions) == {*ATTENTIONS, "entropy_equal:gaussian"}
    assert (plan.passes, plan.batch, plan.heads, plan.head_sizes) == ((FORWARD, BOTH), 8, (4,), (38,))
    assert {170, 883, 2048, 65536} <= set(plan.lengths)


@pytest.mark.parametrize(
    ("options", "passes"),
    [(["--forward"], (FORWARD,)), (["--backward"], (BOTH,)), (["--forward", "--backward"], (FORWARD, BOTH))],
)
def test_passes_are_chosen(options: list[str], passes: tuple[str, ...]) -> None:
    assert attention.plan_of(attention.parse(options)).passes == passes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lengths", "12,many"], "--lengths is a list of whole numbers above 0, such as 12,170,883, got '12,many'"),
        (["--lengths", "0"], "--lengths is a list of whole numbers"),
        (["--heads", "4,4"], "--heads is a list such as a,b without gaps or repetition, got '4,4'"),
        (["--attentions", "sdpa,"], "--attentions is a list"),
        (["--attentions", "sofmax"], "did you mean 'softmax'"),
        (["--attentions", "entropy_equal:gausian"], "did you mean 'gaussian'"),
        (["--attentions", "softmax:rank=3"], "takes no options"),
        (["--dtype", "int8"], "--dtype is of float32, float64, float16, bfloat16, got 'int8'"),
        (["--batch", "0"], "--batch has to be at least 1, got 0"),
        (["--repeats", "0"], "--repeats has to be at least 1, got 0"),
        (["--max-seconds", "nan"], "--max-seconds has to be above 0, got nan"),
        (["--memory-limit", "-1"], "--memory-limit has to be above 0, got -1.0"),
        (["--output", "cpu.txt"], "cpu.txt: a name that ends in .json is expected"),
        (["--report", "nowhere.json"], "cannot read nowhere.json: No such file or directory"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        attention.main(arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": {}}', '{"settings": {"colour": 1}, "rows": []}'])
def test_a_foreign_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"was not written by benchmarks/attention\.py"):
        attention.main(["--report", str(path)])


def test_options_stand_behind_colons() -> None:
    built = attention.build("linformer:rank=5", 30, 8)
    assert any(5 in parameter.shape for parameter in built.parameters())  # type: ignore[attr-defined]


def test_as_a_command_it_ends_with_2_on_bad_input_and_shows_examples() -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, str(ROOT / "benchmarks" / "attention.py"), *arguments]
        return subprocess.run(line, capture_output=True, text=True)

    bad = command("--lengths", "x")
    assert (bad.returncode, bad.stdout, len(bad.stderr.splitlines())) == (2, "", 1)
    good = command("--help")
    assert good.returncode == 0
    assert "entropy_equal:gaussian" in good.stdout


def test_as_a_command_it_measures_and_prints(tmp_path: Path) -> None:
    """The processes that measure find the functions of a script, too."""
    line = [sys.executable, str(ROOT / "benchmarks" / "attention.py"), *QUICK]
    line += ["--lengths", "12", "--attentions", "sdpa", "--forward"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[0] == "N = 12, batch 1, 2 heads, C = 8, float32, cpu"
    assert "1/1 shapes" in done.stderr
    assert list(tmp_path.iterdir()) == []
