"""Traces of packets on a network: plain text, and the format of netrace (Hestness, Grot and Keckler, NoCArc 2010).

A line of text is ``cycle source destination flits``, numbers apart by spaces or commas, ``#`` before a comment.
netrace files are binary, little-endian, often packed with bzip2: a header of 72 bytes, notes, 24 bytes for each region,
then for each packet 21 bytes (cycle, number, address, kind, source, destination, kinds of nodes, number of followers)
and the numbers of the packets that wait for it.  A packet with a cache line has 72 bytes, any other 8.
"""

from __future__ import annotations

import bz2
import gzip
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tierform.errors import Problem, TierformError, fail
from tierform.network.cycle.traces import PacketTrace

MAX_FILE_BYTES = 1 << 28
MAX_PACKETS = 2_000_000
_MAGIC = 0x484A5455
_HEADER = struct.Struct("<If30sBBQQII8x")
_PACKET = struct.Struct("<QIIBBBBB")
_REGION_BYTES = 24
_NUMBERS = re.compile(r"[0-9]{1,10}", re.ASCII)
# Kinds of packets that carry a cache line of 64 bytes behind a head of 8: read responses (with invalidation), write
# requests, write-backs, exclusive read responses, downgrade responses.
_WITH_LINE = {2, 3, 4, 6, 16, 30}
_HEAD_B, _LINE_B = 8, 64


def read_trace(path: Path | str, flit_B: int = 8, max_packets: int = MAX_PACKETS) -> PacketTrace:
    """The packets of a trace file, at most the first `max_packets`; `flit_B` turns netrace's bytes into flits."""
    file = str(path)
    content = _unpacked(Path(path), file)
    if len(content) >= 4 and int.from_bytes(content[:4], "little") == _MAGIC:
        return _netrace(content, file, flit_B, max_packets)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        fail("this is neither text nor a netrace file", file=file)
    return _text(text, file, max_packets)


def _unpacked(path: Path, file: str) -> bytes:
    """The content of a file, unpacked if it is packed, and no more of it than is read at most."""
    try:
        with path.open("rb") as stream:
            start = stream.read(3)
        openers: dict[bytes, Any] = {b"BZh": bz2.open, b"\x1f\x8b\x08": gzip.open}
        with openers.get(start, open)(path, "rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, ValueError) as error:
        fail(f"the file cannot be read: {error}", file=file)
    if len(content) > MAX_FILE_BYTES:
        fail(f"at most {MAX_FILE_BYTES >> 20} MiB of a trace are read", file=file)
    return bytes(content)


def _text(text: str, file: str, max_packets: int) -> PacketTrace:
    rows: list[tuple[int, ...]] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        if len(words) != 4 or not all(_NUMBERS.fullmatch(word) for word in words):
            problems.append(Problem("'cycle source destination flits' is expected", file, number, value=line[:60]))
            if len(problems) >= 20:
                break
            continue
        rows.append(tuple(int(word) for word in words))
        if len(rows) >= max_packets:
            break
    if problems:
        raise TierformError(problems)
    if not rows:
        fail("the trace has no packet", file=file)
    table = np.array(rows, np.int64)
    return PacketTrace(table[:, 0], table[:, 1], table[:, 2], table[:, 3], np.zeros((0, 2), np.int64))


def _netrace(content: bytes, file: str, flit_B: int, max_packets: int) -> PacketTrace:
    if len(content) < _HEADER.size:
        fail("the file ends within netrace's header", file=file)
    *_, notes, regions = _HEADER.unpack_from(content)
    at = _HEADER.size + notes + _REGION_BYTES * regions
    rows: list[tuple[int, ...]] = []
    place: dict[int, int] = {}
    followers: list[tuple[int, int]] = []
    while at + _PACKET.size <= len(content) and len(rows) < max_packets:
        cycle, number, _, kind, source, destination, _, waiting = _PACKET.unpack_from(content, at)
        at += _PACKET.size
        if at + 4 * waiting > len(content):
            fail("the file ends within a packet", file=file, value=number)
        size_B = _HEAD_B + (_LINE_B if kind in _WITH_LINE else 0)
        place[number] = len(rows)
        followers += [(len(rows), later) for later in struct.unpack_from(f"<{waiting}I", content, at)]
        at += 4 * waiting
        rows.append((cycle, source, destination, -(-size_B // flit_B)))
    if not rows:
        fail("the trace has no packet", file=file)
    table = np.array(rows, np.uint64)
    if table[:, 0].max() > 2**62:
        fail("a packet's cycle is beyond bounds", file=file, value=int(table[:, 0].max()))
    table = table.astype(np.int64)
    # The first packet of a part of a long run starts at once.
    begin = int(table[:, 0].min())
    pairs = [(first, place[later]) for first, later in followers if later in place]
    after = np.array(pairs, np.int64).reshape(-1, 2)
    return PacketTrace(table[:, 0] - begin, table[:, 1], table[:, 2], table[:, 3], after)
