"""Memory-mapped arrays that are read through without staying in memory."""

import mmap

import numpy as np


def mapping(array: np.ndarray) -> mmap.mmap | None:
    """The read-only memory map that `array` is a view of; None for any other memory."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap):
        return None
    with memoryview(base) as view:
        # What was written to a private copy would be lost with its pages.
        return base if view.readonly else None


def drop_pages(array: np.ndarray) -> None:
    """Take all pages of the map behind `array` out of this process; they are read again when they are used again.

    The system's own cache of the file keeps them as long as there is room. Other arrays are left alone.
    """
    mapped = mapping(array)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
