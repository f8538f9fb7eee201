"""Memory maps: which arrays are recognised, and that pages go and come back with the same content."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from ealinformer.data.mapped import drop_pages, mapping
from ealinformer.data.statistics import BYTES_PER_BLOCK, row_blocks

VALUES = np.arange(5000 * 30, dtype=np.float32).reshape(5000, 30)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "values.npy", VALUES)
    return tmp_path / "values.npy"


def mapped_now(path: Path) -> int:
    """Bytes of the file that are in this process's memory, as the kernel counts them."""
    parts = Path("/proc/self/smaps").read_text().split(str(path))
    return sum(int(part.split("Rss:")[1].split()[0]) * 1024 for part in parts[1:])


def test_a_map_is_found_behind_every_view_of_it_and_behind_nothing_else(path: Path) -> None:
    array = np.load(path, mmap_mode="r")
    found = mapping(array)
    assert isinstance(found, mmap.mmap)
    assert mapping(array[10:20, ::2].T) is found
    assert mapping(np.asarray(array)) is found
    assert mapping(np.array(array[:3])) is None
    assert mapping(VALUES) is None


def test_changes_to_a_private_copy_are_not_dropped(path: Path) -> None:
    array = np.load(path, mmap_mode="c")
    array[7] = -1
    drop_pages(array)
    assert (array[7] == -1).all()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's account of memory maps")
def test_dropped_pages_leave_memory_and_come_back_unchanged(path: Path) -> None:
    array = np.load(path, mmap_mode="r")
    assert float(array.sum(dtype=np.float64)) == VALUES.sum(dtype=np.float64)
    assert mapped_now(path) > VALUES.nbytes // 2
    drop_pages(array[100:])
    assert mapped_now(path) == 0
    np.testing.assert_array_equal(array, VALUES)


@pytest.mark.parametrize("columns", [1, 1000, BYTES_PER_BLOCK])
def test_blocks_are_limited_in_bytes_and_are_the_whole_in_order(columns: int) -> None:
    values = np.zeros((3 * BYTES_PER_BLOCK // (4 * columns) + 2, columns), dtype=np.float32)
    values[:, 0] = np.arange(len(values))
    blocks = list(row_blocks(values))
    assert all(block.nbytes <= max(BYTES_PER_BLOCK, 4 * columns) for block in blocks)
    np.testing.assert_array_equal(np.concatenate([block[:, 0] for block in blocks]), values[:, 0])
