"""Where the bytes of a store lie: the header, the directory, the planes of a tensor and their index, byte by byte.

The file is a header of 128 bytes, the tensors (each its chunks of planes, then one index row per plane), the attached
files, and the directory.  Everything is little-endian; offsets and sizes are 64-bit and absolute.
`docs/store-format.md` is the same description for readers in other languages.  Nothing a file says is believed before
it was checked against the file's size and its own checksum; what is wrong is reported with the byte at which it stands.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import Literal, NoReturn

from tierform.errors import fail
from tierform.store.elements import BLOCK_WEIGHTS, BY_CODE, PAGE_BLOCKS, PLANE_BYTES, Element

MAGIC = b"\x89TFS\r\n\x1a\n"
MAJOR, MINOR = 1, 1  # 1.1: a compressed plane carries a checksum of its stored bytes
HEADER = struct.Struct("<8sHHI6QIIIIQ32xQ")
HEADER_BYTES = 128
CHUNK_BLOCKS = 2048  # blocks whose planes lie together: 128 KiB a plane
ALIGNMENT = 64
PAGE_BYTES = 4096
MAX_RANK = 32
MAX_CHUNK_BLOCKS = 1 << 20
RAW, ZSTD, SUMMED_ZSTD = 0, 1, 2
SUM_BYTES = 8  # of the checksum before a zstd frame
SEGMENT = struct.Struct("<QII")
_TENSOR = struct.Struct("<IBBBBBBHI5Q")
_ATTACHMENT = struct.Struct("<IB5xHI3Q")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
Layout = Literal["plane-major", "adjacent"]
Codec = Literal["none", "zstd"]
LAYOUTS: tuple[Layout, ...] = ("plane-major", "adjacent")
CODECS: tuple[Codec, ...] = ("none", "zstd")
MAX_FILE_NAME = 200


def align(offset: int, to: int = ALIGNMENT) -> int:
    """`offset` rounded up to a multiple of `to`."""
    return -(-offset // to) * to


@dataclass(frozen=True, slots=True)
class Header:
    """The first 128 bytes."""

    file_size: int
    directory_offset: int
    directory_bytes: int
    directory_xxh64: int
    tensors: int
    attachments: int
    chunk_blocks: int
    tensor_bytes: int
    minor: int = MINOR

    def to_bytes(self) -> bytes:
        """The header as it stands in the file, its checksum included."""
        from tierform.store.checksum import xxh64

        body = HEADER.pack(
            MAGIC,
            MAJOR,
            self.minor,
            HEADER_BYTES,
            self.file_size,
            self.directory_offset,
            self.directory_bytes,
            self.directory_xxh64,
            self.tensors,
            self.attachments,
            BLOCK_WEIGHTS,
            PAGE_BLOCKS,
            self.chunk_blocks,
            0,
            self.tensor_bytes,
            0,
        )[:-8]
        return body + struct.pack("<Q", xxh64(body))


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor: what it is, where its planes lie, where its index lies."""

    name: str
    element: Element
    shape: tuple[int, ...]
    layout: Layout
    codec: Codec
    data_offset: int
    data_bytes: int
    rows_offset: int
    row_checksums: tuple[int, ...]
    chunk_blocks: int

    @property
    def weights(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def blocks(self) -> int:
        """Number of 512-weight blocks; the last may be part empty (zeros)."""
        return -(-self.weights // BLOCK_WEIGHTS)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.blocks // self.chunk_blocks)

    @property
    def pages(self) -> int:
        """Checksummed pages of one plane over the whole tensor."""
        return -(-self.blocks // PAGE_BLOCKS)

    @property
    def row_bytes(self) -> int:
        """Bytes of one plane's index row: its segments and its pages' checksums."""
        return self.chunks * SEGMENT.size + self.pages * 8

    @property
    def raw_bytes(self) -> int:
        """Bytes of all planes uncompressed, padding of the last block included."""
        return self.blocks * PLANE_BYTES * self.element.planes

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the tensor as ordinary words."""
        return self.weights * self.element.word_bytes

    def chunk_span(self, chunk: int) -> int:
        """Blocks in `chunk` (the last one is shorter)."""
        return min(self.chunk_blocks, self.blocks - chunk * self.chunk_blocks)

    def to_bytes(self) -> bytes:
        """The directory record."""
        name = self.name.encode("utf-8")
        rank, planes = len(self.shape), self.element.planes
        layout, codec = LAYOUTS.index(self.layout), CODECS.index(self.codec)
        size = align(_TENSOR.size + 8 * (rank + planes) + len(name), 8)
        body = (
            _TENSOR.pack(
                size,
                1,
                self.element.code,
                planes,
                layout,
                codec,
                rank,
                len(name),
                0,
                self.weights,
                self.data_offset,
                self.data_bytes,
                self.rows_offset,
                self.row_bytes,
            )
            + struct.pack(f"<{rank + planes}Q", *self.shape, *self.row_checksums)
            + name
        )
        return body.ljust(size, b"\0")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A small file kept beside the tensors (config.json, a tokenizer)."""

    name: str
    offset: int
    size: int
    xxh64: int

    def to_bytes(self) -> bytes:
        """The directory record."""
        name = self.name.encode("utf-8")
        size = align(_ATTACHMENT.size + len(name), 8)
        return (_ATTACHMENT.pack(size, 2, len(name), 0, self.offset, self.size, self.xxh64) + name).ljust(size, b"\0")


def is_file_name(name: str) -> bool:
    """Whether `name` is a plain file name that cannot leave its folder on any system."""
    return bool(_FILE_NAME.fullmatch(name)) and ".." not in name and not name.endswith(".")


class _Bad:
    """Refusals with the file and the byte at which it is wrong."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __call__(self, what: str, byte: int, value: object = None) -> NoReturn:
        fail(
            f"byte {byte}: {what}",
            file=self.file,
            value=value,
            fix="The store is damaged or incomplete; pack it again.",
        )


def parse_header(content: bytes, size: int, file: str) -> Header:
    """The header of a file of `size` bytes, from its first 128; TierformError when it is not one."""
    from tierform.store.checksum import xxh64

    bad = _Bad(file)
    if len(content) < 8 or content[:8] != MAGIC:
        fail("this is not a tierform store", file=file, value=content[:8], fix="Make one with: tierform store pack")
    if len(content) < HEADER_BYTES:
        bad(f"the file ends inside its header of {HEADER_BYTES} bytes", len(content))
    (
        _,
        major,
        minor,
        header_bytes,
        file_size,
        directory_offset,
        directory_bytes,
        directory_xxh64,
        tensors,
        attachments,
        block_weights,
        page_blocks,
        chunk_blocks,
        reserved,
        tensor_bytes,
        checksum,
    ) = HEADER.unpack(content)
    if xxh64(content[: HEADER_BYTES - 8]) != checksum:
        bad("the header does not match its checksum", 0)
    if major != MAJOR or minor > MINOR:
        fail(f"the store has format {major}.{minor}; this program reads {MAJOR}.{MINOR}", file=file)
    if header_bytes != HEADER_BYTES or reserved or any(content[88:120]):
        bad("the header's size or its reserved bytes are wrong", 12)
    if file_size != size:
        bad(f"the header says {file_size} bytes, the file has {size}", min(size, file_size))
    if block_weights != BLOCK_WEIGHTS or page_blocks != PAGE_BLOCKS:
        bad("only blocks of 512 weights and pages of 64 blocks are read", 64, (block_weights, page_blocks))
    if not PAGE_BLOCKS <= chunk_blocks <= MAX_CHUNK_BLOCKS or chunk_blocks % PAGE_BLOCKS:
        bad("the chunk size is wrong", 72, chunk_blocks)
    if directory_offset < HEADER_BYTES or directory_offset % 8 or directory_offset + directory_bytes > size:
        bad("the directory does not lie inside the file", 24, (directory_offset, directory_bytes))
    if size % 8 or size - directory_offset - directory_bytes >= ALIGNMENT:
        bad("bytes follow the directory", directory_offset + directory_bytes)
    smallest = tensors * (_TENSOR.size + 8) + attachments * (_ATTACHMENT.size + 8)
    if smallest > directory_bytes:
        bad("the directory is too small for its entries", 48, (tensors, attachments))
    return Header(
        file_size=file_size,
        directory_offset=directory_offset,
        directory_bytes=directory_bytes,
        directory_xxh64=directory_xxh64,
        tensors=tensors,
        attachments=attachments,
        chunk_blocks=chunk_blocks,
        tensor_bytes=tensor_bytes,
        minor=minor,
    )


def parse_directory(content: bytes, header: Header, file: str) -> tuple[list[TensorEntry], list[Attachment]]:
    """The directory's entries; every offset lies in the file, regions are disjoint, names are unique and harmless."""
    from tierform.store.checksum import xxh64

    bad, base = _Bad(file), header.directory_offset
    if xxh64(content) != header.directory_xxh64:
        bad("the directory does not match its checksum", base)
    tensors: list[TensorEntry] = []
    attachments: list[Attachment] = []
    at = 0
    while at < len(content):
        if len(content) - at < _ATTACHMENT.size:
            bad("the directory ends inside an entry", base + at)
        (size,) = struct.unpack_from("<I", content, at)
        if size % 8 or size < _ATTACHMENT.size or size > len(content) - at:
            bad("an entry of the directory has a wrong size", base + at, size)
        record = content[at : at + size]
        if record[4] == 1 and size >= _TENSOR.size:
            tensors.append(_tensor(record, header, base + at, bad))
        elif record[4] == 2:
            attachments.append(_attachment(record, base + at, bad))
        else:
            bad("an entry of unknown kind", base + at + 4, record[4])
        at += size
    if len(tensors) != header.tensors or len(attachments) != header.attachments:
        bad("the directory and the header count differently", 48, (len(tensors), len(attachments)))
    if sum(entry.tensor_bytes for entry in tensors) != header.tensor_bytes:
        bad("the tensors do not add up to the header's size", 80, header.tensor_bytes)
    for names in ([entry.name for entry in tensors], [entry.name for entry in attachments]):
        if len(set(names)) != len(names):
            bad("a name stands twice in the directory", base)
    _check_regions(tensors, attachments, header, bad)
    return tensors, attachments


def _tensor(record: bytes, header: Header, byte: int, bad: _Bad) -> TensorEntry:
    (
        _,
        _,
        code,
        planes,
        layout,
        codec,
        rank,
        name_bytes,
        reserved,
        weights,
        data_offset,
        data_bytes,
        rows_offset,
        row_bytes,
    ) = _TENSOR.unpack_from(record)
    element = BY_CODE.get(code)
    if element is None or planes != element.planes:
        bad("unknown element type", byte + 5, (code, planes))
    if layout >= len(LAYOUTS) or codec >= len(CODECS) or (layout == 1 and codec == 1) or reserved or rank > MAX_RANK:
        bad("unknown layout, codec or rank", byte + 7, (layout, codec, rank))
    numbers_end = _TENSOR.size + 8 * (rank + planes)
    if align(numbers_end + name_bytes, 8) != len(record) or any(record[numbers_end + name_bytes :]):
        bad("the entry's size and its content differ", byte)
    numbers = struct.unpack_from(f"<{rank + planes}Q", record, _TENSOR.size)
    name = _text(record[numbers_end : numbers_end + name_bytes], byte, bad)
    if not name:
        bad("a tensor has no name", byte + numbers_end)
    entry = TensorEntry(
        name=name,
        element=element,
        shape=numbers[:rank],
        layout=LAYOUTS[layout],
        codec=CODECS[codec],
        data_offset=data_offset,
        data_bytes=data_bytes,
        rows_offset=rows_offset,
        row_checksums=numbers[rank:],
        chunk_blocks=header.chunk_blocks,
    )
    if math.prod(numbers[:rank]) != weights:
        bad(f"the shape of {name!r} does not have the stated number of weights", byte + 16, weights)
    if row_bytes != entry.row_bytes or row_bytes * planes > header.file_size:
        bad(f"the index of {name!r} has a wrong size", byte + 48, row_bytes)
    if codec == RAW and data_bytes != entry.raw_bytes:
        bad(f"the planes of {name!r} have a wrong size", byte + 32, data_bytes)
    return entry


def _attachment(record: bytes, byte: int, bad: _Bad) -> Attachment:
    _, _, name_bytes, reserved, offset, size, checksum = _ATTACHMENT.unpack_from(record)
    end = _ATTACHMENT.size + name_bytes
    if align(end, 8) != len(record) or any(record[end:]) or any(record[5:10]) or reserved:
        bad("the entry's size and its content differ", byte)
    name = _text(record[_ATTACHMENT.size : end], byte, bad)
    if not is_file_name(name):
        bad("an attached file has a name that is not a plain file name", byte, name)
    return Attachment(name, offset, size, checksum)


def _text(content: bytes, byte: int, bad: _Bad) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        bad("a name is not UTF-8", byte)
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        bad("a name has control characters", byte, text)
    return text


def regions_of(tensors: list[TensorEntry], attachments: list[Attachment]) -> list[tuple[int, int, str]]:
    """(start, end, owner) of all bytes between the header and the directory that belong to something, in order."""
    regions = []
    for entry in tensors:
        regions.append((entry.data_offset, entry.data_offset + entry.data_bytes, entry.name))
        end = entry.rows_offset + entry.row_bytes * entry.element.planes
        regions.append((entry.rows_offset, end, entry.name))
    regions.extend((item.offset, item.offset + item.size, item.name) for item in attachments)
    return sorted(region for region in regions if region[1] > region[0])


def _check_regions(tensors: list[TensorEntry], attachments: list[Attachment], header: Header, bad: _Bad) -> None:
    for entry in tensors:
        if entry.data_offset % ALIGNMENT or entry.rows_offset % 8:
            bad(f"{entry.name!r} is not aligned", header.directory_offset, entry.data_offset)
    end = HEADER_BYTES
    for start, stop, name in regions_of(tensors, attachments):
        if start < end or stop > header.directory_offset:
            bad(f"{name!r} overlaps something else or leaves the file", start, (start, stop))
        end = stop
