"""torch.compile of a run: the losses and weights of one without, names that stay, and one line where it cannot be."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from basicts.runners.builder import Builder
from torch import nn

from ealinformer.errors import InputError
from ealinformer.training import scoring
from ealinformer.training.checkpoints.checkpoint import load_checkpoint
from ealinformer.training.compilation import check_parts, compile_in_place, explaining_compiler, uncompiled
from ealinformer.training.distributed.devices import select_devices
from ealinformer.training.jobs import Job
from ealinformer.training.launcher import evaluate, train
from ealinformer.training.runs.history import read_history

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler, which torch.compile needs")
NewJob = Callable[..., Job]


class Scale(nn.Module):
    """Notes whether it runs compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.compiled: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.compiled.append(torch.compiler.is_compiling())
        return x * self.scale


def test_off_leaves_the_model_as_it_is() -> None:
    model = Scale()
    compile_in_place(model, "off")
    model(torch.ones(2))
    assert model.compiled == [False]


@needs_compiler
def test_a_module_is_compiled_in_place_and_runs_as_written_where_it_is_told_to() -> None:
    model = Scale()
    compile_in_place(model, "default")
    assert torch.equal(model(torch.ones(2)), torch.ones(2))
    with uncompiled():
        model(torch.ones(3))
    with uncompiled(False):
        model(torch.ones(2))
    assert model.compiled == [True, False, True]
    assert list(model.state_dict()) == ["scale"]


@needs_compiler
def test_a_compiled_run_follows_the_plain_one_and_leaves_the_same_files(
    new_job: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a minute, which is the compiler's: training and scoring are compiled, each for a whole batch."""
    told: list[bool] = []

    def note(when: bool = True) -> AbstractContextManager[None]:
        told.append(when)
        return uncompiled(when)

    settings = ("num_epochs=1", "model.dropout=0.0", "dtype=float64")  # compiled dropout draws other numbers
    plain = new_job(tmp_path / "plain", *settings)
    expected = train(plain)
    monkeypatch.setattr(scoring, "uncompiled", note)
    compiled = new_job(tmp_path / "compiled", *settings, "compile=default")
    found = train(compiled)
    # 234 windows by 40, 74 and 75 by 32: the last batch of each part is smaller, and runs as the model is written.
    assert told == [*[False] * 5, True, *[False] * 2, True, *[False] * 2, True]
    assert found["average"] == pytest.approx(expected["average"], rel=1e-9)
    histories = [read_history(job.folder / "history.csv") for job in (compiled, plain)]
    assert histories[0][0]["train_loss"] == pytest.approx(histories[1][0]["train_loss"], rel=1e-9)
    one, other = (load_checkpoint(job.folder / "best.pt")[1]["model"] for job in (plain, compiled))
    assert list(one) == list(other)
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-6, atol=1e-9)
    again = evaluate(compiled, compiled.folder / "best.pt", "test", compile="off")
    assert again["average"] == pytest.approx(expected["average"], rel=1e-9)
    assert "CPU, " in (log := (compiled.folder / "train.log").read_text())
    assert ", dtype float64, compile default\n" in log


def test_the_host_renames_the_weights_of_a_model_that_it_compiles() -> None:
    select_devices(None)
    settings = SimpleNamespace(model=lambda config: Scale(), model_config=None, compile_model=True)
    assert list(Builder._build_model(settings, logging.getLogger("host")).state_dict()) == ["_orig_mod.scale"]


MISSING = """
import sys
from pathlib import Path
from ealinformer.errors import InputError
from ealinformer.training.compilation import check_compiler
try:
    check_compiler(sys.argv[1], "cpu")
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("mode", ["off", "default"])
def test_a_missing_compiler_is_one_line(tmp_path: Path, mode: str) -> None:
    environment = {**os.environ, "CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", MISSING, mode], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if mode == "off":
        assert done.stdout == ""
        return
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("compile=default: torch cannot compile here: ")
    assert "/nowhere/g++" in done.stdout
    assert done.stdout.endswith("; compile=off does without\n")


def test_other_errors_are_not_the_compilers() -> None:
    with pytest.raises(RuntimeError, match="something else") as error, explaining_compiler("default"):
        raise RuntimeError("something else")
    assert not isinstance(error.value, InputError)


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_parts_of_a_batch_and_cuda_graphs_are_refused_together(mode: str) -> None:
    with pytest.raises(InputError, match=rf"^compile={mode} with micro_batch_size=4: .*compile=default is expected$"):
        check_parts(mode, 4, cuda=True)
    check_parts(mode, 4, cuda=False)
    check_parts(mode, None, cuda=True)
    check_parts("default", 4, cuda=True)
