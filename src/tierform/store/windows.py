"""Logical windows over one physical copy: every precision of the model has its own addresses, nothing is stored twice.

A window is one precision of the whole model, laid out in one of two views.  ``values`` is the safetensors file that
ordinary programs read: each weight in its own element type, missing bits filled.  ``planes`` has k bits a weight: for
each block its k plane rows of 64 bytes, one after the other, which is what a memory device behind a CXL link returns.
The windows follow each other in one logical address space, so a logical address alone tells which planes are wanted:
the map below translates it to physical byte ranges of the store.  It is used by the HTTP server and by the device
model alike.  The logical space is larger than the physical one by the sum of the windows' sizes over the store's.
Idea: R. Xie et al., SmartQuant, IEEE CAL 2024 ("memory logical space bloating"); the address layout is our own.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tierform.arrays import Numbers
from tierform.errors import fail
from tierform.store.elements import BLOCK_WEIGHTS, PLANE_BYTES
from tierform.store.layout import PAGE_BYTES, TensorEntry, align
from tierform.store.safetensors_file import build_header
from tierform.store.to_torch import bits_for
from tierform.store.unpack import metadata_of

if TYPE_CHECKING:
    from tierform.store.reader import Fill, Store

View = Literal["values", "planes"]
VIEWS: tuple[View, ...] = ("values", "planes")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of logical bytes: `start` to `end` of the window; of the header when `entry` is None, else of a tensor."""

    start: int
    end: int
    entry: TensorEntry | None
    bits: int


@dataclass(frozen=True, slots=True)
class PlaneRead:
    """What a device must fetch: plane rows 0 to `planes` - 1 of `blocks` blocks of a tensor, from `first_block`."""

    tensor: str
    first_block: int
    blocks: int
    planes: int

    @property
    def physical_B(self) -> int:
        """Bytes fetched: 64 for each plane row."""
        return self.blocks * self.planes * PLANE_BYTES


class Window:
    """One precision of the model as a readable file of `size` bytes."""

    def __init__(self, store: Store, bits: int, view: View = "values", fill: Fill = "midpoint") -> None:
        """`bits` is an upper limit as for a whole model; `view` and `fill` as described at the top."""
        if view not in VIEWS:
            fail("unknown view", key="view", value=view, choices=VIEWS)
        self.bits, self.view, self._store, self._fill = bits, view, store, fill
        depth = {name: bits_for(entry.element, name, bits) for name, entry in store.entries.items()}
        metadata = metadata_of(store)
        rows = []
        for entry in store.entries.values():
            if view == "values":
                rows.append((entry.name, entry.element.safetensors, entry.shape, entry.tensor_bytes))
            else:
                planes = depth[entry.name]
                shape = (entry.blocks, planes, PLANE_BYTES)
                rows.append((entry.name, "U8", shape, entry.blocks * planes * PLANE_BYTES))
                metadata[f"tierform.{entry.name}"] = f"{entry.element.name} {','.join(map(str, entry.shape))}"
        self.header, ranges = build_header(rows, metadata)
        self._pieces = [Piece(0, len(self.header), None, 0)]
        for name, (start, end) in ranges.items():
            if end > start:
                self._pieces.append(Piece(start, end, store.entries[name], depth[name]))
        self.size = self._pieces[-1].end
        self._starts = [piece.start for piece in self._pieces]

    def pieces(self, start: int, end: int) -> list[Piece]:
        """The parts of the window that bytes `start` to `end` touch."""
        if not 0 <= start <= end <= self.size:
            fail("the range does not lie in the window", value=(start, end), fix=f"The window has {self.size} bytes.")
        first = bisect.bisect_right(self._starts, start) - 1
        found = []
        for piece in self._pieces[first:]:
            if piece.start >= end:
                break
            found.append(Piece(max(piece.start, start), min(piece.end, end), piece.entry, piece.bits))
        return found

    def resolve(self, start: int, end: int) -> list[PlaneRead]:
        """The plane rows that bytes `start` to `end` need; the header needs none."""
        reads = []
        for piece in self.pieces(start, end):
            if piece.entry is not None:
                first, count = self._blocks(piece)
                reads.append(PlaneRead(piece.entry.name, first, count, piece.bits))
        return reads

    def _origin(self, piece: Piece) -> int:
        return self._pieces[bisect.bisect_right(self._starts, piece.start) - 1].start

    def _block_bytes(self, piece: Piece) -> int:
        assert piece.entry is not None
        if self.view == "planes":
            return piece.bits * PLANE_BYTES
        return BLOCK_WEIGHTS * piece.entry.element.word_bytes

    def _blocks(self, piece: Piece) -> tuple[int, int]:
        size, origin = self._block_bytes(piece), self._origin(piece)
        first = (piece.start - origin) // size
        return first, -(-(piece.end - origin) // size) - first

    def read(self, start: int, end: int) -> bytes:
        """The window's bytes `start` to `end`, read from the one copy and verified."""
        parts: list[bytes] = []
        for piece in self.pieces(start, end):
            if piece.entry is None:
                parts.append(self.header[piece.start : piece.end])
                continue
            first, count = self._blocks(piece)
            origin, size = self._origin(piece), self._block_bytes(piece)
            content = self._content(piece, first, count)
            skip = piece.start - origin - first * size
            parts.append(content[skip : skip + piece.end - piece.start])
        return b"".join(parts)

    def _content(self, piece: Piece, first: int, count: int) -> bytes:
        entry = piece.entry
        assert entry is not None
        if self.view == "planes":
            return self._store.plane_rows(entry.name, first, count, piece.bits).tobytes()
        at = first * BLOCK_WEIGHTS
        weights = min(count * BLOCK_WEIGHTS, entry.weights - at)
        return self._store.span(entry.name, at, weights, piece.bits, fill=self._fill).tobytes()


class AddressMap:
    """The windows of a store in one logical address space, each at a base aligned to 4 KiB."""

    def __init__(self, store: Store, bits: Sequence[int], view: View = "planes", fill: Fill = "midpoint") -> None:
        """One window for each of `bits`."""
        if len(set(bits)) != len(bits) or not bits:
            fail("each window needs a precision of its own", key="bits", value=list(bits))
        self.windows = [Window(store, each, view, fill) for each in bits]
        self.bases: list[int] = []
        at = 0
        for window in self.windows:
            self.bases.append(at)
            at = align(at + window.size, PAGE_BYTES)
        self.logical_B = at
        self.physical_B = sum(entry.raw_bytes for entry in store.entries.values())

    @property
    def bloat(self) -> float:
        """Logical bytes over physical plane bytes."""
        return self.logical_B / self.physical_B if self.physical_B else 0.0

    def resolve(self, address: int, size: int) -> list[PlaneRead]:
        """The plane rows that `size` bytes at a logical `address` need; TierformError for an address in no window."""
        index = bisect.bisect_right(self.bases, address) - 1
        if address < 0 or size < 0 or index < 0 or address - self.bases[index] + size > self.windows[index].size:
            fail("the address does not lie in a window", value=(address, size))
        start = address - self.bases[index]
        return self.windows[index].resolve(start, start + size)


def from_plane_rows(
    rows: NDArray[np.uint8], element_name: str, shape: tuple[int, ...], fill: Fill = "midpoint"
) -> Numbers:
    """A tensor's codes from the ``planes`` view of it (blocks x planes x 64 bytes), as a client of a window would."""
    from tierform.store.elements import element_named
    from tierform.store.kernels import unpack_blocks
    from tierform.store.rounding import FILL_MIDPOINT, FILL_ZERO

    element = element_named(element_name)
    blocks, planes = rows.shape[0], rows.shape[1]
    stored = np.ascontiguousarray(rows).reshape(-1).view(np.uint64)
    starts = np.zeros(element.planes, np.int64)
    starts[:planes] = np.arange(planes) * 8
    words = np.empty(blocks * element.width * 8, np.uint64)
    unpack_blocks(
        stored,
        starts,
        planes * 8,
        0,
        blocks,
        np.full(1, planes, np.uint8),
        0,
        element.width,
        element.planes,
        FILL_MIDPOINT if fill == "midpoint" else FILL_ZERO,
        element.exponent_bits,
        int(element.kind == "float"),
        words,
    )
    weights = int(np.prod(shape))
    return words.view(f"u{element.word_bytes}")[:weights].reshape(shape)
