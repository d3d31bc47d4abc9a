# mypy: disable-error-code="untyped-decorator, no-any-return"
"""The checksum of a plane's pages and of any bytes: XXH64 with seed 0 (Y. Collet's public specification).

A page is 64 blocks' rows of one plane; its checksum is that of the rows one after the other, wherever they lie.
All arrays but plain bytes are uint64 views, positions in 8-byte words.  Everything releases the GIL.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tierform.arrays import Bits, Bytes, Ints

ROW = 8  # 64-bit words in one plane row

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)


@njit(inline="always")
def _rotate(value: np.uint64, by: int) -> np.uint64:
    return (value << np.uint64(by)) | (value >> np.uint64(64 - by))


@njit(inline="always")
def _round(lane: np.uint64, word: np.uint64) -> np.uint64:
    return _rotate(lane + word * _P2, 31) * _P1


@njit(cache=True, nogil=True)
def hash_rows(stored: Bits, start: int, step: int, rows: int) -> np.uint64:
    """XXH64 of `rows` 64-byte rows that lie `step` words apart, as if they stood one after the other."""
    length = np.uint64(rows * 64)
    if rows == 0:
        state = _P5
    else:
        a, b, c, d = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1
        for r in range(rows):
            row = stored[start + r * step : start + r * step + ROW]
            a, b, c, d = _round(a, row[0]), _round(b, row[1]), _round(c, row[2]), _round(d, row[3])
            a, b, c, d = _round(a, row[4]), _round(b, row[5]), _round(c, row[6]), _round(d, row[7])
        state = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)
        for lane in (a, b, c, d):
            state = (state ^ _round(np.uint64(0), lane)) * _P1 + _P4
    state += length
    state = (state ^ (state >> np.uint64(33))) * _P2
    state = (state ^ (state >> np.uint64(29))) * _P3
    return state ^ (state >> np.uint64(32))


@njit(cache=True, nogil=True)
def hash_bytes(content: Bytes) -> np.uint64:
    """XXH64 (seed 0) of a uint8 array of any length."""
    length = content.size
    at = 0
    if length >= 32:
        a, b, c, d = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1
        while at + 32 <= length:
            a, b = _round(a, _word(content, at, 8)), _round(b, _word(content, at + 8, 8))
            c, d = _round(c, _word(content, at + 16, 8)), _round(d, _word(content, at + 24, 8))
            at += 32
        state = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)
        for lane in (a, b, c, d):
            state = (state ^ _round(np.uint64(0), lane)) * _P1 + _P4
    else:
        state = _P5
    state += np.uint64(length)
    while at + 8 <= length:
        state = _rotate(state ^ _round(np.uint64(0), _word(content, at, 8)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= length:
        state = _rotate(state ^ (_word(content, at, 4) * _P1), 23) * _P2 + _P3
        at += 4
    while at < length:
        state = _rotate(state ^ (np.uint64(content[at]) * _P5), 11) * _P1
        at += 1
    state = (state ^ (state >> np.uint64(33))) * _P2
    state = (state ^ (state >> np.uint64(29))) * _P3
    return state ^ (state >> np.uint64(32))


@njit(inline="always")
def _word(content: Bytes, at: int, size: int) -> np.uint64:
    value = np.uint64(0)
    for i in range(size):
        value |= np.uint64(content[at + i]) << np.uint64(8 * i)
    return value


@njit(cache=True, nogil=True)
def hash_pages(
    stored: Bits, starts: Ints, block_step: int, blocks: int, page_blocks: int, planes: int, out: Bits
) -> None:
    """The checksum of every page of `planes` planes of a chunk: `out[p, page]`."""
    for p in range(planes):
        for page in range((blocks + page_blocks - 1) // page_blocks):
            first = page * page_blocks
            rows = min(page_blocks, blocks - first)
            out[p, page] = hash_rows(stored, starts[p] + first * block_step, block_step, rows)


@njit(cache=True, nogil=True)
def check_pages(
    stored: Bits,
    starts: Ints,
    block_step: int,
    blocks: int,
    page_blocks: int,
    first_page: int,
    depths: Ints,
    expected: Bits,
) -> int:
    """Verify pages ``first_page + i`` of planes 0 to ``depths[i] - 1``; -1, or (plane << 32) + page of a wrong one."""
    for i in range(depths.size):
        first = (first_page + i) * page_blocks
        rows = min(page_blocks, blocks - first)
        for p in range(depths[i]):
            if hash_rows(stored, starts[p] + first * block_step, block_step, rows) != expected[p, i]:
                return (p << 32) + first_page + i
    return -1
