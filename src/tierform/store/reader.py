"""Reading a store: any precision of any tensor, touching only the planes asked for.

The file is mapped; of each chunk the pages of the wanted planes are requested from the disk, verified against their
checksums and turned back into words by a few threads.  Missing bits are filled with the middle of the interval they
leave open (``midpoint``), with zeros (``truncate``), or the value is rounded to the asked precision (``round``, which
costs one plane more).  Limits: a file that another program cuts short while it is being read ends the process on most
systems (a property of mapped files); its size is compared before every read to make that unlikely.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.store.elements import BLOCK_WEIGHTS, Element
from tierform.store.layout import HEADER_BYTES, TensorEntry, parse_directory, parse_header
from tierform.store.planes import PlaneReader

if TYPE_CHECKING:
    import torch

Fill = Literal["midpoint", "truncate", "round"]
FILLS: tuple[Fill, ...] = ("midpoint", "truncate", "round")


@dataclass(frozen=True, slots=True)
class RowBits:
    """A precision for each group of `rows_per_group` rows (first dimension); the last group may be shorter.

    A block that lies in two groups is read at the higher of their precisions.  0 bits gives zeros and reads nothing.
    """

    bits: Sequence[int] | NDArray[np.integer[Any]]
    rows_per_group: int


@dataclass(frozen=True, slots=True)
class BlockBits:
    """A precision for each 512-weight block; 0 bits gives zeros and reads nothing."""

    bits: Sequence[int] | NDArray[np.integer[Any]]


Bits = int | RowBits | BlockBits | None


@dataclass(slots=True)
class ReadCount:
    """Bytes touched so far: planes as stored, and the index that belongs to them."""

    planes_B: int = 0
    index_B: int = 0
    by_tensor: dict[str, int] = field(default_factory=dict)


class Store:
    """An open store; a mapping from tensor names to :class:`StoredTensor`.  Use as a context manager or close it."""

    def __init__(self, path: Path | str, *, threads: int | None = None) -> None:
        """Open `path`: header and directory are checked in full, the tensors when they are read."""
        self.path = Path(path)
        self.threads = threads or min(os.cpu_count() or 1, 8)
        try:
            self._handle = self.path.open("rb")
        except OSError as error:
            fail(f"the store cannot be read: {error.strerror or error}", file=str(path))
        try:
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
        except BaseException:
            self._handle.close()
            raise
        self.entries: dict[str, TensorEntry] = {entry.name: entry for entry in tensors}
        self.attachments = {item.name: item for item in attached}
        self.count = ReadCount()
        self._planes = PlaneReader(self._map, str(path), size, self._handle.fileno(), self.count)
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
        self._planes.release()
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

    def __getitem__(self, key: str | tuple[str, int]) -> Any:
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
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """The weights' bit patterns as unsigned integers (int4 sign-extended into a byte), shape as the tensor's.

        `bits` None reads everything and is bit-exact.  `rows` takes a range of the first dimension.  `out` reuses
        memory: a C-contiguous uint64 array of at least ``ceil(weights / 512) * width * 8`` words.
        """
        entry = self.entry(name)
        shape, first, count = _row_range(entry, rows, str(self.path))
        return self._span(entry, first, count, bits, fill, out).reshape(shape)

    def span(self, name: str, first: int, count: int, bits: Bits = None, *, fill: Fill = "midpoint") -> NDArray[Any]:
        """The codes of `count` weights from the `first` on, in C order; only the blocks they lie in are read."""
        entry = self.entry(name)
        if first < 0 or count < 0 or first + count > entry.weights:
            fail("no such weights", file=str(self.path), key=name, value=(first, count))
        return self._span(entry, first, count, bits, fill, None)

    def _span(
        self, entry: TensorEntry, first: int, count: int, bits: Bits, fill: Fill, out: NDArray[Any] | None
    ) -> NDArray[Any]:
        if fill not in FILLS:
            fail("unknown fill", key="fill", value=fill, choices=FILLS, fix=f"One of {', '.join(FILLS)}.")
        depth = block_bits(entry, bits)
        first_block, last_block = first // BLOCK_WEIGHTS, -(-(first + count) // BLOCK_WEIGHTS)
        wanted = depth if depth.size == 1 else depth[first_block:last_block]
        words_per_block = entry.element.width * 8
        needed = (last_block - first_block) * words_per_block
        if out is not None and (out.dtype != np.uint64 or out.size < needed or not out.flags.c_contiguous):
            fail(f"`out` needs {needed} contiguous uint64 words", key=entry.name, value=(out.dtype.name, out.size))
        words = np.empty(needed, np.uint64) if out is None else out.reshape(-1)[:needed]
        rounding = fill == "round" and bool((wanted < entry.element.planes).any())
        read = np.where(wanted > 0, np.minimum(wanted + 1, entry.element.planes), 0) if rounding else wanted
        self._planes.decode(
            entry, first_block, last_block, read.astype(np.uint8), fill == "midpoint", words, self._map_jobs
        )
        codes: NDArray[Any] = words.view(f"u{entry.element.word_bytes}")
        if rounding:
            from tierform.store.kernels import round_codes

            element = entry.element
            each = np.broadcast_to(wanted, (last_block - first_block,)).astype(np.uint8)
            round_codes(codes, each, element.planes, element.width, element.exponent_bits, int(element.kind == "float"))
        offset = first - first_block * BLOCK_WEIGHTS
        return codes[offset : offset + count]

    def plane_rows(self, name: str, first_block: int, blocks: int, bits: int) -> NDArray[np.uint8]:
        """The stored rows of the first `bits` planes of some blocks, verified: blocks x bits x 64 bytes."""
        entry = self.entry(name)
        entry.element.check_bits(bits, name)
        if first_block < 0 or blocks < 0 or first_block + blocks > entry.blocks:
            fail("no such blocks", file=str(self.path), key=name, value=(first_block, blocks))
        return self._planes.rows(entry, first_block, first_block + blocks, bits)

    def read(
        self, name: str, bits: Bits = None, *, fill: Fill = "midpoint", rows: tuple[int, int] | None = None
    ) -> NDArray[Any]:
        """A tensor as a NumPy array of its values; bf16 and fp8, which NumPy lacks, come exactly as float32."""
        return to_values(self.entry(name).element, self.codes(name, bits, fill=fill, rows=rows))

    def torch(
        self, name: str, bits: Bits = None, *, fill: Fill = "midpoint", rows: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """A tensor as a torch tensor of its own element type, sharing the memory just read."""
        from tierform.store.to_torch import from_codes

        return from_codes(self.entry(name).element, self.codes(name, bits, fill=fill, rows=rows))

    def read_many(self, bits: Mapping[str, Bits], *, fill: Fill = "midpoint") -> dict[str, NDArray[Any]]:
        """Several tensors in one call, each with its own precision: an int, :class:`RowBits` or :class:`BlockBits`."""
        for name, each in bits.items():
            block_bits(self.entry(name), each)
        return {name: self.read(name, each, fill=fill) for name, each in bits.items()}

    def attachment(self, name: str) -> bytes:
        """The content of an attached file, verified."""
        if name not in self.attachments:
            fail("no such attached file", file=str(self.path), value=name, choices=self.attachments)
        return self._planes.attachment(self.attachments[name])

    def verify(self, progress: Any = None) -> int:
        """Check every byte of the file; the number of checksums compared, or a TierformError at the first that fails.

        `progress`, when given, is called with the bytes of each tensor done.
        """
        from tierform.store.verification import verify_store

        return verify_store(self, self._planes, progress)

    def _map_jobs(self, function: Any, jobs: Sequence[Any]) -> None:
        if self.threads == 1 or len(jobs) == 1:
            for job in jobs:
                function(job)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads)
        futures = [self._pool.submit(function, job) for job in jobs]
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

    def numpy(self, bits: Bits = None, *, fill: Fill = "midpoint", rows: tuple[int, int] | None = None) -> NDArray[Any]:
        """See :meth:`Store.read`."""
        return self.store.read(self.entry.name, bits, fill=fill, rows=rows)

    def torch(self, bits: Bits = None, *, fill: Fill = "midpoint", rows: tuple[int, int] | None = None) -> torch.Tensor:
        """See :meth:`Store.torch`."""
        return self.store.torch(self.entry.name, bits, fill=fill, rows=rows)


def block_bits(entry: TensorEntry, bits: Bits) -> NDArray[np.uint8]:
    """The precision of each block (or one for all), checked against the element type and the tensor's size."""
    element, name = entry.element, entry.name
    if bits is None:
        return np.full(1, element.planes, np.uint8)
    if not isinstance(bits, (RowBits, BlockBits)):
        return np.full(1, element.check_bits(bits, name), np.uint8)
    given = np.asarray(bits.bits)
    if given.ndim != 1 or (given.size and not np.issubdtype(given.dtype, np.integer)):
        fail("one whole number of bits for each group is needed", key=name, value=str(given.dtype))
    low, high = (int(given.min()), int(given.max())) if given.size else (0, 0)
    if low < 0 or high > element.planes:
        fail(f"{element.name} is read at 0 to {element.planes} bits", key=name, value=low if low < 0 else high)
    if not element.partial and given.size and not np.isin(given, (0, element.planes)).all():
        fail(f"{element.name} can only be read whole, at {element.planes} bits", key=name)
    if isinstance(bits, BlockBits):
        if given.size != entry.blocks:
            fail(f"{entry.blocks} blocks need as many precisions", key=name, value=given.size)
        return given.astype(np.uint8)
    if not entry.shape or bits.rows_per_group < 1:
        fail("a precision by rows needs rows, and at least one in a group", key=name, value=bits.rows_per_group)
    groups = -(-entry.shape[0] // bits.rows_per_group)
    if given.size != groups:
        fail(f"{groups} groups of {bits.rows_per_group} rows need as many precisions", key=name, value=given.size)
    result = np.zeros(entry.blocks, np.uint8)
    row_weights = entry.weights // entry.shape[0] if entry.shape[0] else 0
    for group in range(groups):
        first = group * bits.rows_per_group * row_weights
        last = min((group + 1) * bits.rows_per_group * row_weights, entry.weights)
        span = slice(first // BLOCK_WEIGHTS, -(-last // BLOCK_WEIGHTS))
        result[span] = np.maximum(result[span], given[group])
    return result


def _row_range(entry: TensorEntry, rows: tuple[int, int] | None, file: str) -> tuple[tuple[int, ...], int, int]:
    if rows is None:
        return entry.shape, 0, entry.weights
    if not entry.shape or not 0 <= rows[0] <= rows[1] <= entry.shape[0]:
        fail("no such rows", file=file, key=entry.name, value=rows, fix=f"The shape is {entry.shape}.")
    row = entry.weights // entry.shape[0] if entry.shape[0] else 0
    return (rows[1] - rows[0], *entry.shape[1:]), rows[0] * row, (rows[1] - rows[0]) * row


def to_values(element: Element, codes: NDArray[Any]) -> NDArray[Any]:
    """Codes as NumPy values; bf16 and fp8 as float32 (exact)."""
    if element.name == "bf16":
        return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if element.name.startswith("fp8"):
        table: NDArray[np.float32] = fp8_values(element)[codes]
        return table
    return codes.view(element.numpy)


def fp8_values(element: Element) -> NDArray[np.float32]:
    """The 256 values of an 8-bit float type, as the OCP specification defines them."""
    mantissa_bits = 7 - element.exponent_bits
    bias = (1 << (element.exponent_bits - 1)) - 1
    code = np.arange(256)
    exponent = (code >> mantissa_bits) & ((1 << element.exponent_bits) - 1)
    mantissa = code & ((1 << mantissa_bits) - 1)
    fraction = mantissa / (1 << mantissa_bits)
    value = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias))
    top = (1 << element.exponent_bits) - 1
    if element.kind == "float":
        value = np.where(exponent == top, np.where(mantissa == 0, np.inf, np.nan), value)
    else:
        value = np.where(code & 0x7F == 0x7F, np.nan, value)
    return np.where(code >= 128, -value, value).astype(np.float32)


def open_store(path: Path | str, *, threads: int | None = None) -> Store:
    """Open a store for reading."""
    return Store(path, threads=threads)
