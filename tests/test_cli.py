"""Exit statuses and messages of all command lines."""

import subprocess
import sys
from collections.abc import Sequence

import pytest

from ealinformer.cli import ArgumentParser, run
from ealinformer.errors import InputError, suggestion


def exit_of(main) -> int:
    with pytest.raises(SystemExit) as caught:
        run(main)
    return caught.value.code


def raising(error: BaseException):
    def main(arguments: Sequence[str] | None = None) -> None:
        raise error

    return main


def test_success_is_0_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(lambda arguments: None) == 0
    assert capsys.readouterr() == ("", "")


def test_bad_input_is_2_and_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(raising(InputError("data.npz is not there"))) == 2
    assert capsys.readouterr() == ("", "error: data.npz is not there\n")


def test_an_interrupt_is_130_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError("a bug"), RuntimeError("a bug"), KeyError("a bug")])
def test_our_own_bugs_are_not_dressed_up(error: Exception) -> None:
    with pytest.raises(type(error), match="a bug"):
        run(raising(error))


def test_a_process_ends_with_the_status_and_a_bug_with_a_traceback() -> None:
    def process(line: str) -> subprocess.CompletedProcess[str]:
        head = "from ealinformer.cli import run\nfrom ealinformer.errors import InputError\n"
        code = f"{head}def main(arguments):\n    {line}\nrun(main)"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    refused = process("raise InputError('no such file')")
    assert (refused.returncode, refused.stderr) == (2, "error: no such file\n")
    interrupted = process("raise KeyboardInterrupt")
    assert (interrupted.returncode, interrupted.stderr) == (130, "interrupted\n")
    bug = process("raise ValueError('ours')")
    assert bug.returncode == 1
    assert bug.stderr.startswith("Traceback")
    assert "ValueError: ours" in bug.stderr
    assert process("pass").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: --size"),
        (["--size", "two"], "argument --size: invalid int value: 'two'"),
        (["--size", "2", "--colour", "red"], "unrecognized arguments: --colour red"),
        (["--size", "2", "--part", "all"], "argument --part: invalid choice: 'all'"),
    ],
)
def test_a_bad_argument_is_bad_input(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser(prog="tool.py")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--part", choices=("val", "test"))
    with pytest.raises(InputError) as caught:
        parser.parse_args(arguments)
    assert said in str(caught.value)
    assert str(caught.value).endswith("(see tool.py --help)")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_help_is_0_and_keeps_the_lines_of_its_examples(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser(prog="tool.py", epilog="examples:\n  tool.py --size 1\n  tool.py --size 2\n")
    assert exit_of(lambda arguments: parser.parse_args(["--help"])) == 0
    assert "examples:\n  tool.py --size 1\n  tool.py --size 2\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("batchsize", " (did you mean 'batch_size'?)"),
        ("lr", " (did you mean 'lr'?)"),
        ("batch", " (did you mean 'batch_size'?)"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_suggested(name: str, expected: str) -> None:
    assert suggestion(name, ["lr", "batch_size", "num_epochs"]) == expected


def test_nothing_known_suggests_nothing() -> None:
    assert suggestion("lr", iter(())) == ""


def test_bad_input_is_a_value_error() -> None:
    assert issubclass(InputError, ValueError)
