# mypy: disable-error-code="untyped-decorator"
"""The plane kernels: bit-matrix transposes over 64-byte plane rows, and the checksum of a plane's pages.

A block is 512 weights of w bits, seen as w rows of 512/w words: row r holds weights r*512/w to (r+1)*512/w - 1.  Plane
p of the block is one row of the same shape, whose word j carries in its bit r the bit p of weight (r, j): the transpose
of the w x w bit matrix under each word j.  It is made in log2(w) stages of masked swaps (H. S. Warren, Hacker's
Delight, 2nd edition, section 7-3), two stages to a pass, on 64-bit words of which each holds 64/w words side by side,
so that every pass is a plain loop over contiguous arrays that the compiler turns into vector instructions.  Eight
blocks are staged in the first-level cache so that planes far apart are read and written in runs.

Checksums are XXH64 with seed 0 (Y. Collet's public specification), of the content of 64 blocks' rows of one plane.
All arrays are uint64 views; positions are in 8-byte words.  Everything releases the GIL.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

TILE = 8  # blocks staged at once
ROW = 8  # 64-bit words in one plane row
FILL_ZERO, FILL_MIDPOINT = 0, 1

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)
_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(cache=True, nogil=True)
def _mend(words: Any, width: int, kept: int, exponent_bits: int, infinities: int, fill: int) -> None:
    """Put right the codes of one block whose kept exponent bits are all ones."""
    one = np.uint64(1)
    mantissa = width - 1 - exponent_bits
    exponent = ((one << np.uint64(exponent_bits)) - one) << np.uint64(mantissa)
    low = (one << np.uint64(width - kept)) - one
    largest = (one << np.uint64(width - 1)) - one
    lane = largest + largest + one
    for i in range(words.size):
        result = np.uint64(0)
        for shift in range(0, 64, width):
            code = (words[i] >> np.uint64(shift)) & lane
            if infinities == 0:
                if code & largest == largest:  # the one NaN of E4M3, made by the fill: the largest number instead
                    code -= one
            elif code & exponent == exponent:
                if kept >= 1 + exponent_bits:
                    code &= ~low
                else:  # the fill reached the exponent of infinity: the middle of the numbers below it
                    code -= one << np.uint64(mantissa)
                    if fill == FILL_MIDPOINT:
                        code |= one << np.uint64(mantissa - 1)
            result |= code << np.uint64(shift)
        words[i] = result


_M32 = np.uint64(0x00000000FFFFFFFF)  # the lower half of every group of 2, 4, ... 64 bits
_M16 = np.uint64(0x0000FFFF0000FFFF)
_M8 = np.uint64(0x00FF00FF00FF00FF)
_M4 = np.uint64(0x0F0F0F0F0F0F0F0F)
_M2 = np.uint64(0x3333333333333333)
_M1 = np.uint64(0x5555555555555555)


@njit(inline="always")
def _two_stages(source: Any, target: Any, rows: Any, shift: Any, high_mask: Any, low_mask: Any) -> None:
    """Swap at distances `shift` and `shift`/2 from `source` to `target` (contiguous `rows`; they may be one array)."""
    half = shift // 2
    run = half * ROW
    high, low = np.uint64(shift), np.uint64(half)
    for group in range(0, rows * ROW, 4 * run):
        a, b = source[group : group + run], source[group + run : group + 2 * run]
        c, d = source[group + 2 * run : group + 3 * run], source[group + 3 * run : group + 4 * run]
        e, f = target[group : group + run], target[group + run : group + 2 * run]
        g, h = target[group + 2 * run : group + 3 * run], target[group + 3 * run : group + 4 * run]
        for i in range(run):
            x0, x1, x2, x3 = a[i], b[i], c[i], d[i]
            t = ((x0 >> high) ^ x2) & high_mask
            x0, x2 = x0 ^ (t << high), x2 ^ t
            t = ((x1 >> high) ^ x3) & high_mask
            x1, x3 = x1 ^ (t << high), x3 ^ t
            t = ((x0 >> low) ^ x1) & low_mask
            x0, x1 = x0 ^ (t << low), x1 ^ t
            t = ((x2 >> low) ^ x3) & low_mask
            x2, x3 = x2 ^ (t << low), x3 ^ t
            e[i], f[i], g[i], h[i] = x0, x1, x2, x3


@njit(inline="always")
def _one_stage(source: Any, target: Any, shift: Any, mask: Any) -> None:
    """Swap the first `shift` rows with the next `shift` rows at that distance."""
    run = shift * ROW
    distance = np.uint64(shift)
    a, b = source[:run], source[run : 2 * run]
    e, f = target[:run], target[run : 2 * run]
    for i in range(run):
        x0, x1 = a[i], b[i]
        t = ((x0 >> distance) ^ x1) & mask
        e[i], f[i] = x0 ^ (t << distance), x1 ^ t


@njit(inline="always")
def _last_stages(source: Any, source_step: Any, target: Any, target_step: Any, rows: Any) -> None:
    """Swap at distances 2 and 1, the rows lying `source_step` and `target_step` words apart."""
    for row in range(0, rows, 4):
        s, t = row * source_step, row * target_step
        a, b = source[s : s + ROW], source[s + source_step : s + source_step + ROW]
        c = source[s + 2 * source_step : s + 2 * source_step + ROW]
        d = source[s + 3 * source_step : s + 3 * source_step + ROW]
        e, f = target[t : t + ROW], target[t + target_step : t + target_step + ROW]
        g = target[t + 2 * target_step : t + 2 * target_step + ROW]
        h = target[t + 3 * target_step : t + 3 * target_step + ROW]
        for i in range(ROW):
            x0, x1, x2, x3 = a[i], b[i], c[i], d[i]
            swap = ((x0 >> np.uint64(2)) ^ x2) & _M2
            x0, x2 = x0 ^ (swap << np.uint64(2)), x2 ^ swap
            swap = ((x1 >> np.uint64(2)) ^ x3) & _M2
            x1, x3 = x1 ^ (swap << np.uint64(2)), x3 ^ swap
            swap = ((x0 >> np.uint64(1)) ^ x1) & _M1
            x0, x1 = x0 ^ (swap << np.uint64(1)), x1 ^ swap
            swap = ((x2 >> np.uint64(1)) ^ x3) & _M1
            x2, x3 = x2 ^ (swap << np.uint64(1)), x3 ^ swap
            e[i], f[i], g[i], h[i] = x0, x1, x2, x3


# Swaps at every distance from w/2 down to 4, rows contiguous; the stages commute, so they may come first or last.


@njit(inline="always")
def _first_stages_8(source: Any, target: Any) -> None:
    _one_stage(source, target, 4, _M4)


@njit(inline="always")
def _first_stages_16(source: Any, target: Any) -> None:
    _two_stages(source, target, 16, 8, _M8, _M4)


@njit(inline="always")
def _first_stages_32(source: Any, target: Any) -> None:
    _one_stage(source, target, 16, _M16)
    _two_stages(target, target, 32, 8, _M8, _M4)


@njit(inline="always")
def _first_stages_64(source: Any, target: Any) -> None:
    _two_stages(source, target, 64, 32, _M32, _M16)
    _two_stages(target, target, 64, 8, _M8, _M4)


# The kernels below are made for one width each.  They close over numbers only, so that their compiled form can be kept
# on disk, and a branch on such a number is decided before compilation.


@lru_cache(maxsize=8)
def pack_kernel(width: int) -> Any:
    """The function that packs words of `width` bits, compiled at its first call (and kept on disk)."""
    size = width * ROW

    @njit(cache=True, nogil=True)
    def pack(words: Any, planes: Any, stored: Any, start: Any, plane_step: Any, block_step: Any, blocks: Any) -> None:
        middle = np.empty(size, np.uint64)
        tile = np.empty(TILE * size, np.uint64)  # row r of slot b at (r * TILE + b) * ROW
        for first in range(0, blocks, TILE):
            count = min(TILE, blocks - first)
            for b in range(count):
                block = words[(first + b) * size : (first + b + 1) * size]
                if width == 8:
                    _first_stages_8(block, middle)
                elif width == 16:
                    _first_stages_16(block, middle)
                elif width == 32:
                    _first_stages_32(block, middle)
                else:
                    _first_stages_64(block, middle)
                _last_stages(middle, ROW, tile[b * ROW :], TILE * ROW, width)
            for p in range(planes):
                row = (planes - 1 - p) * TILE * ROW
                at = start + p * plane_step + first * block_step
                if block_step == ROW:
                    source, target = tile[row : row + count * ROW], stored[at : at + count * ROW]
                    for i in range(count * ROW):
                        target[i] = source[i]
                    continue
                for b in range(count):
                    source = tile[row + b * ROW : row + (b + 1) * ROW]
                    target = stored[at + b * block_step : at + b * block_step + ROW]
                    for i in range(ROW):
                        target[i] = source[i]

    return pack


def pack_blocks(
    words: Any, width: int, planes: int, stored: Any, start: int, plane_step: int, block_step: int, blocks: int
) -> None:
    """Write the planes of `blocks` blocks of `words` into `stored`, most significant first.

    `planes` bits of each weight are kept.  The row of plane p (0 the most significant) of block b lies at
    ``start + p*plane_step + b*block_step``.
    """
    pack_kernel(width)(words, planes, stored, start, plane_step, block_step, blocks)


@lru_cache(maxsize=8)
def unpack_kernel(width: int) -> Any:
    """The function that unpacks words of `width` bits, compiled at its first call (and kept on disk)."""
    size = width * ROW

    @njit(cache=True, nogil=True)
    def unpack(
        stored: Any, starts: Any, block_step: Any, first_block: Any, blocks: Any, bits: Any, bits_step: Any,
        planes: Any, fill: Any, exponent_bits: Any, infinities: Any, words: Any,
    ) -> None:  # fmt: skip
        middle = np.empty(size, np.uint64)
        tile = np.zeros(TILE * size, np.uint64)  # row r of slot b at (r * TILE + b) * ROW
        seen = np.empty(ROW, np.uint64)
        filled = np.full(TILE, -1, np.int64)  # the precision for which a slot's missing rows are filled
        for first in range(0, blocks, TILE):
            count = min(TILE, blocks - first)
            deepest, shallowest = 0, planes
            for b in range(count):
                kept = np.int64(bits[(first + b) * bits_step])
                deepest, shallowest = max(deepest, kept), min(shallowest, kept)  # type: ignore[assignment]
                if filled[b] != kept:
                    filled[b] = kept
                    for p in range(kept, planes):
                        value = _ONES if (p == kept and kept > 0 and fill == FILL_MIDPOINT) else np.uint64(0)
                        row = ((planes - 1 - p) * TILE + b) * ROW
                        for i in range(ROW):
                            tile[row + i] = value
            for p in range(deepest):
                row = (planes - 1 - p) * TILE * ROW
                at = starts[p] + (first_block + first) * block_step
                if block_step == ROW and p < shallowest:
                    source, target = stored[at : at + count * ROW], tile[row : row + count * ROW]
                    for i in range(count * ROW):
                        target[i] = source[i]
                    continue
                for b in range(count):
                    if p < filled[b]:
                        source = stored[at + b * block_step : at + b * block_step + ROW]
                        target = tile[row + b * ROW : row + (b + 1) * ROW]
                        for i in range(ROW):
                            target[i] = source[i]
            for p in range(planes, width):  # int4 in a byte: the sign plane is repeated
                for i in range(count * ROW):
                    tile[p * TILE * ROW + i] = tile[(planes - 1) * TILE * ROW + i]
            for b in range(count):
                target = words[(first + b) * size : (first + b + 1) * size]
                _last_stages(tile[b * ROW :], TILE * ROW, middle, ROW, width)
                if width == 8:
                    _first_stages_8(middle, target)
                elif width == 16:
                    _first_stages_16(middle, target)
                elif width == 32:
                    _first_stages_32(middle, target)
                else:
                    _first_stages_64(middle, target)
                kept = filled[b]
                if exponent_bits > 0 and 0 < kept < planes:
                    for i in range(ROW):
                        seen[i] = _ONES
                    for p in range(1, min(kept, exponent_bits + 1)):
                        row = ((planes - 1 - p) * TILE + b) * ROW
                        source = tile[row : row + ROW]
                        for i in range(ROW):
                            seen[i] &= source[i]
                    special = np.uint64(0)
                    for i in range(ROW):
                        special |= seen[i]
                    if special != 0:
                        _mend(target, width, kept, exponent_bits, infinities, fill)

    return unpack


def unpack_blocks(
    stored: Any,
    starts: Any,
    block_step: int,
    first_block: int,
    blocks: int,
    bits: Any,
    bits_step: int,
    width: int,
    planes: int,
    fill: int,
    exponent_bits: int,
    infinities: int,
    words: Any,
) -> None:
    """Read blocks ``first_block`` on into `words`, block i at the precision ``bits[i * bits_step]``.

    `starts[p]` is where plane p's row of block 0 lies.  Missing planes are zero; with `fill` FILL_MIDPOINT the first
    missing plane is all ones, the middle of the interval that the planes read leave open.  A block at 0 bits is zero.
    `exponent_bits` > 0 keeps a fill from making an infinity or a NaN out of a number, and the reverse.
    """
    unpack_kernel(width)(
        stored, starts, block_step, first_block, blocks, bits, bits_step, planes, fill, exponent_bits, infinities, words
    )


@njit(cache=True, nogil=True)
def round_codes(codes: Any, kept: Any, planes: int, width: int, exponent_bits: int, infinities: int) -> None:
    """Round each code to its nearest value of `kept` bits in place (ties away from zero; saturates, never wraps).

    `kept` has one number per 512 codes.  Integers (`exponent_bits` 0) are two's complement of `planes` bits.
    """
    one = np.uint64(1)
    sign = one << np.uint64(width - 1)
    full = sign + (sign - one)
    mantissa = width - 1 - exponent_bits
    exponent = ((one << np.uint64(exponent_bits)) - one) << np.uint64(mantissa)
    for index in range(codes.size):
        bits = np.int64(kept[index // 512])
        if bits <= 0 or bits >= planes:
            continue
        missing = np.uint64(planes - bits)
        low = (one << missing) - one
        half = one << (missing - one)
        code = np.uint64(codes[index])
        if exponent_bits == 0:
            top = (one << np.uint64(planes - 1)) - one
            biased = (code + (top + one)) & ((top << one) | one)  # order of values as order of numbers
            limit = ((top << one) | one) & ~low
            rounded = min((biased + half) & ~low, limit)
            value = (rounded + (top + one)) & ((top << one) | one)
            if value > top:
                value |= full & ~((top << one) | one)
            codes[index] = value
            continue
        magnitude = code & (sign - one)
        if infinities != 0 and magnitude & exponent == exponent:
            codes[index] = (code & sign) | (magnitude & ~low)
            continue
        rounded = (magnitude + half) & ~low
        over = rounded >= exponent if infinities != 0 else rounded >= sign - one
        codes[index] = (code & sign) | ((magnitude & ~low) if over else rounded)


@njit(inline="always")
def _rotate(value: Any, by: Any) -> Any:
    return (value << np.uint64(by)) | (value >> np.uint64(64 - by))


@njit(inline="always")
def _round(lane: Any, word: Any) -> Any:
    return _rotate(lane + word * _P2, 31) * _P1


@njit(cache=True, nogil=True)
def hash_rows(stored: Any, start: int, step: int, rows: int) -> Any:
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
def hash_bytes(content: Any) -> Any:
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
def _word(content: Any, at: int, size: int) -> Any:
    value = np.uint64(0)
    for i in range(size):
        value |= np.uint64(content[at + i]) << np.uint64(8 * i)
    return value


@njit(cache=True, nogil=True)
def hash_pages(stored: Any, starts: Any, block_step: int, blocks: int, page_blocks: int, planes: int, out: Any) -> None:
    """The checksum of every page of `planes` planes of a chunk: `out[p, page]`."""
    for p in range(planes):
        for page in range((blocks + page_blocks - 1) // page_blocks):
            first = page * page_blocks
            rows = min(page_blocks, blocks - first)
            out[p, page] = hash_rows(stored, starts[p] + first * block_step, block_step, rows)


@njit(cache=True, nogil=True)
def check_pages(
    stored: Any,
    starts: Any,
    block_step: int,
    blocks: int,
    page_blocks: int,
    first_page: int,
    depths: Any,
    expected: Any,
) -> int:
    """Verify pages ``first_page + i`` of planes 0 to ``depths[i] - 1``; -1, or (plane << 32) + page of a wrong one."""
    for i in range(depths.size):
        first = (first_page + i) * page_blocks
        rows = min(page_blocks, blocks - first)
        for p in range(depths[i]):
            if hash_rows(stored, starts[p] + first * block_step, block_step, rows) != expected[p, i]:
                return (p << 32) + first_page + i
    return -1
