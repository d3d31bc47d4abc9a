"""From the file's bytes to words: index rows, checksums, decompression and the unpacking of chunks.

Every position comes from an index row whose checksum was compared and whose offsets were checked against the tensor's
own region; every page of planes is compared with its checksum before a word is made from it.
"""

from __future__ import annotations

import mmap
import threading
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.store.checksum import xxh64
from tierform.store.elements import PAGE_BLOCKS, PLANE_BYTES
from tierform.store.layout import PAGE_BYTES, RAW, SUM_BYTES, SUMMED_ZSTD, ZSTD, Attachment, TensorEntry

if TYPE_CHECKING:
    from tierform.store.plane_file import PlaneFile
    from tierform.store.reader import ReadCount

PIECE_BLOCKS = 8192  # the most that one thread reads and unpacks at once: 8 MiB of bf16
PAST_CACHES_B = 32 * 2**20  # a tensor of this size does not stay in a cache: it is written past them
_SEGMENT = np.dtype([("offset", "<u8"), ("size", "<u4"), ("coding", "<u4")])


@dataclass(slots=True)
class Index:
    """The index rows of one tensor's first `depth` planes: a segment per chunk and a checksum per page of each."""

    segments: NDArray[np.void]  # [plane, chunk]
    checksums: NDArray[np.uint64]  # [plane, page]
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """Blocks `low` to `high` of a chunk, to be read at `bits` (one, or one for each) into `target`."""

    entry: TensorEntry
    chunk: int
    low: int
    high: int
    bits: NDArray[np.uint8]
    midpoint: bool
    target: NDArray[np.uint64]
    past_caches: bool


class PlaneReader:
    """Decodes chunks of a store's file."""

    def __init__(self, file: PlaneFile, count: ReadCount) -> None:
        self.file = file
        self._count = count
        self._indices: dict[str, Index] = {}
        self._lock = threading.Lock()

    def bad(self, what: str, byte: int, name: str) -> NoReturn:
        """Refuse the file at one byte."""
        fail(f"byte {byte}: {what}", file=self.file.file, key=name, fix="The store is damaged; pack it again.")

    def attachment(self, item: Attachment) -> bytes:
        """An attached file's bytes, verified."""
        self.file.guard()
        content = self.file.content(item.offset, item.offset + item.size)
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
            begin = entry.rows_offset + found.depth * entry.row_bytes
            missing = depth - found.depth
            rows = self.file.content(begin, begin + missing * entry.row_bytes) if missing > 0 else b""
            for number in range(missing):
                plane, start = found.depth, begin + number * entry.row_bytes
                content = rows[number * entry.row_bytes : (number + 1) * entry.row_bytes]
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

    def _check_segments(self, entry: TensorEntry, plane: int, segments: NDArray[np.void], at: int) -> None:
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
            coded = (segments["coding"] == ZSTD) | (segments["coding"] == SUMMED_ZSTD)
            right &= np.where(is_raw, sizes == raw_sizes, coded & (sizes < raw_sizes))
        if not right.all():
            wrong = int(np.argmin(right))
            self.bad(f"plane {plane} of chunk {wrong} does not lie where it can", at + 16 * wrong, entry.name)

    def jobs(
        self,
        entry: TensorEntry,
        first_block: int,
        last_block: int,
        bits: NDArray[np.uint8],
        midpoint: bool,
        words: NDArray[np.uint64],
    ) -> list[Job]:
        """What :meth:`run` must do for blocks `first_block` to `last_block` to stand in `words`."""
        self.file.guard()
        if last_block <= first_block:
            return []
        from tierform.store import kernels  # noqa: F401  (compiled before the threads ask for it)

        self.index(entry, int(bits.max(initial=0)))
        span, size, at, found = entry.chunk_blocks, entry.element.width * 8, first_block, []
        piece = PIECE_BLOCKS if entry.codec == "none" else span  # a compressed plane is whole
        while at < last_block:
            chunk, low = divmod(at, span)
            high = min(span, low // piece * piece + piece, low + last_block - at)
            done, next_block = at - first_block, at + high - low
            depth = bits if bits.size == 1 else bits[done : next_block - first_block]
            target = words[done * size : (next_block - first_block) * size]
            found.append(
                Job(
                    entry=entry,
                    chunk=chunk,
                    low=low,
                    high=high,
                    bits=depth,
                    midpoint=midpoint,
                    target=target,
                    past_caches=words.nbytes >= PAST_CACHES_B,
                )
            )
            at = next_block
        if not self._into_buffer(entry):
            for job in found:
                self._request(job)
        return found

    def run(self, job: Job) -> None:
        """Fetch, verify and unpack."""
        from tierform.store.kernels import unpack_blocks
        from tierform.store.rounding import FILL_MIDPOINT, FILL_ZERO

        entry, bits, element = job.entry, job.bits, job.entry.element
        depth = int(bits.max())
        stored, starts, step = self.open_chunk(entry, job.chunk, depth, job.low, job.high)
        first, expected = self._expected(entry, job.chunk, depth, job.low, job.high)
        fill = FILL_MIDPOINT if job.midpoint else FILL_ZERO
        wrong = unpack_blocks(
            stored,
            starts,
            step,
            job.low,
            job.high - job.low,
            bits,
            int(bits.size > 1),
            element.width,
            element.planes,
            fill,
            element.exponent_bits,
            int(element.kind == "float"),
            job.target,
            expected,
            entry.chunk_span(job.chunk),
            job.past_caches,
        )
        if wrong >= 0:
            self._refuse_page(entry, job.chunk, wrong, step)
        self._add_touched(entry, job.chunk, first, self._page_depths(job.low, job.high, bits))

    def rows(self, entry: TensorEntry, first_block: int, last_block: int, depth: int) -> NDArray[np.uint8]:
        """Plane rows of the first `depth` planes as they are stored: [block, plane, 64 bytes], verified."""
        self.file.guard()
        result = np.empty((last_block - first_block, depth, PLANE_BYTES), np.uint8)
        if not result.size:
            return result
        span, words, full = entry.chunk_blocks, result.view(np.uint64), np.full(1, depth, np.uint8)
        for chunk in range(first_block // span, -(-last_block // span)):
            low, high = max(first_block, chunk * span), min(last_block, (chunk + 1) * span)
            inside = low - chunk * span, high - chunk * span
            stored, starts, step = self.open_chunk(entry, chunk, depth, *inside)
            self.check_chunk(entry, chunk, stored, starts, step, *inside, full)
            count = high - low
            for plane in range(depth):
                at = int(starts[plane]) + inside[0] * step
                rows = np.lib.stride_tricks.as_strided(stored[at : at + 1], (count, 8), (step * 8, 8))
                words[low - first_block : high - first_block, plane] = rows
        return result

    def _into_buffer(self, entry: TensorEntry) -> bool:
        """Whether the tensor's planes are read into a buffer; else the file's mapping is used."""
        return self.file.direct or (self.file.reads and entry.layout == "plane-major")

    def open_chunk(
        self, entry: TensorEntry, chunk: int, depth: int, low: int, high: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64], int]:
        """The first `depth` planes of blocks `low` to `high` of a chunk, and of the rest of their pages.

        An array of words, where in it each plane of the chunk's block 0 would begin (blocks before `low` need not be
        there), and the blocks' step.  What it shows may change with this thread's next call.
        """
        words = self.file.words
        if words is None:
            fail("the store is closed", file=self.file.file)
        planes = entry.element.planes
        starts, step = np.zeros(planes, np.int64), planes * 8 if entry.layout == "adjacent" else 8
        if depth == 0:
            return words, starts, step
        segments = self.index(entry, depth).segments[:depth, chunk]
        if entry.codec != "none":
            content = self._decompressed(entry, segments, entry.chunk_span(chunk) * PLANE_BYTES)
            starts[:depth] = np.arange(depth) * content.shape[1]
            return content.reshape(-1), starts, step
        offsets = segments["offset"].astype(np.int64)
        if not self._into_buffer(entry):
            starts[:depth] = offsets // 8
            return words, starts, step
        blocks = entry.chunk_span(chunk)
        first, last = low // PAGE_BLOCKS * PAGE_BLOCKS, min(-(-high // PAGE_BLOCKS) * PAGE_BLOCKS, blocks)
        row = step * 8
        if entry.layout == "adjacent":
            begin = int(offsets[0]) + first * row
            buffer, (place,) = self.file.runs([(begin, begin + (last - first) * row)])
            starts[:depth] = (place - begin + offsets) // 8
        elif last - first == blocks:  # whole planes follow each other
            begin = int(offsets[0])
            buffer, (place,) = self.file.runs([(begin, begin + depth * blocks * row)])
            starts[:depth] = (place - begin + offsets) // 8
        else:
            spans = [(at + first * row, at + last * row) for at in offsets.tolist()]
            buffer, places = self.file.runs(spans)
            starts[:depth] = np.array(places) // 8 - first * step
        return buffer, starts, step

    def _decompressed(self, entry: TensorEntry, segments: NDArray[np.void], size: int) -> NDArray[np.uint64]:
        """Whole planes of a compressed chunk, [plane, word]."""
        content = np.empty((len(segments), size // 8), np.uint64)
        spans = [(int(one["offset"]), int(one["offset"]) + int(one["size"])) for one in segments]
        follow = all(0 <= after[0] - one[1] < 64 for one, after in pairwise(spans))
        if not self.file.reads:
            words = self.file.words
            assert words is not None
            source, places = words, [begin for begin, _ in spans]
        elif follow:
            source, (place,) = self.file.runs([(spans[0][0], spans[-1][1])])
            places = [place + begin - spans[0][0] for begin, _ in spans]
        else:
            source, places = self.file.runs(spans)
        flat = source.view(np.uint8)
        for plane, (segment, place) in enumerate(zip(segments, places, strict=True)):
            offset, length = int(segment["offset"]), int(segment["size"])
            frame = flat[place : place + length]
            if segment["coding"] == RAW:
                content[plane] = frame.view(np.uint64)
            else:
                summed = segment["coding"] == SUMMED_ZSTD
                plain = self._decompress(entry, offset, frame.tobytes(), size, summed)
                content[plane] = np.frombuffer(plain, np.uint64)
        return content

    def _decompress(self, entry: TensorEntry, offset: int, frame: bytes, size: int, summed: bool) -> bytes:
        from tierform.store.checksum import xxh64
        from tierform.store.writer import _zstd

        zstd = _zstd()
        if summed:
            stated, frame = int.from_bytes(frame[:SUM_BYTES], "little"), frame[SUM_BYTES:]
            if xxh64(frame) != stated:
                self.bad("a compressed plane does not match its checksum", offset, entry.name)
        try:
            if zstd.frame_content_size(frame) != size:
                self.bad("a compressed plane has a wrong size", offset, entry.name)
            content: bytes = zstd.ZstdDecompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
        except (zstd.ZstdError, MemoryError) as error:
            self.bad(f"a compressed plane cannot be decompressed ({error})", offset, entry.name)
        if len(content) != size:
            self.bad("a compressed plane has a wrong size", offset, entry.name)
        return content

    def _expected(
        self, entry: TensorEntry, chunk: int, depth: int, low: int, high: int
    ) -> tuple[int, NDArray[np.uint64]]:
        """The first page that blocks `low` to `high` of a chunk touch, and the checksums from it on, [plane, page]."""
        first, last = low // PAGE_BLOCKS, -(-high // PAGE_BLOCKS)
        base = chunk * (entry.chunk_blocks // PAGE_BLOCKS)
        # one row even of no plane: an array without any means that nothing is verified
        rows = self.index(entry, depth).checksums[: max(depth, 1), base + first : base + last]
        return first, np.ascontiguousarray(rows)

    def _page_depths(self, low: int, high: int, bits: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The planes that each page of blocks `low` to `high` is read to."""
        first, last = low // PAGE_BLOCKS, -(-high // PAGE_BLOCKS)
        if bits.size == 1:
            return np.full(last - first, int(bits[0]), np.int64)
        edges = np.maximum(np.arange(first, last) * PAGE_BLOCKS - low, 0)
        return np.maximum.reduceat(bits, edges).astype(np.int64)

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
        from tierform.store.hashing import check_pages

        depths = self._page_depths(low, high, bits)
        first, expected = self._expected(entry, chunk, int(depths.max()), low, high)
        blocks = entry.chunk_span(chunk)
        wrong = check_pages(stored, starts, step, blocks, PAGE_BLOCKS, first, depths, expected)
        if wrong >= 0:
            self._refuse_page(entry, chunk, wrong, step)
        self._add_touched(entry, chunk, first, depths)

    def _refuse_page(self, entry: TensorEntry, chunk: int, wrong: int, step: int) -> NoReturn:
        plane, page = wrong >> 32, wrong & 0xFFFFFFFF
        segment = self.index(entry, plane + 1).segments[plane, chunk]
        byte = int(segment["offset"]) + (page * PAGE_BLOCKS * step * 8 if segment["coding"] == RAW else 0)
        number = chunk * (entry.chunk_blocks // PAGE_BLOCKS) + page
        self.bad(f"page {number} of plane {plane} does not match its checksum", byte, entry.name)

    def _add_touched(self, entry: TensorEntry, chunk: int, first: int, depths: NDArray[np.int64]) -> None:
        """Count the plane bytes that pages `first` on of a chunk took, each to its depth."""
        depth = int(depths.max())
        if entry.codec == "none":
            # The last page may be cut short.
            missing = max(0, (first + depths.size) * PAGE_BLOCKS - entry.chunk_span(chunk))
            touched = (int(depths.sum()) * PAGE_BLOCKS - missing * int(depths[-1])) * PLANE_BYTES
        else:
            touched = int(self.index(entry, depth).segments["size"][:depth, chunk].sum())
        with self._lock:
            self._count.planes_B += touched
            self._count.by_tensor[entry.name] = self._count.by_tensor.get(entry.name, 0) + touched

    def _request(self, job: Job) -> None:
        """Ask the system to bring the pages of a job on the mapping into memory."""
        depth, mapped = int(job.bits.max()), self.file.mapped
        if depth == 0 or not hasattr(mapped, "madvise"):
            return
        segments = self.index(job.entry, depth).segments[:depth, job.chunk]
        if job.entry.layout == "adjacent":
            block = job.entry.element.planes * PLANE_BYTES
            start = int(segments[0]["offset"])
            begin, end = start + job.low * block, start + job.high * block
        else:
            begin, end = int(segments[0]["offset"]), int(segments[-1]["offset"]) + int(segments[-1]["size"])
        begin = begin // PAGE_BYTES * PAGE_BYTES
        mapped.madvise(mmap.MADV_WILLNEED, begin, min(end, self.file.size) - begin)
