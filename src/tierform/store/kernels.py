# mypy: disable-error-code="untyped-decorator, no-any-return"
"""The plane kernels: bit-matrix transposes over 64-byte plane rows, with the pages verified on the way.

A block is 512 weights of w bits, seen as w rows of 512/w words: row r holds weights r*512/w to (r+1)*512/w - 1.  Plane
p of the block is one row of the same shape, whose word j carries in its bit r the bit p of weight (r, j): the transpose
of the w x w bit matrix under each word j (:mod:`tierform.store.transpose`), on 64-bit words of which each holds 64/w
words side by side.  Eight blocks are staged in the first-level cache so that planes far apart are read and written in
runs.

Reading goes page by page (64 blocks): the checksums of the page's planes are compared, then its blocks are unpacked
while the planes are still in the cache.  All arrays are uint64 views; positions are in 8-byte words.  Everything
releases the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numba import njit

from tierform.arrays import Bits, Bytes, Ints
from tierform.store.elements import PAGE_BLOCKS
from tierform.store.hashing import ROW, hash_rows
from tierform.store.rounding import FILL_MIDPOINT, mend
from tierform.store.transpose import VECTOR_B, put_row, transpose

TILE = 8  # blocks staged at once
_ONES = np.uint64(0xFFFFFFFFFFFFFFFF)


# The kernels below are made for one width each.  They close over numbers only, so that their compiled form can be kept
# on disk, and a branch on such a number is decided before compilation.


@lru_cache(maxsize=8)
def pack_kernel(width: int) -> Callable[..., None]:
    """The function that packs words of `width` bits, compiled at its first call (and kept on disk)."""
    size = width * ROW

    @njit(cache=True, nogil=True)
    def pack(words: Bits, planes: int, stored: Bits, start: int, plane_step: int, block_step: int, blocks: int) -> None:
        tile = np.empty(TILE * size, np.uint64)  # row r of slot b at (r * TILE + b) * ROW
        for first in range(0, blocks, TILE):
            count = min(TILE, blocks - first)
            for b in range(count):
                transpose(width, words, (first + b) * size, ROW, tile, b * ROW, TILE * ROW)
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
    words: Bits, width: int, planes: int, stored: Bits, start: int, plane_step: int, block_step: int, blocks: int
) -> None:
    """Write the planes of `blocks` blocks of `words` into `stored`, most significant first.

    `planes` bits of each weight are kept.  The row of plane p (0 the most significant) of block b lies at
    ``start + p*plane_step + b*block_step``.
    """
    pack_kernel(width)(words, planes, stored, start, plane_step, block_step, blocks)


@lru_cache(maxsize=8)
def unpack_kernel(width: int) -> Callable[..., int]:
    """The function that unpacks words of `width` bits, compiled at its first call (and kept on disk)."""
    size = width * ROW

    @njit(cache=True, nogil=True)
    def unpack(
        stored: Bits,
        starts: Ints,
        block_step: int,
        first_block: int,
        blocks: int,
        bits: Bytes,
        bits_step: int,
        planes: int,
        fill: int,
        exponent_bits: int,
        infinities: int,
        words: Bits,
        expected: Bits,
        present: int,
        past: bool,
    ) -> int:
        past = past and words.ctypes.data % VECTOR_B == 0
        turned = np.empty(size, np.uint64)
        tile = np.zeros(TILE * size, np.uint64)  # row r of slot b at (r * TILE + b) * ROW
        seen = np.empty(ROW, np.uint64)
        filled = np.full(TILE, -1, np.int64)  # the precision for which a slot's missing rows are filled
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
                    kept = filled[b]
                    at = (first + b) * size
                    if past:
                        transpose(width, tile, b * ROW, TILE * ROW, turned, 0, ROW)
                        for r in range(width):
                            put_row(words, at + r * ROW, turned, r * ROW)
                    else:
                        transpose(width, tile, b * ROW, TILE * ROW, words, at, ROW)
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
                            block = words[at : at + size]
                            mend(block, width, kept, exponent_bits, infinities, fill)
            done = end
        return -1

    return unpack


_UNCHECKED = np.empty((0, 0), np.uint64)


def unpack_blocks(
    stored: Bits,
    starts: Ints,
    block_step: int,
    first_block: int,
    blocks: int,
    bits: Bytes,
    bits_step: int,
    width: int,
    planes: int,
    fill: int,
    exponent_bits: int,
    infinities: int,
    words: Bits,
    expected: Bits = _UNCHECKED,
    present: int = 0,
    past_caches: bool = False,
) -> int:
    """Read blocks ``first_block`` on into `words`, block i at the precision ``bits[i * bits_step]``.

    `starts[p]` is where plane p's row of block 0 lies.  Missing planes are zero; with `fill` FILL_MIDPOINT the first
    missing plane is all ones, the middle of the interval that the planes read leave open.  A block at 0 bits is zero.
    `exponent_bits` > 0 keeps a fill from making an infinity or a NaN out of a number, and the reverse.

    With `expected` [plane, page], the checksums of the pages from ``first_block // 64`` on, no page is unpacked before
    all its planes that are needed match; `present` is the number of blocks that lie there, the last page's rows.
    -1, or (plane << 32) + page of the first that does not match.  With `past_caches` the words go to memory directly
    (if they begin on a vector): faster for more than the caches keep.
    """
    found: int = unpack_kernel(width)(
        stored,
        starts,
        block_step,
        first_block,
        blocks,
        bits,
        bits_step,
        planes,
        fill,
        exponent_bits,
        infinities,
        words,
        expected,
        present,
        past_caches,
    )
    return found
