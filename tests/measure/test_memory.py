"""Peak memory of a piece of work: exact by torch's count, about the same by the system's, and refused on request."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ealinformer.measure.memory import (
    MIB,
    OutOfMemoryError,
    allocated_peak,
    available_bytes,
    is_out_of_memory,
    requested_bytes,
)

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
HEAD = "import torch\nfrom ealinformer.measure.memory import *\ntorch.set_num_threads(1)\n"


def block(mib: int) -> torch.Tensor:
    return torch.ones(mib * MIB, dtype=torch.uint8)


def in_a_fresh_process(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", HEAD + code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_allocated_peak_is_that_of_what_is_held_at_a_time() -> None:
    def work() -> torch.Tensor:
        a, b = block(10), block(5)
        del a
        return torch.cat([b, block(3)])  # 5 + 3 and the 8 that come of them

    assert allocated_peak(work) == 16 * MIB


def test_the_result_counts_and_what_was_there_before_does_not() -> None:
    before = block(20)
    assert allocated_peak(lambda: before[: 4 * MIB].clone()) == 4 * MIB
    assert allocated_peak(lambda: before.view(-1)) == 0


def test_the_allocated_peak_is_the_same_every_time() -> None:
    q = torch.randn(2, 100, 8, requires_grad=True)

    def work() -> object:
        return torch.autograd.grad(torch.softmax(q @ q.mT, -1).sum(), q)

    assert len({allocated_peak(work) for _ in range(3)}) == 1


def test_softmax_without_gradients_holds_its_scores_twice() -> None:
    q = torch.randn(1, 400, 4)
    scores = 4 * 400 * 400
    assert allocated_peak(lambda: torch.softmax(q @ q.mT, dim=-1)) == pytest.approx(2 * scores, rel=0.01)


def test_the_count_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    allocated_peak(lambda: block(1))
    assert capfd.readouterr() == ("", "")


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="must match"):
        allocated_peak(lambda: torch.ones(2) + torch.ones(3))


@needs_proc
def test_the_resident_peak_of_a_known_allocation_is_within_a_tenth() -> None:
    (seen,) = in_a_fresh_process(
        "def work():\n"
        "    a = torch.ones(150 * MIB, dtype=torch.uint8)\n"
        "    del a\n"
        "    return torch.ones(100 * MIB, dtype=torch.uint8)\n"
        "print(resident_peak(work) / MIB)\n"
    )
    assert float(seen) == pytest.approx(150, rel=0.1)


@needs_proc
def test_a_larger_peak_before_does_not_hide_the_resident_peak() -> None:
    (seen,) = in_a_fresh_process(
        "large = torch.ones(300 * MIB, dtype=torch.uint8)\n"
        "del large\n"
        "print(resident_peak(lambda: torch.ones(100 * MIB, dtype=torch.uint8)) / MIB)\n"
    )
    assert float(seen) == pytest.approx(100, rel=0.1)


@needs_proc
def test_both_counts_agree_on_softmax_with_its_gradients() -> None:
    seen, counted = in_a_fresh_process(
        "q = torch.randn(4, 1500, 16, requires_grad=True)\n"
        "work = lambda: torch.autograd.grad(torch.softmax(q @ q.mT, -1).square().sum(), q)\n"
        "print(resident_peak(work), allocated_peak(work))\n"
    )
    assert float(seen) == pytest.approx(float(counted), rel=0.1)


@needs_proc
def test_a_limit_is_kept_and_what_would_have_been_needed_is_known() -> None:
    said = in_a_fresh_process(
        "def work():\n"
        "    held = torch.ones(100 * MIB, dtype=torch.uint8)\n"
        "    return torch.ones(150 * MIB, dtype=torch.uint8)\n"
        "assert allocated_peak(work) == 250 * MIB\n"
        "print(limit_memory(200 * MIB))\n"
        "try:\n"
        "    allocated_peak(work)\n"
        "except OutOfMemoryError as error:\n"
        "    print(error.needed_bytes / MIB, is_out_of_memory(error))\n"
        "print(allocated_peak(lambda: torch.ones(150 * MIB, dtype=torch.uint8)) / MIB)\n"
    )
    assert said == ["True", "250.0", "True", "150.0"]


@pytest.mark.parametrize(
    ("message", "requested"),
    [
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 314572800 bytes. Error code 12", 314572800),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes.", 64),
        ("CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of", round(20.5 * 1024 * MIB)),
        ("std::bad_alloc", None),
    ],
)
def test_messages_of_torch_are_understood(message: str, requested: int | None) -> None:
    error = torch.OutOfMemoryError(message) if message.startswith("CUDA") else RuntimeError(message)
    assert is_out_of_memory(error)
    assert requested_bytes(error) == requested


def test_a_lack_of_memory_is_a_memory_error() -> None:
    assert is_out_of_memory(OutOfMemoryError("no", None))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError("not enough memory"))


@needs_proc
def test_available_memory_is_a_share_of_the_machine() -> None:
    available = available_bytes()
    assert available is not None
    assert 100 * MIB < available < 2**50
