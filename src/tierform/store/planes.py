"""From the mapped file to words: index rows, checksums, decompression and the unpacking of chunks.

Every position comes from an index row whose checksum was compared and whose offsets were checked against the tensor's
own region; every page of planes is compared with its checksum before a word is made from it.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.store.checksum import xxh64
from tierform.store.elements import PLANE_BYTES
from tierform.store.layout import PAGE_BLOCKS, PAGE_BYTES, RAW, ZSTD, Attachment, TensorEntry

if TYPE_CHECKING:
    from tierform.store.reader import ReadCount

_SEGMENT = np.dtype([("offset", "<u8"), ("size", "<u4"), ("coding", "<u4")])


@dataclass(slots=True)
class Index:
    """The index rows of one tensor's first `depth` planes: a segment per chunk and a checksum per page of each."""

    segments: NDArray[Any]  # [plane, chunk]
    checksums: NDArray[np.uint64]  # [plane, page]
    depth: int = 0


class PlaneReader:
    """Decodes chunks of a mapped store."""

    def __init__(self, mapped: mmap.mmap, file: str, size: int, handle: int, count: ReadCount) -> None:
        self._map = mapped
        self._words: NDArray[np.uint64] | None = np.frombuffer(mapped, np.uint64)
        self._file = file
        self._size = size
        self._handle = handle
        self._count = count
        self._indices: dict[str, Index] = {}
        self._lock = threading.Lock()

    def release(self) -> None:
        """Forget the mapping, so that it can be closed."""
        self._words = None

    def bad(self, what: str, byte: int, name: str) -> NoReturn:
        """Refuse the file at one byte."""
        fail(f"byte {byte}: {what}", file=self._file, key=name, fix="The store is damaged; pack it again.")

    def guard(self) -> None:
        """TierformError when the file is no longer as long as it was when it was opened, or is closed."""
        if self._words is None:
            fail("the store is closed", file=self._file)
        if os.fstat(self._handle).st_size != self._size:
            fail("the file has changed its size since it was opened", file=self._file)

    def attachment(self, item: Attachment) -> bytes:
        """An attached file's bytes, verified."""
        self.guard()
        content = self._map[item.offset : item.offset + item.size]
        if xxh64(content) != item.xxh64:
            self.bad("the attached file does not match its checksum", item.offset, item.name)
        return content

    def index(self, entry: TensorEntry, depth: int) -> Index:
        """The index of a tensor's first `depth` planes; each row is read and checked once."""
        found = self._indices.get(entry.name)
        if found is not None and found.depth >= depth:
            return found
        with self._lock:
            if found is None:
                planes = entry.element.planes
                segments = np.zeros((planes, entry.chunks), _SEGMENT)
                found = self._indices.setdefault(entry.name, Index(segments, np.zeros((planes, entry.pages), "<u8")))
            while found.depth < depth:
                plane = found.depth
                start = entry.rows_offset + plane * entry.row_bytes
                content = self._map[start : start + entry.row_bytes]
                if xxh64(content) != entry.row_checksums[plane]:
                    self.bad(f"the index of plane {plane} does not match its checksum", start, entry.name)
                split = entry.chunks * _SEGMENT.itemsize
                segments = np.frombuffer(content[:split], _SEGMENT)
                self._check_segments(entry, plane, segments, start)
                found.segments[plane] = segments
                found.checksums[plane] = np.frombuffer(content[split:], "<u8")
                self._count.index_B += entry.row_bytes
                found.depth += 1
        return found

    def _check_segments(self, entry: TensorEntry, plane: int, segments: NDArray[Any], at: int) -> None:
        chunks = np.arange(entry.chunks, dtype=np.uint64)
        spans = np.full(entry.chunks, entry.chunk_blocks, np.uint64)
        if entry.chunks:
            spans[-1] = entry.chunk_span(entry.chunks - 1)
        offsets, sizes = segments["offset"], segments["size"].astype(np.uint64)
        raw_sizes = spans * np.uint64(PLANE_BYTES)
        end = np.uint64(entry.data_offset + entry.data_bytes)
        begin = np.uint64(entry.data_offset)
        if entry.codec == "none":
            chunk_starts = begin + chunks * np.uint64(entry.chunk_blocks * PLANE_BYTES * entry.element.planes)
            step = np.uint64(PLANE_BYTES) if entry.layout == "adjacent" else raw_sizes
            right = (offsets == chunk_starts + np.uint64(plane) * step) & (sizes == raw_sizes)
            right &= segments["coding"] == RAW
        else:
            right = (offsets >= begin) & (offsets <= end) & (offsets % np.uint64(8) == 0)
            right &= sizes <= np.where(right, end - offsets, 0)
            is_raw = segments["coding"] == RAW
            right &= np.where(is_raw, sizes == raw_sizes, (segments["coding"] == ZSTD) & (sizes < raw_sizes))
        if not right.all():
            wrong = int(np.argmin(right))
            self.bad(f"plane {plane} of chunk {wrong} does not lie where it can", at + 16 * wrong, entry.name)

    def decode(
        self,
        entry: TensorEntry,
        first_block: int,
        last_block: int,
        bits: NDArray[np.uint8],
        midpoint: bool,
        words: NDArray[np.uint64],
        map_jobs: Callable[[Any, Sequence[Any]], None],
    ) -> None:
        """Blocks `first_block` to `last_block` as `words`; `bits` is one precision, or one for each of them."""
        self.guard()
        if last_block <= first_block:
            return
        from tierform.store import kernels  # noqa: F401  (compiled before the threads ask for it)

        self.index(entry, int(bits.max(initial=0)))
        span = entry.chunk_blocks
        jobs = []
        for chunk in range(first_block // span, -(-last_block // span)):
            low, high = max(first_block, chunk * span), min(last_block, (chunk + 1) * span)
            depth = bits if bits.size == 1 else bits[low - first_block : high - first_block]
            self._request(entry, chunk, int(depth.max()), low - chunk * span, high - chunk * span)
            size = entry.element.width * 8
            target = words[(low - first_block) * size : (high - first_block) * size]
            jobs.append((entry, chunk, low - chunk * span, high - chunk * span, depth, midpoint, target))
        map_jobs(self._decode_chunk, jobs)

    def _decode_chunk(
        self, job: tuple[TensorEntry, int, int, int, NDArray[np.uint8], bool, NDArray[np.uint64]]
    ) -> None:
        from tierform.store.kernels import FILL_MIDPOINT, FILL_ZERO, unpack_blocks

        entry, chunk, low, high, bits, midpoint, target = job
        element = entry.element
        stored, starts, step = self.open_chunk(entry, chunk, int(bits.max()))
        self.check_chunk(entry, chunk, stored, starts, step, low, high, bits)
        fill = FILL_MIDPOINT if midpoint else FILL_ZERO
        unpack_blocks(
            stored, starts, step, low, high - low, bits, int(bits.size > 1), element.width, element.planes, fill,
            element.exponent_bits, int(element.kind == "float"), target,
        )  # fmt: skip

    def rows(self, entry: TensorEntry, first_block: int, last_block: int, depth: int) -> NDArray[np.uint8]:
        """Plane rows of the first `depth` planes as they are stored: [block, plane, 64 bytes], verified."""
        self.guard()
        result = np.empty((last_block - first_block, depth, PLANE_BYTES), np.uint8)
        if not result.size:
            return result
        span, words, full = entry.chunk_blocks, result.view(np.uint64), np.full(1, depth, np.uint8)
        for chunk in range(first_block // span, -(-last_block // span)):
            low, high = max(first_block, chunk * span), min(last_block, (chunk + 1) * span)
            self._request(entry, chunk, depth, low - chunk * span, high - chunk * span)
            stored, starts, step = self.open_chunk(entry, chunk, depth)
            self.check_chunk(entry, chunk, stored, starts, step, low - chunk * span, high - chunk * span, full)
            count = high - low
            for plane in range(depth):
                at = int(starts[plane]) + (low - chunk * span) * step
                rows = np.lib.stride_tricks.as_strided(stored[at : at + 1], (count, 8), (step * 8, 8))
                words[low - first_block : high - first_block, plane] = rows
        return result

    def open_chunk(
        self, entry: TensorEntry, chunk: int, depth: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64], int]:
        """The first `depth` planes of a chunk: an array of words, where each plane begins in it, the blocks' step."""
        words = self._words
        if words is None:
            fail("the store is closed", file=self._file)
        starts = np.zeros(entry.element.planes, np.int64)
        step = entry.element.planes * 8 if entry.layout == "adjacent" else 8
        segments = self.index(entry, depth).segments[:depth, chunk]
        if entry.codec == "none":
            starts[:depth] = segments["offset"] // 8
            return words, starts, step
        size = entry.chunk_span(chunk) * PLANE_BYTES
        content = np.empty((depth, size // 8), np.uint64)
        for plane, segment in enumerate(segments):
            offset, length = int(segment["offset"]), int(segment["size"])
            starts[plane] = plane * (size // 8)
            if segment["coding"] == RAW:
                content[plane] = words[offset // 8 : (offset + length) // 8]
            else:
                content[plane] = np.frombuffer(self._decompress(entry, offset, length, size), np.uint64)
        return content.reshape(-1), starts, step

    def _decompress(self, entry: TensorEntry, offset: int, length: int, size: int) -> bytes:
        from tierform.store.writer import _zstd

        zstd = _zstd()
        frame = self._map[offset : offset + length]
        try:
            if zstd.frame_content_size(frame) != size:
                self.bad("a compressed plane has a wrong size", offset, entry.name)
            content: bytes = zstd.ZstdDecompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
        except (zstd.ZstdError, MemoryError) as error:
            self.bad(f"a compressed plane cannot be decompressed ({error})", offset, entry.name)
        if len(content) != size:
            self.bad("a compressed plane has a wrong size", offset, entry.name)
        return content

    def check_chunk(
        self,
        entry: TensorEntry,
        chunk: int,
        stored: NDArray[np.uint64],
        starts: NDArray[np.int64],
        step: int,
        low: int,
        high: int,
        bits: NDArray[np.uint8],
    ) -> None:
        """Compare the checksums of all pages that blocks `low` to `high` of a chunk need at `bits`."""
        from tierform.store.kernels import check_pages

        first, last = low // PAGE_BLOCKS, -(-high // PAGE_BLOCKS)
        blocks = entry.chunk_span(chunk)
        if bits.size == 1:
            depths = np.full(last - first, int(bits[0]), np.int64)
        else:
            edges = np.maximum(np.arange(first, last) * PAGE_BLOCKS - low, 0)
            depths = np.maximum.reduceat(bits, edges).astype(np.int64)
        depth = int(depths.max())
        if depth == 0:
            return
        base = chunk * (entry.chunk_blocks // PAGE_BLOCKS)
        index = self.index(entry, depth)
        expected = index.checksums[:depth, base + first : base + last]
        wrong = check_pages(stored, starts, step, blocks, PAGE_BLOCKS, first, depths, expected)
        if wrong >= 0:
            plane, page = wrong >> 32, wrong & 0xFFFFFFFF
            segment = index.segments[plane, chunk]
            byte = int(segment["offset"]) + (page * PAGE_BLOCKS * step * 8 if segment["coding"] == RAW else 0)
            what = f"page {base + page} of plane {plane} does not match its checksum"
            self.bad(what, byte, entry.name)
        rows = np.minimum(PAGE_BLOCKS, blocks - np.arange(first, last) * PAGE_BLOCKS)
        if entry.codec == "none":
            touched = int((rows * depths).sum()) * PLANE_BYTES
        else:
            touched = int(index.segments["size"][:depth, chunk].sum())
        with self._lock:
            self._count.planes_B += touched
            self._count.by_tensor[entry.name] = self._count.by_tensor.get(entry.name, 0) + touched

    def _request(self, entry: TensorEntry, chunk: int, depth: int, low: int, high: int) -> None:
        """Ask the system to bring the pages of the wanted planes into memory."""
        if depth == 0 or not hasattr(self._map, "madvise"):
            return
        segments = self.index(entry, depth).segments[:depth, chunk]
        if entry.layout == "adjacent":
            block = entry.element.planes * PLANE_BYTES
            start = int(segments[0]["offset"])
            ranges = [(start + low * block, start + high * block)]
        elif entry.codec == "none" and (low > 0 or high < entry.chunk_span(chunk)):
            pages = low // PAGE_BLOCKS * PAGE_BLOCKS, -(-high // PAGE_BLOCKS) * PAGE_BLOCKS
            at = [int(segment["offset"]) for segment in segments]
            ranges = [(a + pages[0] * PLANE_BYTES, a + pages[1] * PLANE_BYTES) for a in at]
        else:
            last = segments[-1]
            ranges = [(int(segments[0]["offset"]), int(last["offset"]) + int(last["size"]))]
        for begin, end in ranges:
            aligned = begin // PAGE_BYTES * PAGE_BYTES
            self._map.madvise(mmap.MADV_WILLNEED, aligned, min(end, self._size) - aligned)
