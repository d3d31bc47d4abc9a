# mypy: disable-error-code="untyped-decorator"
"""The plane kernels: bit-matrix transposes over 64-byte plane rows, with the pages verified on the way.

A block is 512 weights of w bits, seen as w rows of 512/w words: row r holds weights r*512/w to (r+1)*512/w - 1.  Plane
p of the block is one row of the same shape, whose word j carries in its bit r the bit p of weight (r, j): the transpose
of the w x w bit matrix under each word j.  It is made in log2(w) stages of masked swaps (H. S. Warren, Hacker's
Delight, 2nd edition, section 7-3), two stages to a pass, on 64-bit words of which each holds 64/w words side by side,
so that every pass is a plain loop over contiguous arrays that the compiler turns into vector instructions.  Eight
blocks are staged in the first-level cache so that planes far apart are read and written in runs.

Reading goes page by page (64 blocks): the checksums of the page's planes are compared, then its blocks are unpacked
while the planes are still in the cache.  All arrays are uint64 views; positions are in 8-byte words.  Everything
releases the GIL.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from tierform.store.elements import PAGE_BLOCKS
from tierform.store.hashing import ROW, hash_rows
from tierform.store.rounding import FILL_MIDPOINT, mend

TILE = 8  # blocks staged at once
_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


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
def _last_stages(source: Any, source_step: Any, target: Any, target_step: Any, first: Any, rows: Any) -> None:
    """Swap at distances 2 and 1 from row `first` on, the rows lying `source_step` and `target_step` words apart."""
    for row in range(first, rows, 4):
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
                _last_stages(middle, ROW, tile[b * ROW :], TILE * ROW, 0, width)
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
        planes: Any, fill: Any, exponent_bits: Any, infinities: Any, words: Any, expected: Any, present: Any,
    ) -> Any:  # fmt: skip
        middle = np.empty(size, np.uint64)
        tile = np.zeros(TILE * size, np.uint64)  # row r of slot b at (r * TILE + b) * ROW
        seen = np.empty(ROW, np.uint64)
        filled = np.full(TILE, -1, np.int64)  # the precision for which a slot's missing rows are filled
        settled = np.int64(-1)  # the precision for which the constant rows of `middle` stand
        done = 0
        while done < blocks:
            page = (first_block + done) // PAGE_BLOCKS
            end = min(blocks, (page + 1) * PAGE_BLOCKS - first_block)
            if expected.shape[0] > 0:
                depth = np.int64(bits[done * bits_step])
                for b in range(done + 1, end):
                    depth = max(depth, np.int64(bits[b * bits_step]))
                rows = min(PAGE_BLOCKS, present - page * PAGE_BLOCKS)
                for p in range(depth):
                    found = hash_rows(stored, starts[p] + page * PAGE_BLOCKS * block_step, block_step, rows)
                    if found != expected[p, page - first_block // PAGE_BLOCKS]:
                        return (p << 32) + page
            for first in range(done, end, TILE):
                count = min(TILE, end - first)
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
                    kept = filled[b]
                    constant = (planes - kept) // 4 * 4 if kept == settled else 0  # rows without a plane that was read
                    settled = kept
                    _last_stages(tile[b * ROW :], TILE * ROW, middle, ROW, constant, width)
                    if width == 8:
                        _first_stages_8(middle, target)
                    elif width == 16:
                        _first_stages_16(middle, target)
                    elif width == 32:
                        _first_stages_32(middle, target)
                    else:
                        _first_stages_64(middle, target)
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
                            mend(target, width, kept, exponent_bits, infinities, fill)
            done = end
        return -1

    return unpack


_UNCHECKED = np.empty((0, 0), np.uint64)


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
    expected: Any = _UNCHECKED,
    present: int = 0,
) -> int:
    """Read blocks ``first_block`` on into `words`, block i at the precision ``bits[i * bits_step]``.

    `starts[p]` is where plane p's row of block 0 lies.  Missing planes are zero; with `fill` FILL_MIDPOINT the first
    missing plane is all ones, the middle of the interval that the planes read leave open.  A block at 0 bits is zero.
    `exponent_bits` > 0 keeps a fill from making an infinity or a NaN out of a number, and the reverse.

    With `expected` [plane, page], the checksums of the pages from ``first_block // 64`` on, no page is unpacked before
    all its planes that are needed match; `present` is the number of blocks that lie there, the last page's rows.
    -1, or (plane << 32) + page of the first that does not match.
    """
    found: int = unpack_kernel(width)(
        stored, starts, block_step, first_block, blocks, bits, bits_step, planes, fill, exponent_bits, infinities,
        words, expected, present,
    )  # fmt: skip
    return found
