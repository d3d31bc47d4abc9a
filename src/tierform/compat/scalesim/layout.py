"""SCALE-Sim 3's layout files: in which order the operands lie in the lines of an SRAM, and so which banks conflict.

A line of the SRAM holds as many words as its bandwidth and is spread over the banks.  A layout cuts each operand into
blocks (the intraline factors), and orders first the blocks and then the elements within them (the interline and the
intraline order).  Two properties of SCALE-Sim are kept, since its users compare with it: the first line of the file
holds for every layer, and the place of a word in its line is its place in a hash set of the line's words.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tierform.arrays import Ints
from tierform.errors import fail
from tierform.files import read_text

_CELLS = 20
_MOST_WORDS = 50_000_000


@dataclass(frozen=True, slots=True)
class Layout:
    """The first layer's line of a layout file: block sizes and orders of the inputs (3 axes) and weights (4 axes)."""

    file: str
    ifmap_factors: tuple[int, ...]
    ifmap_order: tuple[int, ...]
    filter_factors: tuple[int, ...]
    filter_order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """An operand in its SRAM: line and place in the line by address, words of a line, lines that are fetched."""

    line_of: Ints
    place_of: Ints
    words: int
    count: int
    fetched_words: int


def read_layout(path: Path | str) -> Layout:
    """A layout file; TierformError with the line of what is wrong."""
    file = str(path)
    rows = [(number, line) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
    if len(rows) < 2:
        fail("a head line and at least one layer are needed", file=file)
    number, text = rows[1]
    cells = [cell.strip() for cell in text.split(",")]
    cells = cells[1:-1] if cells[-1] == "" else cells[1:]
    if len(cells) != _CELLS:
        fail(f"a layout has a name and {_CELLS} numbers", file=file, line=number, value=len(cells))
    for cell in cells:
        if not (cell.isascii() and cell.isdigit() and len(cell) < 8):
            fail("a whole number is needed", file=file, line=number, value=cell)
    v = [int(cell) for cell in cells]
    ifmap, weights = (v[0], v[1], v[4]), (v[5], v[4], v[2], v[3])
    if min(*ifmap, *weights) < 1:
        fail("the intraline factors must be at least 1", file=file, line=number)
    orders = ((*v[9:12], *v[6:9]), (*v[16:20], *v[12:16]))
    for what, order in zip(("input", "weight"), orders, strict=True):
        if sorted(order) != list(range(len(order))):
            fail(f"the {what}s' orders must name each axis once", file=file, line=number, value=order)
    return Layout(file, ifmap, orders[0], weights, orders[1])


def ifmap_lines(layout: Layout, shape: tuple[int, int, int], words: int) -> Lines:
    """The inputs (height, width, channels) in lines of `words`; addresses count channels first."""
    if np.prod(layout.ifmap_factors) > words:
        _refuse(layout, "IFMAP", layout.ifmap_factors, words, "at most")
    return _lines(np.arange(int(np.prod(shape))).reshape(shape), layout.ifmap_factors, layout.ifmap_order, words)


def filter_lines(layout: Layout, shape: tuple[int, int, int, int], words: int, offset: int) -> Lines:
    """The weights (filters, channels, height, width) in lines of `words`; addresses as (element, filter).

    `offset` is added to the addresses that are hashed: it decides places where words of a line collide.
    """
    if np.prod(layout.filter_factors) != words:
        _refuse(layout, "filter", layout.filter_factors, words, "exactly")
    filters, size = shape[0], int(np.prod(shape[1:]))
    # There an address is filter x elements + element; here it is element x filters + filter.
    theirs = np.arange(filters * size)
    ours = theirs % size * filters + theirs // size
    return _lines(
        ours.reshape(shape), layout.filter_factors, layout.filter_order, words, (theirs + offset).reshape(shape)
    )


def _refuse(layout: Layout, operand: str, factors: tuple[int, ...], words: int, how: str) -> None:
    fail(
        f"the {operand}'s intraline factors must multiply to {how} the {words} words of its SRAM's bandwidth",
        file=layout.file,
        value=" x ".join(map(str, factors)),
    )


def _lines(
    addresses: Ints, factors: tuple[int, ...], order: tuple[int, ...], words: int, keys: Ints | None = None
) -> Lines:
    """Pad to whole blocks, put blocks and elements in order, and deal the words out to lines."""
    axes = addresses.ndim
    pad = [(0, -size % factor) for size, factor in zip(addresses.shape, factors, strict=True)]
    if np.prod([size + extra for size, (_, extra) in zip(addresses.shape, pad, strict=True)]) > _MOST_WORDS:
        fail(f"an operand of more than {_MOST_WORDS} words with its padding is not laid out")

    def ordered(values: Ints) -> Ints:
        padded = np.pad(values, pad, constant_values=-1)
        split = [part for size, factor in zip(padded.shape, factors, strict=True) for part in (size // factor, factor)]
        blocks = padded.reshape(split).transpose([*range(0, 2 * axes, 2), *range(1, 2 * axes, 2)])
        flat: Ints = blocks.transpose(order).reshape(-1)
        return flat

    flat = ordered(addresses)
    there = flat >= 0
    named = flat[there]
    hashed = named if keys is None else ordered(keys)[there]
    line_of = np.full(addresses.size, -1, np.int64)
    place_of = np.zeros(addresses.size, np.int64)
    line_of[named] = np.arange(named.size) // words
    for start in range(0, named.size, words):
        part = hashed[start : start + words].tolist()
        # A set built word by word, as there.
        line: set[int] = set()
        for word in part:
            line.add(word)
        at = {word: place for place, word in enumerate(line)}
        place_of[named[start : start + words]] = [at[word] for word in part]
    return Lines(line_of, place_of, words, named.size // words + 1, flat.size)
