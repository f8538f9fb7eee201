"""Memory that a process keeps after a tensor is freed: what glibc gives back, every step has to fetch again."""

import ctypes

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_NEVER = -1
_LARGE = 2**20  # bytes


def keep_freed_memory() -> bool:
    """Let this process keep the blocks it frees, for as long as it lives; False where that cannot be done.

    glibc maps every block above some MiB by itself and unmaps it when it is freed, so that the temporary tensors of
    each training step are filled with fresh, zeroed pages, one page fault each 4 KiB. After this call blocks of every
    size come from the heap, which never shrinks. The price: the system sees the most that was ever in use, and a
    little more, because free memory is in pieces. Linux with glibc alone; CUDA has an allocator of its own.
    """
    # One at a time would do half of it: both, or neither counts.
    return _set(_M_MMAP_MAX, 0) and _set(_M_TRIM_THRESHOLD, _NEVER)


def give_back_freed_memory() -> bool:
    """Let this process give every block of 1 MiB or more back when it is freed; False where that cannot be done.

    By itself glibc does so at first, and keeps blocks of up to 32 MiB once it saw such a one freed: then the system
    sees pieces of free memory too. After this call it sees what is in use, for memory that is to be measured.
    """
    return _set(_M_MMAP_THRESHOLD, _LARGE)


def _set(parameter: int, value: int) -> bool:
    try:
        library = ctypes.CDLL(None)
        mallopt, _ = library.mallopt, library.gnu_get_libc_version  # other C libraries have the first, to no effect
    except (AttributeError, OSError, TypeError):  # the last on Windows, where a library has to be named
        return False
    return bool(mallopt(parameter, value))
