"""Peak memory of this process, and where a number comes from."""

import json
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import torch

import ealinformer
from ealinformer.measure import PeakMemory, memory, provenance
from ealinformer.measure.memory import MIB
from ealinformer.measure.provenance import code_changes, installed_packages

ROOT = Path(__file__).parents[2]
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def in_a_fresh_process(code: str) -> list[float]:
    """Run `code` where nothing has used memory before, torch neither, and read the numbers it prints."""
    head = (
        "import runpy, sys, types\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        f"memory = runpy.run_path({memory.__file__!r})\n"
        "PeakMemory, resident, MIB = memory['PeakMemory'], memory['_resident_bytes'], memory['MIB']\n"
    )
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


@needs_proc
def test_the_peak_grows_with_an_allocation_and_stays_after_it_is_gone() -> None:
    before, during, after = in_a_fresh_process(
        "peak = PeakMemory(cuda=False)\n"
        "before = peak.mib()\n"
        "block = b'1' * 100 * MIB\n"
        "during = peak.mib()\n"
        "del block\n"
        "print(before, during, peak.mib())\n"
    )
    assert before < 5
    assert 99 < during - before < 105
    assert after == pytest.approx(during, abs=5)  # the kernel's own counters are off by some pages


@needs_proc
def test_an_earlier_peak_hides_a_smaller_one_and_not_a_larger_one() -> None:
    hidden, seen = in_a_fresh_process(
        "earlier = b'1' * 100 * MIB\n"
        "del earlier\n"
        "peak = PeakMemory(cuda=False)\n"
        "small = b'1' * 20 * MIB\n"
        "hidden = peak.mib()\n"
        "large = b'1' * 150 * MIB\n"
        "print(hidden, peak.mib())\n"
    )
    assert 95 < hidden < 105  # as documented: the mark is the process's own
    assert 165 < seen < 175


@needs_proc
def test_a_child_does_not_inherit_the_peak_of_its_parent() -> None:
    """What getrusage gives is inherited, where a process was forked by a larger one."""
    assert memory._resident_bytes("VmHWM") / MIB > 150  # torch is loaded here
    (child,) = in_a_fresh_process("print(resident('VmHWM') / MIB)")
    assert child < 60


def test_the_kind_says_what_is_counted() -> None:
    assert PeakMemory(cuda=False).kind == "RSS over the start"


def test_without_proc_the_peak_is_still_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "nothing")
    resident = memory._resident_bytes("VmHWM")
    assert 30 * MIB < resident < 100_000 * MIB
    assert PeakMemory(cuda=False).mib() >= 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_peak_of_a_gpu_is_what_was_allocated_since() -> None:
    hidden = torch.empty(300 * MIB, dtype=torch.uint8, device="cuda")
    del hidden
    peak = PeakMemory(cuda=True)
    block = torch.empty(100 * MIB, dtype=torch.uint8, device="cuda")
    del block
    assert 100 <= peak.mib() < 200
    assert peak.kind == "allocated CUDA memory"


def test_provenance_keeps_the_variables_that_change_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TOP_PAD_", "65536")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("SECRET", "no")
    found = provenance()["environment"]
    assert found["MALLOC_TOP_PAD_"] == "65536"
    assert not {"OMP_NUM_THREADS", "SECRET"} & set(found)


def test_provenance_names_machine_versions_commit_command_and_date() -> None:
    found = provenance()
    assert set(found) == {"machine", "versions", "environment", "commit", "command", "date"}
    assert set(found["machine"]) == {"cpu", "cores", "threads", "gpus"}
    assert found["machine"]["cores"] == os.cpu_count()
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert found["machine"]["cpu"]
    assert len(found["machine"]["gpus"]) == torch.cuda.device_count()
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["ealinformer"] == ealinformer.__version__
    assert found["versions"]["basicts"] == "1.1.0"
    assert {"python", "easy-torch"} <= found["versions"].keys()
    json.dumps(found)  # as it is written


def test_the_date_is_now_in_utc() -> None:
    date = datetime.fromisoformat(provenance()["date"])
    assert date.utcoffset() == timedelta(0)
    assert abs(datetime.now(timezone.utc) - date) < timedelta(seconds=10)


def test_the_command_can_be_pasted_into_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments/train.py", "--output-dir", "my runs/one"])
    assert provenance()["command"].split(maxsplit=1)[1] == "experiments/train.py --output-dir 'my runs/one'"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout")
def test_the_command_of_a_module_is_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python itself puts the path of a file in place of `-m pytest`."""
    monkeypatch.setattr(sys, "orig_argv", ["/somewhere/bin/python", "-m", "pytest", "tests", "--faults", "full"])
    monkeypatch.setattr(sys, "argv", ["/somewhere/lib/pytest/__main__.py", "tests", "--faults", "full"])
    python = Path(sys.executable).name
    assert provenance()["command"] == f"{python} -m pytest tests --faults full"
    monkeypatch.setattr(sys, "argv", ["train.py", "-c", "configs/DEMO.py"])  # called in a process of something else
    assert provenance()["command"] == f"{python} train.py -c configs/DEMO.py"


def test_the_commit_is_that_of_the_checkout() -> None:
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert re.fullmatch(rf"{head.stdout.strip()}(\+dirty)?", provenance()["commit"])


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of its own around a package, with one commit."""

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    package = tmp_path / "ealinformer" / "__init__.py"
    package.parent.mkdir()
    package.write_text("one = 1\n")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    monkeypatch.setattr(ealinformer, "__file__", str(package))
    return tmp_path


def test_changed_tracked_files_make_a_commit_dirty_and_new_files_do_not(checkout: Path) -> None:
    clean = provenance()["commit"]
    assert re.fullmatch(r"[0-9a-f]{40}", clean)
    (checkout / "notes.txt").write_text("mine")
    assert provenance()["commit"] == clean
    (checkout / "ealinformer" / "__init__.py").write_text("one = 2\n")
    assert provenance()["commit"] == f"{clean}+dirty"


def test_changes_say_how_to_get_from_the_commit_to_the_code(checkout: Path) -> None:
    package = checkout / "ealinformer" / "__init__.py"
    assert code_changes() is None
    (checkout / "été.py").write_text("mine")
    assert code_changes() == "# untracked files, not in this diff: 1\n#   été.py\n"
    package.write_text("one = 'deux, à peu près'\n")
    changes = code_changes()
    assert changes is not None
    package.write_text("one = 1\n")
    subprocess.run(["git", "-C", str(checkout), "apply", "-"], input=changes.encode(), check=True)
    assert package.read_text() == "one = 'deux, à peu près'\n"


@pytest.mark.parametrize(("key", "value"), [("diff.noprefix", "true"), ("color.ui", "always"), ("diff.external", "rm")])
def test_changes_do_not_depend_on_how_a_user_likes_diffs(checkout: Path, key: str, value: str) -> None:
    (checkout / "ealinformer" / "__init__.py").write_text("one = 2\n")
    plain = code_changes()
    subprocess.run(["git", "-C", str(checkout), "config", key, value], check=True)
    assert plain is not None
    assert "\n-one = 1\n+one = 2\n" in plain
    assert code_changes() == plain


def test_changes_without_end_are_cut_and_say_so(checkout: Path) -> None:
    (checkout / "ealinformer" / "__init__.py").write_text("x = 'a long line'\n" * 100_000)
    changes = code_changes(limit=5000)
    assert changes is not None
    assert len(changes) < 5100
    assert changes.endswith("\n# cut here: the diff is longer than 5,000 bytes\n")
    for number in range(1500):
        (checkout / f"{number}.txt").touch()
    listed = [line for line in code_changes(limit=100).splitlines() if line.startswith("#")]
    assert listed[0] == "# untracked files, not in this diff: 1500"
    assert len(listed) == 1 + 1000 + 1 + 1  # the head, the names, the dots, the cut


def test_looking_at_a_checkout_does_not_wait_for_whoever_commits_in_it(checkout: Path) -> None:
    (checkout / "ealinformer" / "__init__.py").write_text("one = 2\n")
    (checkout / ".git" / "index.lock").touch()
    assert provenance()["commit"].endswith("+dirty")
    assert code_changes() is not None


def test_packages_are_those_that_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = installed_packages()
    assert f"torch=={torch.__version__}" in found
    assert found == sorted(found, key=str.lower)
    for name, text in (("zz-1.0", "Name: zz\nVersion: 1.0\n"), ("torch-9", "Name: torch\nVersion: 9\n"), ("cut-1", "")):
        info = tmp_path / f"{name}.dist-info"
        info.mkdir()
        if text:
            (info / "METADATA").write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # behind the ones that are imported
    assert installed_packages() == sorted([*found, "zz==1.0"], key=str.lower)


def test_outside_a_checkout_and_without_git_there_is_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkout: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert (provenance()["commit"], code_changes()) == (None, None)
    monkeypatch.undo()
    monkeypatch.setattr(ealinformer, "__file__", "/ealinformer/__init__.py")
    assert (provenance()["commit"], code_changes()) == (None, None)
