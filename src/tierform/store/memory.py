"""Memory for tensors just read: new, large, and cheap to touch for the first time.

The first touch of new memory costs more than writing it: with pages of 4 KiB the system hands out about 2 GB/s on a
machine that copies at 15, with pages of 2 MiB about 10.  A large array is therefore an anonymous mapping that begins on
a 2 MiB boundary and asks for huge pages; where the system has none, or for a small array, it is an ordinary one.
Limits: a huge page is handed out whole, so an array may hold up to 2 MiB more than its size.
"""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

HUGE_PAGE_B = 2 * 2**20


def new_words(count: int) -> NDArray[np.uint64]:
    """`count` uint64 words, not set to anything in particular, on huge pages where that helps."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None or count * 8 < HUGE_PAGE_B:
        return np.empty(count, np.uint64)
    try:
        mapped = mmap.mmap(-1, count * 8 + HUGE_PAGE_B, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        mapped.madvise(advice)
    except OSError:  # no memory for the mapping, or a kernel without huge pages: the ordinary way, and its error
        return np.empty(count, np.uint64)
    whole = np.frombuffer(mapped, np.uint8)  # keeps the mapping alive as long as the array
    start = -whole.ctypes.data % HUGE_PAGE_B
    return whole[start : start + count * 8].view(np.uint64)
