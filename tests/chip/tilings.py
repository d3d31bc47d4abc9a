"""Every tiling of a small product, walked tile by tile: the slow twin of the refetch law."""

from __future__ import annotations

import math
from itertools import permutations, product

Sizes = tuple[int, int, int]


def crossings(sizes: Sizes, tile: Sizes, order: tuple[int, ...], kept: tuple[bool, ...], array: Sizes) -> list[int]:
    """Values of the operands (x, y), (t, x), (t, y) that cross, by walking over all tiles and their folds."""
    has = ((0, 1), (2, 0), (2, 1))
    moved, held = [0, 0, 0], [None, None, None]
    starts = [range(0, size, step) for size, step in zip(sizes, tile, strict=True)]
    for place in product(*(starts[loop] for loop in order)):
        start = dict(zip(order, place, strict=True))
        length = [min(tile[loop], sizes[loop] - start[loop]) for loop in range(3)]
        for operand in range(3):
            a, b = has[operand]
            if kept[operand]:
                now = (start[a], start[b])
                if held[operand] != now:
                    moved[operand] += length[a] * length[b]
                held[operand] = now  # type: ignore[call-overload]
            elif operand == 0:
                moved[0] += length[a] * length[b]
            else:  # streams past every fold of the array along the size that it does not have
                folds = math.ceil(length[1] / array[1]) if operand == 1 else math.ceil(length[0] / array[0])
                moved[operand] += length[a] * length[b] * folds
    return moved


def fewest_bytes(
    sizes: Sizes, array: Sizes, room_B: float, widths: tuple[float, float, float], result: int, final: float
) -> float:
    """The least traffic of any tiling whose kept tiles fit into `room_B` bytes; tiles hold whole folds of the array."""
    x, y, t = sizes
    best = math.inf
    wholes = [
        [min(i * step, size) for i in range(1, math.ceil(size / step) + 1)]
        for size, step in zip(sizes, array, strict=True)
    ]
    for tile in product(*wholes):
        for kept in product((True, False), repeat=3):
            one_fold = tile[0] <= array[0] and tile[1] <= array[1]
            areas = (0 if one_fold else tile[0] * tile[1], tile[2] * tile[0], tile[2] * tile[1])
            if sum(a * w for a, w, k in zip(areas, widths, kept, strict=True) if k) > room_B:
                continue
            for order in permutations(range(3)):
                moved = crossings(sizes, tile, order, kept, array)  # type: ignore[arg-type]
                whole = (x * y, t * x, t * y)[result]
                bytes_in = sum(moved[o] * widths[o] for o in range(3) if o != result)
                partial = 2 * (moved[result] - whole) * widths[result]
                best = min(best, bytes_in + partial + whole * final)
    return best
