"""How the bytes of planes come from the file: read into a thread's own buffer, past the page cache if asked, or mapped.

Reading (``preadv``) into a buffer that is used again costs less than mapping: no page is mapped or unmapped, and the
planes are in the cache when they are verified and unpacked; a file cut short meanwhile is a short read, not a crash.
Reading ``direct`` goes past the page cache (O_DIRECT): the disk's own rate at a fraction of the processor time,
whatever is skipped between the runs, and nothing stays cached.  Without ``preadv`` (Windows), and for blocks whose
planes lie side by side, of which a mapping touches only the lines asked for, the file's mapping is used.
"""

from __future__ import annotations

import mmap
import os
import threading
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.store.layout import PAGE_BYTES, align
from tierform.store.memory import new_words


class PlaneFile:
    """An open store file of `size` bytes: its mapping, and runs of its bytes in the calling thread's buffer."""

    def __init__(self, file: str, handle: int, mapped: mmap.mmap, size: int, direct: bool) -> None:
        """`direct` where the file cannot be read so is a TierformError."""
        self.file, self.size, self.direct, self.mapped = file, size, direct, mapped
        self.words: NDArray[np.uint64] | None = np.frombuffer(mapped, np.uint64)
        self._handle, self._own = handle, -1
        self._local = threading.local()
        self.reads = hasattr(os, "preadv")
        if direct:
            flag = getattr(os, "O_DIRECT", None)
            if flag is None or not self.reads:
                fail("this system cannot read past its page cache", file=file, key="direct", value=True)
            try:
                self._own = os.open(file, os.O_RDONLY | flag)
            except OSError as error:
                fail(f"the file cannot be read past the page cache: {error.strerror}", file=file, key="direct")

    def release(self) -> None:
        """Forget the mapping, so that it can be closed, and the buffers."""
        self.words = None
        self._local = threading.local()
        if self._own >= 0:
            os.close(self._own)
            self._own = -1

    def guard(self) -> None:
        """TierformError when the file is no longer as long as it was when it was opened, or is closed."""
        if self.words is None:
            fail("the store is closed", file=self.file)
        if os.fstat(self._handle).st_size != self.size:
            self._changed()

    def _changed(self) -> NoReturn:
        fail("the file has changed its size since it was opened", file=self.file)

    def content(self, begin: int, end: int) -> bytes:
        """A copy of some bytes: index rows, attached files."""
        if not self.reads:
            return self.mapped[begin:end]
        return bytes(self._read([(begin, end)], self._handle)[0].view(np.uint8)[begin % PAGE_BYTES :][: end - begin])

    def runs(self, spans: list[tuple[int, int]]) -> tuple[NDArray[np.uint64], list[int]]:
        """Bytes (begin, end) of each span: words of the thread's buffer, and where in it each begins, in bytes.

        They stay until this thread's next call.
        """
        handle = self._own if self.direct else self._handle
        buffer, places = self._read(spans, handle)
        return buffer, [place + begin % PAGE_BYTES for place, (begin, _) in zip(places, spans, strict=True)]

    def _read(self, spans: list[tuple[int, int]], handle: int) -> tuple[NDArray[np.uint64], list[int]]:
        aligned = [(begin // PAGE_BYTES * PAGE_BYTES, align(end, PAGE_BYTES)) for begin, end in spans]
        needed = sum(end - begin for begin, end in aligned)
        buffer: NDArray[np.uint64] | None = getattr(self._local, "buffer", None)
        if buffer is None or buffer.nbytes < needed:
            # begins on a page, as reads past the page cache need
            buffer = new_words(needed // 8 + PAGE_BYTES // 8)
            buffer = buffer[-buffer.ctypes.data % PAGE_BYTES // 8 :]
            self._local.buffer = buffer
        memory, places, at = buffer.view(np.uint8).data, [], 0
        for (begin, end), (_, wanted) in zip(aligned, spans, strict=True):
            places.append(at)
            self._fill(handle, memory[at : at + end - begin], begin, wanted)
            at += end - begin
        return buffer, places

    def _fill(self, handle: int, memory: memoryview, begin: int, wanted: int) -> None:
        """Read from `begin` on until `wanted` has been reached; the rest of `memory` may stay as it is."""
        done = 0
        while begin + done < wanted:
            try:
                count = os.preadv(handle, [memory[done:]], begin + done)
            except OSError as error:
                fail(f"the file cannot be read: {error.strerror or error}", file=self.file)
            if count <= 0:
                self._changed()
            done += count
            handle = self._handle  # what a short read left over need not begin where a direct read must
