"""Ceilings of the machine: the sizes they are found at, and that nothing done in passing is faster."""

import time

import pytest
import torch

from ealinformer.measure import ceilings
from ealinformer.measure.ceilings import measure_ceilings

THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "GEMM_SIDES", (64, 256))
    monkeypatch.setattr(ceilings, "COPY_BYTES", (2**16, 2**18))


@pytest.mark.parametrize(("seconds", "side", "size"), [(0.0, 64, 2**16), (float("inf"), 256, 2**18)])
def test_a_size_is_doubled_until_a_pass_takes_long_enough(
    monkeypatch: pytest.MonkeyPatch, seconds: float, side: int, size: int
) -> None:
    monkeypatch.setattr(ceilings, "GEMM_SECONDS", seconds)
    monkeypatch.setattr(ceilings, "COPY_SECONDS", seconds)
    found = measure_ceilings("cpu", "float32", THREADS)
    assert (found.gemm_side, found.copy_bytes, found.dtype) == (side, size, "float32")


def test_rates_are_work_over_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that always says half a second."""
    monkeypatch.setattr(ceilings, "stopwatch", lambda device: lambda work, passes: 0.5)
    found = measure_ceilings("cpu", "bf16", THREADS)
    assert found.gemm_side == 64
    assert found.flops_per_second == 2 * 64**3 / 0.5
    assert found.bytes_per_second == 2 * 2**16 / 0.5


def test_the_product_that_is_timed_is_of_the_dtype() -> None:
    for dtype, kind in (("bf16", torch.bfloat16), ("float32", torch.float32), ("tf32", torch.float32)):
        work, flops = ceilings._gemm(32, "cpu", dtype)
        assert work().dtype == kind  # type: ignore[attr-defined]
        assert flops == 2 * 32**3


def test_a_product_in_python_stays_below_the_ceiling() -> None:
    found = measure_ceilings("cpu", "float32", THREADS)
    row = [1.0] * 1000
    start = time.perf_counter()
    sum(a * b for a, b in zip(row, row, strict=True))
    assert 2000 / (time.perf_counter() - start) < found.flops_per_second
