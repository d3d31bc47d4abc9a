"""Which tiles the links of a chip join, as pairs of tile numbers: planar ones by kind, vertical and interposer ones.

Tiles are counted die by die, row by row.  A torus is folded rings; express links go on over `span` tiles in every row
and column (Dally, IEEE Trans. Computers 40, 1991); a small world's shortcuts are drawn with probability d^-exponent for
two tiles that are d tiles apart (Kleinberg, Nature 406, 2000).  Every pair is a link in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tierform.chip.chip_file import DieFile, LinksFile, NetworkFile, neighbours

Pairs = list[tuple[int, int]]


def first_tiles(dies: Sequence[DieFile]) -> list[int]:
    """Number of each die's first tile, and how many there are in all."""
    first = [0]
    for die in dies:
        first.append(first[-1] + die.grid[0] * die.grid[1])
    return first


def planar_pairs(dies: Sequence[DieFile], links: LinksFile) -> Pairs:
    """The tiles that links on the dies join, each pair once."""
    if links.kind == "list":
        return [(a, b) for a, b in links.list or ()]
    found: Pairs = []
    for index, (first, die) in enumerate(zip(first_tiles(dies), dies, strict=False)):
        found += [(first + a, first + b) for a, b in _on_a_die(die.grid, links, index)]
    return found


def _on_a_die(grid: tuple[int, int], links: LinksFile, die: int) -> Pairs:
    columns, rows = grid
    steps = [1] if links.kind != "express" or links.span is None else [1, links.span]
    found = [
        (y * columns + x, y * columns + x + step * stride)
        for step in steps
        for axis, stride in ((0, 1), (1, columns))
        for y in range(rows)
        for x in range(columns)
        if (x, y)[axis] + step < grid[axis] and (step == 1 or (x, y)[axis] % step == 0)
    ]
    if links.kind == "torus":
        found += [(y * columns + columns - 1, y * columns) for y in range(rows) if columns > 2]
        found += [((rows - 1) * columns + x, x) for x in range(columns) if rows > 2]
    if links.kind == "small-world":
        first, second, weight = _far_apart(grid, links.exponent)
        rng = np.random.default_rng([links.seed, die])
        drawn = rng.choice(len(first), size=links.shortcuts or 0, replace=False, p=weight / weight.sum())
        found += list(zip(first[drawn].tolist(), second[drawn].tolist(), strict=True))
    return found


def possible_shortcuts(grid: tuple[int, int]) -> int:
    """Pairs of a die's tiles that are no neighbours."""
    columns, rows = grid
    tiles = columns * rows
    return tiles * (tiles - 1) // 2 - rows * (columns - 1) - columns * (rows - 1)


def _far_apart(
    grid: tuple[int, int], exponent: float
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray]:
    tile = np.arange(grid[0] * grid[1])
    place = np.stack([tile % grid[0], tile // grid[0]], axis=1)
    apart = np.abs(place[:, None] - place[None]).sum(axis=2)
    first, second = np.nonzero(np.triu(apart > 1))
    return first, second, apart[first, second].astype(float) ** -exponent


def vertical_pairs(dies: Sequence[DieFile], network: NetworkFile) -> Pairs:
    """The tiles over each other that vertical links join."""
    spec, (columns, rows) = network.vertical, dies[0].grid
    if spec is None:
        return []
    layer = columns * rows
    return [
        (tier * layer + y * columns + x, (tier + 1) * layer + y * columns + x)
        for x, y, tier in pillars((columns, rows, len(dies)), spec.at, spec.every)
    ]


def pillars(
    shape: tuple[int, int, int], at: Sequence[tuple[int, ...]] | None, every: int
) -> list[tuple[int, int, int]]:
    """Column, row and lower tier of each vertical link; a place without a tier has one from every tier to the next."""
    columns, rows, tiers = shape
    places: Sequence[tuple[int, ...]] = (
        at if at is not None else [(x, y) for x in range(0, columns, every) for y in range(0, rows, every)]
    )
    return sorted(
        (place[0], place[1], tier) for place in places for tier in (range(tiers - 1) if len(place) == 2 else place[2:])
    )


def interposer_pairs(dies: Sequence[DieFile], network: NetworkFile) -> Pairs:
    """The tiles of neighbouring chiplets that interposer links join, spread evenly along both facing edges."""
    bridge = network.interposer
    if bridge is None:
        return []
    if bridge.at is not None:
        return [(a, b) for a, b in bridge.at]
    first, found = first_tiles(dies), []
    for one, other, axis in neighbours(dies):
        edges = dies[one].grid[1 - axis], dies[other].grid[1 - axis]
        count = max(1, min(edges) // bridge.every)
        for link in range(count):
            here, there = (int((link + 0.5) * edge / count) for edge in edges)
            last = dies[one].grid[axis] - 1
            ends = ((last, here), (0, there)) if axis == 0 else ((here, last), (there, 0))
            found.append(
                tuple(first[die] + y * dies[die].grid[0] + x for die, (x, y) in zip((one, other), ends, strict=True))
            )
    return [(a, b) for a, b in found]


def is_plain(network: NetworkFile) -> bool:
    """Whether the links of each die are a mesh whose routes are found by rule."""
    return network.links.kind == "mesh" and network.links.routes is None
