"""Packing: ordinary tensors into planes, chunk by chunk, into a file that appears whole or not at all.

Chunks are transposed, checksummed and, on request, compressed by a few threads; one thread writes them in order, so
memory holds a few chunks whatever the model's size.  The file is written beside its target, synced, and renamed.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tierform.arrays import Array
from tierform.errors import MissingDependency, fail
from tierform.files import atomic_path
from tierform.store.checksum import xxh64
from tierform.store.elements import BLOCK_WEIGHTS, BY_NAME, PAGE_BLOCKS, PLANE_BYTES, Element, element_named
from tierform.store.layout import (
    ALIGNMENT,
    CHUNK_BLOCKS,
    CODECS,
    HEADER_BYTES,
    LAYOUTS,
    MAX_CHUNK_BLOCKS,
    MAX_RANK,
    PAGE_BYTES,
    RAW,
    SEGMENT,
    SUM_BYTES,
    SUMMED_ZSTD,
    Attachment,
    Codec,
    Header,
    Layout,
    TensorEntry,
    align,
    is_file_name,
)
from tierform.store.links import followed

if TYPE_CHECKING:
    from tierform.store.safetensors_file import SafetensorsFile

METADATA_NAME = "safetensors-metadata.json"
ATTACHED_SUFFIXES = (".json", ".txt", ".model", ".jinja")
MAX_ATTACHMENT_BYTES = 64 * 2**20
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class PackOptions:
    """How planes are laid out: `layout` and `codec` of every tensor, chunk size, threads, zstd's level."""

    layout: Layout = "plane-major"
    codec: Codec = "none"
    chunk_blocks: int = CHUNK_BLOCKS
    threads: int = 2
    level: int = 3

    def check(self) -> None:
        """TierformError when the choices exclude each other or cannot be met."""
        if self.layout not in LAYOUTS:
            fail(
                "unknown layout", key="layout", value=self.layout, choices=LAYOUTS, fix=f"One of {', '.join(LAYOUTS)}."
            )
        if self.codec not in CODECS:
            fail("unknown codec", key="codec", value=self.codec, choices=CODECS, fix=f"One of {', '.join(CODECS)}.")
        if self.layout == "adjacent" and self.codec != "none":
            fail("planes that lie side by side in a block cannot be compressed apart", fix="Use layout plane-major.")
        if not PAGE_BLOCKS <= self.chunk_blocks <= MAX_CHUNK_BLOCKS or self.chunk_blocks % PAGE_BLOCKS:
            fail(f"a chunk is a multiple of {PAGE_BLOCKS} blocks", key="chunk_blocks", value=self.chunk_blocks)
        if self.threads < 1:
            fail("at least one thread is needed", key="threads", value=self.threads)
        if not 1 <= self.level <= 22:
            fail("zstd has levels 1 to 22", key="level", value=self.level)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A packed chunk, ready to be written: its bytes and, per plane, place in them, stored size, coding, checksums."""

    content: memoryview | bytes
    segments: tuple[tuple[int, int, int], ...]
    checksums: NDArray[np.uint64]


class StoreWriter:
    """Writes one store: add tensors and files in any order, then :meth:`finish`."""

    def __init__(self, target: BinaryIO, options: PackOptions) -> None:
        """Begin at the start of `target`, an empty seekable file."""
        options.check()
        if options.codec == "zstd":
            _zstd()
        self.options = options
        self._file = target
        self._file.write(bytes(HEADER_BYTES))
        self._at = HEADER_BYTES
        self._tensors: list[TensorEntry] = []
        self._attachments: list[Attachment] = []
        self._names: set[str] = set()

    def add(
        self,
        name: str,
        element: Element,
        shape: tuple[int, ...],
        content: bytes | memoryview | NDArray[np.uint8],
        progress: Progress | None = None,
    ) -> None:
        """Pack one tensor from a buffer of its words in C order (little-endian)."""
        flat = np.frombuffer(content, np.uint8) if len(content) else np.empty(0, np.uint8)
        entry = TensorEntry(
            name=name,
            element=element,
            shape=tuple(shape),
            layout=self.options.layout,
            codec=self.options.codec,
            data_offset=0,
            data_bytes=0,
            rows_offset=0,
            row_checksums=(),
            chunk_blocks=self.options.chunk_blocks,
        )
        self._check(entry, flat.size)
        self._pad(PAGE_BYTES if entry.blocks >= PAGE_BLOCKS else ALIGNMENT)
        start = self._at
        segments: list[list[bytes]] = [[] for _ in range(element.planes)]
        checksums: list[NDArray[np.uint64]] = []
        for chunk in self._packed(entry, flat):
            for plane, (offset, size, coding) in enumerate(chunk.segments):
                segments[plane].append(SEGMENT.pack(self._at + offset, size, coding))
            checksums.append(chunk.checksums)
            self._write(chunk.content)
            if progress is not None:
                progress(min(self.options.chunk_blocks * BLOCK_WEIGHTS, entry.weights) * element.word_bytes)
        data_bytes = self._at - start
        self._pad(8)
        rows_offset, row_checksums = self._at, []
        for plane in range(element.planes):
            pages = np.concatenate([part[plane] for part in checksums]) if checksums else np.empty(0, np.uint64)
            row = b"".join(segments[plane]) + pages.astype("<u8").tobytes()
            row_checksums.append(xxh64(row))
            self._write(row)
        place = replace(entry, data_offset=start, data_bytes=data_bytes, rows_offset=rows_offset)
        self._tensors.append(replace(place, row_checksums=tuple(row_checksums)))

    def attach(self, name: str, content: bytes) -> None:
        """Keep a small file beside the tensors."""
        if not is_file_name(name):
            fail("an attached file needs a plain file name", key=name)
        if any(item.name == name for item in self._attachments):
            fail("a file of this name is already attached", key=name)
        self._pad(8)
        self._attachments.append(Attachment(name, self._at, len(content), xxh64(content)))
        self._write(content)

    def finish(self) -> int:
        """Write the directory and, last of all, the header; the size of the file in bytes."""
        self._pad(8)
        directory = b"".join(entry.to_bytes() for entry in self._tensors)
        directory += b"".join(item.to_bytes() for item in self._attachments)
        offset = self._at
        self._write(directory)
        self._pad(ALIGNMENT)
        header = Header(
            file_size=self._at,
            directory_offset=offset,
            directory_bytes=len(directory),
            directory_xxh64=xxh64(directory),
            tensors=len(self._tensors),
            attachments=len(self._attachments),
            chunk_blocks=self.options.chunk_blocks,
            tensor_bytes=sum(entry.tensor_bytes for entry in self._tensors),
        )
        self._file.seek(0)
        self._file.write(header.to_bytes())
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._at

    def _check(self, entry: TensorEntry, given: int) -> None:
        size = len(entry.name.encode("utf-8", "surrogatepass"))
        if not 0 < size < 2**16 or any(ord(letter) < 32 or ord(letter) == 127 for letter in entry.name):
            fail("a tensor needs a name of 1 to 65535 bytes without control characters", key=entry.name)
        if entry.name in self._names:
            fail("a tensor of this name is already in the store", key=entry.name)
        if len(entry.shape) > MAX_RANK:
            fail(f"a tensor has at most {MAX_RANK} dimensions", key=entry.name, value=len(entry.shape))
        if given != entry.tensor_bytes:
            fail(f"{given} bytes were given, the shape needs {entry.tensor_bytes}", key=entry.name, value=entry.shape)
        self._names.add(entry.name)

    def _packed(self, entry: TensorEntry, flat: NDArray[np.uint8]) -> Iterator[Chunk]:
        """The chunks in order, a few of them in work at a time."""
        from tierform.store import kernels  # noqa: F401  (compiled once, before the threads ask for it)

        waiting: deque[Future[Chunk]] = deque()
        with ThreadPoolExecutor(self.options.threads) as pool:
            try:
                for number in range(entry.chunks):
                    waiting.append(pool.submit(pack_chunk, entry, flat, number, self.options.level))
                    if len(waiting) > 2 * self.options.threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _write(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self._at += len(content)

    def _pad(self, to: int) -> None:
        self._write(bytes(align(self._at, to) - self._at))


def pack_chunk(entry: TensorEntry, flat: NDArray[np.uint8], number: int, level: int) -> Chunk:
    """The planes of one chunk of a tensor whose words are `flat`."""
    from tierform.store.hashing import ROW, hash_pages
    from tierform.store.kernels import pack_blocks

    element, blocks = entry.element, entry.chunk_span(number)
    block_bytes = BLOCK_WEIGHTS * element.word_bytes
    first = number * entry.chunk_blocks * block_bytes
    given = flat[first : first + blocks * block_bytes]
    if given.size < blocks * block_bytes or given.ctypes.data % 8:
        padded = np.zeros(blocks * block_bytes, np.uint8)
        padded[: given.size] = given
        given = padded
    if element.name == "int4":
        _check_int4(given, entry.name)
    planes = element.planes
    stored = np.empty(blocks * planes * ROW, np.uint64)
    plane_step, block_step = (ROW, planes * ROW) if entry.layout == "adjacent" else (blocks * ROW, ROW)
    pack_blocks(given.view(np.uint64), element.width, planes, stored, 0, plane_step, block_step, blocks)
    starts = np.arange(planes, dtype=np.int64) * plane_step
    checksums = np.empty((planes, -(-blocks // PAGE_BLOCKS)), np.uint64)
    hash_pages(stored, starts, block_step, blocks, PAGE_BLOCKS, planes, checksums)
    content, size = stored.data.cast("B"), blocks * PLANE_BYTES
    if entry.codec == "none":
        return Chunk(content, tuple((int(start) * 8, size, RAW) for start in starts), checksums)
    compressor = _zstd().ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
    parts, segments, at = [], [], 0
    for plane in range(planes):
        raw = content[plane * size : (plane + 1) * size]
        frame = compressor.compress(raw)
        coded = xxh64(frame).to_bytes(SUM_BYTES, "little") + frame
        if len(coded) > size - size // 32:  # not worth a decompression
            segments.append((at, size, RAW))
            parts.append(bytes(raw))
        else:
            segments.append((at, len(coded), SUMMED_ZSTD))
            parts.append(coded.ljust(align(len(coded)), b"\0"))
        at += len(parts[-1])
    return Chunk(b"".join(parts), tuple(segments), checksums)


def _check_int4(given: NDArray[np.uint8], name: str) -> None:
    values = given.view(np.int8)
    if values.size and (values.min() < -8 or values.max() > 7):
        fail("an int4 tensor has values of -8 to 7 only", key=name, value=(int(values.min()), int(values.max())))


def _zstd() -> Any:
    try:
        import zstandard
    except ImportError:
        raise MissingDependency("zstandard", "compressing planes", "store") from None
    return zstandard


def pack_tensors(
    tensors: Mapping[str, Array] | Iterable[tuple[str, Array]],
    path: Path | str,
    options: PackOptions | None = None,
    *,
    elements: Mapping[str, str] | None = None,
    attachments: Mapping[str, bytes] | None = None,
) -> None:
    """Pack NumPy arrays into the store `path`.

    The element type follows the array's (float16, float32, int8, ...); `elements` names it for those whose NumPy type
    does not tell: ``bf16`` and the fp8 types are given as their codes (uint16, uint8), ``int4`` as int8 of -8 to 7.
    """
    from tierform.store.elements import ELEMENTS

    wanted = dict(elements or {})
    by_numpy = {
        one.numpy: one for one in reversed(ELEMENTS) if one.name not in ("bf16", "fp8-e4m3", "fp8-e5m2", "int4")
    }
    with atomic_path(path) as temporary, temporary.open("wb") as target:
        writer = StoreWriter(target, options or PackOptions())
        for name, array in tensors.items() if isinstance(tensors, Mapping) else tensors:
            element = element_named(wanted[name]) if name in wanted else by_numpy.get(array.dtype.name)
            if element is None:
                fail("this element type is not supported", key=name, value=array.dtype.name, choices=BY_NAME)
            if array.dtype.name != element.numpy:
                fail(f"{element.name} is given as {element.numpy}", key=name, value=array.dtype.name)
            array = np.asarray(array, dtype=array.dtype.newbyteorder("<"))
            flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            writer.add(name, element, array.shape, flat.data)
        for name, content in (attachments or {}).items():
            writer.attach(name, content)
        writer.finish()


def pack_model(
    model: Path | str,
    path: Path | str,
    options: PackOptions | None = None,
    *,
    int4: Iterable[str] = (),
    progress: Progress | None = None,
) -> int:
    """Pack a folder of safetensors files (or one such file, or a GGUF file) into the store `path`; its size in bytes.

    `int4` has patterns of int8 tensors to be kept as four planes (their values must be -8 to 7).  The model's small
    files (configuration, tokenizer) are kept with it.  `progress` is told the bytes of each chunk done.
    """
    from tierform.store.safetensors_file import open_model, plain_model

    model = plain_model(model)
    opened = open_model(model)
    try:
        if Path(path).exists() and any(one.path.samefile(path) for one in opened):
            fail("the store would replace the model it is made from", key="-o", value=str(path))
        with atomic_path(path) as temporary, temporary.open("wb") as target:
            writer = StoreWriter(target, options or PackOptions())
            metadata: dict[str, str] = {}
            for source_file in opened:
                metadata.update(source_file.metadata)
                _add_all(writer, source_file, tuple(int4), progress)
            if metadata:
                writer.attach(METADATA_NAME, json.dumps(metadata, ensure_ascii=False, sort_keys=True).encode("utf-8"))
            for file in _small_files(Path(model)):
                writer.attach(file.name, file.read_bytes())
            return writer.finish()
    finally:
        for one in opened:
            one.close()


def _add_all(writer: StoreWriter, file: SafetensorsFile, int4: tuple[str, ...], progress: Progress | None) -> None:
    for source in sorted(file.tensors, key=lambda one: one.start):
        element = source.element
        if any(fnmatch.fnmatchcase(source.name, pattern) for pattern in int4):
            if element.name != "int8":
                fail("only int8 tensors can be kept as int4", file=str(file.path), key=source.name, value=element.name)
            element = BY_NAME["int4"]
        writer.add(source.name, element, source.shape, file.content(source), progress)


def _small_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = []
    for file in sorted(folder.iterdir()):
        wanted = file.suffix in ATTACHED_SUFFIXES and not file.name.endswith(".index.json") and is_file_name(file.name)
        if wanted and file.is_file() and file.stat().st_size <= MAX_ATTACHMENT_BYTES and file.name != METADATA_NAME:
            found.append(followed(file, folder))
    return found
