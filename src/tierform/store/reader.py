"""Reading a store: any precision of any tensor, touching only the planes asked for.

Of each chunk the wanted planes are read (see `plane_file` for how), verified against their checksums and turned back
into words by a few threads, some of which wait for the disk while the others compute.  Missing bits are filled with
the middle of the interval they leave open (``midpoint``), with zeros (``truncate``), or the value is rounded to the
asked precision (``round``, which costs one plane more).  Limits: where the file's mapping is used, a file that another
program cuts short while it is being read ends the process on most systems; its size is compared before every read to
make that unlikely.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import NDArray

from tierform.arrays import Numbers
from tierform.errors import fail
from tierform.store.elements import BLOCK_WEIGHTS, to_values
from tierform.store.layout import HEADER_BYTES, TensorEntry, parse_directory, parse_header
from tierform.store.memory import new_words
from tierform.store.plane_file import PlaneFile
from tierform.store.planes import Job, PlaneReader
from tierform.store.precision import Bits, block_bits

if TYPE_CHECKING:
    import torch

Fill = Literal["midpoint", "truncate", "round"]
FILLS: tuple[Fill, ...] = ("midpoint", "truncate", "round")
AHEAD_B = 128 * 2**20  # how far a stream reads ahead of the tensor that is asked for
INLINE_B = 2**20  # a tensor of no more is not worth a thread


@dataclass(slots=True)
class ReadCount:
    """Bytes touched so far: planes as stored, and the index that belongs to them."""

    planes_B: int = 0
    index_B: int = 0
    by_tensor: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Pending:
    """A read that was begun: its jobs, the words they fill, and what is left to do with these."""

    entry: TensorEntry
    words: NDArray[np.uint64]
    offset: int  # of the first weight asked for, in weights
    count: int
    rounded: NDArray[np.uint8] | None  # the precision of each block (or of all) if it is reached by rounding
    jobs: list[Job]
    futures: list[Future[None]] = field(default_factory=list)


class Store:
    """An open store; a mapping from tensor names to :class:`StoredTensor`.  Use as a context manager or close it."""

    def __init__(self, path: Path | str, *, threads: int | None = None, direct: bool = False) -> None:
        """Open `path`: header and directory are checked in full, the tensors when they are read.

        `threads` compute at a time (up to 8 processors unless given); as many more wait for the disk.  `direct` reads
        past the page cache: faster from a disk, less of the processor, nothing stays cached.
        """
        self.path = Path(path)
        self.threads = threads or min(os.cpu_count() or 1, 8)
        try:
            self._handle = self.path.open("rb")
        except OSError as error:
            fail(f"the store cannot be read: {error.strerror or error}", file=str(path))
        try:
            if hasattr(os, "posix_fadvise"):  # before anything is read: what is asked for and nothing around it
                os.posix_fadvise(self._handle.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            size = self._handle.seek(0, 2)
            self._handle.seek(0)
            self.header = parse_header(self._handle.read(HEADER_BYTES), size, str(path))
            self._map = mmap.mmap(self._handle.fileno(), 0, access=mmap.ACCESS_READ)
            if hasattr(self._map, "madvise"):
                self._map.madvise(mmap.MADV_RANDOM)
            end = self.header.directory_offset + self.header.directory_bytes
            if any(self._map[end:size]):
                fail(f"byte {end}: bytes follow the directory", file=str(path))
            tensors, attached = parse_directory(self._map[self.header.directory_offset : end], self.header, str(path))
            self._file = PlaneFile(str(path), self._handle.fileno(), self._map, size, direct)
        except BaseException:
            self._handle.close()
            raise
        self.entries: dict[str, TensorEntry] = {entry.name: entry for entry in tensors}
        self.attachments = {item.name: item for item in attached}
        self.count = ReadCount()
        self._planes = PlaneReader(self._file, self.count)
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; arrays already read stay valid."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._file.release()
        with contextlib.suppress(BufferError):  # an error's traceback may still hold a view: unmapped when it goes
            self._map.close()
        self._handle.close()

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def keys(self) -> list[str]:
        """The tensors' names in file order."""
        return list(self.entries)

    @overload
    def __getitem__(self, key: str) -> StoredTensor: ...

    @overload
    def __getitem__(self, key: tuple[str, int]) -> Numbers: ...

    def __getitem__(self, key: str | tuple[str, int]) -> StoredTensor | Numbers:
        """``store[name]`` is a handle; ``store[name, 6]`` is the NumPy array read at 6 bits."""
        if isinstance(key, tuple):
            return self.read(key[0], bits=key[1])
        return StoredTensor(self, self.entry(key))

    def entry(self, name: str) -> TensorEntry:
        """What the directory says of a tensor; TierformError with the nearest name when there is none."""
        if name not in self.entries:
            fail("no such tensor", file=str(self.path), value=name, choices=self.entries)
        return self.entries[name]

    def codes(
        self,
        name: str,
        bits: Bits = None,
        *,
        fill: Fill = "midpoint",
        rows: tuple[int, int] | None = None,
        out: NDArray[np.uint64] | None = None,
    ) -> Numbers:
        """The weights' bit patterns as unsigned integers (int4 sign-extended into a byte), shape as the tensor's.

        `bits` None reads everything and is bit-exact.  `rows` takes a range of the first dimension.  `out` reuses
        memory: a C-contiguous uint64 array of at least ``ceil(weights / 512) * width * 8`` words.
        """
        entry = self.entry(name)
        shape, first, count = _row_range(entry, rows, str(self.path))
        return self._span(entry, first, count, bits, fill, out).reshape(shape)

    def span(self, name: str, first: int, count: int, bits: Bits = None, *, fill: Fill = "midpoint") -> Numbers:
        """The codes of `count` weights from the `first` on, in C order; only the blocks they lie in are read."""
        entry = self.entry(name)
        if first < 0 or count < 0 or first + count > entry.weights:
            fail("no such weights", file=str(self.path), key=name, value=(first, count))
        return self._span(entry, first, count, bits, fill, None)

    def stream(self, bits: Mapping[str, Bits], *, fill: Fill = "midpoint") -> Iterator[tuple[str, Numbers]]:
        """The codes of several tensors, one after the other, the next ones being read meanwhile.

        Every name and precision is checked before anything is read.  Ahead of the tensor that is waited for, the next
        one is read, and as many more as stay within 128 MiB with it.
        """
        for name, each in bits.items():
            block_bits(self.entry(name), each)
        waiting: deque[tuple[str, _Pending]] = deque()
        ahead, names = 0, iter(bits.items())
        following = next(names, None)
        try:
            while following is not None or waiting:
                while following is not None and (
                    len(waiting) < 2 or ahead + self.entry(following[0]).tensor_bytes <= AHEAD_B
                ):
                    name, each = following
                    entry = self.entry(name)
                    waiting.append((name, self._begin(entry, 0, entry.weights, each, fill, None, spread=True)))
                    ahead += entry.tensor_bytes
                    following = next(names, None)
                name, pending = waiting.popleft()
                codes = self._finish(pending)
                ahead -= pending.entry.tensor_bytes
                yield name, codes.reshape(pending.entry.shape)
        finally:
            for _, pending in waiting:
                for future in pending.futures:
                    future.cancel()

    def _span(
        self, entry: TensorEntry, first: int, count: int, bits: Bits, fill: Fill, out: NDArray[np.uint64] | None
    ) -> Numbers:
        return self._finish(self._begin(entry, first, count, bits, fill, out))

    def _begin(
        self,
        entry: TensorEntry,
        first: int,
        count: int,
        bits: Bits,
        fill: Fill,
        out: NDArray[np.uint64] | None,
        spread: bool = False,
    ) -> _Pending:
        """Check what is asked for and let the threads begin, if there is enough to do (or `spread`)."""
        if fill not in FILLS:
            fail("unknown fill", key="fill", value=fill, choices=FILLS, fix=f"One of {', '.join(FILLS)}.")
        depth = block_bits(entry, bits)
        first_block, last_block = first // BLOCK_WEIGHTS, -(-(first + count) // BLOCK_WEIGHTS)
        wanted = depth if depth.size == 1 else depth[first_block:last_block]
        words_per_block = entry.element.width * 8
        needed = (last_block - first_block) * words_per_block
        if out is not None and (out.dtype != np.uint64 or out.size < needed or not out.flags.c_contiguous):
            fail(f"`out` needs {needed} contiguous uint64 words", key=entry.name, value=(out.dtype.name, out.size))
        rounding = fill == "round" and bool((wanted < entry.element.planes).any())
        read = np.where(wanted > 0, np.minimum(wanted + 1, entry.element.planes), 0) if rounding else wanted
        words = new_words(needed) if out is None else out.reshape(-1)[:needed]
        midpoint = fill == "midpoint"
        jobs = self._planes.jobs(entry, first_block, last_block, read.astype(np.uint8), midpoint, words)
        offset = first - first_block * BLOCK_WEIGHTS
        pending = _Pending(entry, words, offset, count, wanted if rounding else None, jobs)
        if self.threads > 1 and (len(jobs) > 1 or (spread and words.nbytes > INLINE_B)):
            pool = self._workers()
            pending.futures = [pool.submit(self._planes.run, job) for job in jobs]
        return pending

    def _finish(self, pending: _Pending) -> Numbers:
        """Wait for the threads, or do it here; the codes asked for."""
        if pending.futures:
            _wait(pending.futures)
        else:
            for job in pending.jobs:
                self._planes.run(job)
        element = pending.entry.element
        codes: Numbers = pending.words.view(f"u{element.word_bytes}")
        if pending.rounded is not None:
            from tierform.store.rounding import round_codes

            each = np.broadcast_to(pending.rounded, (-(-codes.size // BLOCK_WEIGHTS),)).astype(np.uint8)
            round_codes(codes, each, element.planes, element.width, element.exponent_bits, int(element.kind == "float"))
        return codes[pending.offset : pending.offset + pending.count]

    def plane_rows(self, name: str, first_block: int, blocks: int, bits: int) -> NDArray[np.uint8]:
        """The stored rows of the first `bits` planes of some blocks, verified: blocks x bits x 64 bytes."""
        entry = self.entry(name)
        entry.element.check_bits(bits, name)
        if first_block < 0 or blocks < 0 or first_block + blocks > entry.blocks:
            fail("no such blocks", file=str(self.path), key=name, value=(first_block, blocks))
        return self._planes.rows(entry, first_block, first_block + blocks, bits)

    def read(
        self, name: str, bits: Bits = None, *, fill: Fill = "midpoint", rows: tuple[int, int] | None = None
    ) -> Numbers:
        """A tensor as a NumPy array of its values; bf16 and fp8, which NumPy lacks, come exactly as float32."""
        return to_values(self.entry(name).element, self.codes(name, bits, fill=fill, rows=rows))

    def torch(
        self, name: str, bits: Bits = None, *, fill: Fill = "midpoint", rows: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """A tensor as a torch tensor of its own element type, sharing the memory just read."""
        from tierform.store.to_torch import from_codes

        return from_codes(self.entry(name).element, self.codes(name, bits, fill=fill, rows=rows))

    def read_many(self, bits: Mapping[str, Bits], *, fill: Fill = "midpoint") -> dict[str, Numbers]:
        """Several tensors in one call, each with its own precision: an int, :class:`RowBits` or :class:`BlockBits`."""
        return {name: to_values(self.entry(name).element, codes) for name, codes in self.stream(bits, fill=fill)}

    def attachment(self, name: str) -> bytes:
        """The content of an attached file, verified."""
        if name not in self.attachments:
            fail("no such attached file", file=str(self.path), value=name, choices=self.attachments)
        return self._planes.attachment(self.attachments[name])

    def verify(self, progress: Callable[[int], None] | None = None) -> int:
        """Check every byte of the file; the number of checksums compared, or a TierformError at the first that fails.

        `progress`, when given, is called with the bytes of each tensor done.
        """
        from tierform.store.verification import verify_store

        return verify_store(self, self._planes, progress)

    def _workers(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(2 * self.threads)
        return self._pool

    def _map_jobs(self, function: Callable[[int], None], jobs: Sequence[int]) -> None:
        if self.threads == 1 or len(jobs) == 1:
            for job in jobs:
                function(job)
        else:
            pool = self._workers()
            _wait([pool.submit(function, job) for job in jobs])


def _wait(futures: list[Future[None]]) -> None:
    """The first error stops what has not begun."""
    try:
        for future in futures:
            future.result()
    finally:
        for future in futures:
            future.cancel()


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A handle on one tensor: nothing is read until it is asked for."""

    store: Store
    entry: TensorEntry

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.entry.shape

    def numpy(self, bits: Bits = None, *, fill: Fill = "midpoint", rows: tuple[int, int] | None = None) -> Numbers:
        """See :meth:`Store.read`."""
        return self.store.read(self.entry.name, bits, fill=fill, rows=rows)

    def torch(self, bits: Bits = None, *, fill: Fill = "midpoint", rows: tuple[int, int] | None = None) -> torch.Tensor:
        """See :meth:`Store.torch`."""
        return self.store.torch(self.entry.name, bits, fill=fill, rows=rows)


def _row_range(entry: TensorEntry, rows: tuple[int, int] | None, file: str) -> tuple[tuple[int, ...], int, int]:
    if rows is None:
        return entry.shape, 0, entry.weights
    if not entry.shape or not 0 <= rows[0] <= rows[1] <= entry.shape[0]:
        fail("no such rows", file=file, key=entry.name, value=rows, fix=f"The shape is {entry.shape}.")
    row = entry.weights // entry.shape[0] if entry.shape[0] else 0
    return (rows[1] - rows[0], *entry.shape[1:]), rows[0] * row, (rows[1] - rows[0]) * row


def open_store(path: Path | str, *, threads: int | None = None, direct: bool = False) -> Store:
    """Open a store for reading; `threads` and `direct` as for :class:`Store`."""
    return Store(path, threads=threads, direct=direct)
