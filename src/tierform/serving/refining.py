"""Tables that get points where a straight line would be wrong, for functions with steps in them.

Kernels have steps: blocks of keys are shared among processors in whole numbers, queries fill whole tiles.  A table
over two axes therefore has points of its own in every row, and rows where two of them do not tell what lies between.
A point or row is added where the middle is off by more than `TOLERANCE` of the step in which it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Place = tuple[int, int]
TOLERANCE = 0.001
MOST_ROWS, MOST_POINTS = 256, 160
STRAIGHT = 0.001  # what lies between two points of a line is off by no more than this share of itself


def refined_line(
    grid: Sequence[int],
    made: Callable[[int], Floats],
    watched: int = 1,
    allowed: float = STRAIGHT,
    beside: Callable[[Floats], Floats] | None = None,
) -> tuple[list[int], Floats]:
    """A table with points added where what lies between two is off their line: the middle, or 0.3 on either side.

    Of the first `watched` numbers of a point none may be off by more than its share `allowed`, or that share of what
    `beside` tells of the point.
    """
    points = {one: made(one) for one in grid}
    open_ = list(pairwise(grid))
    while open_:
        low, high = open_.pop()
        for share in (0.5, 0.3, 0.7):
            between = low + round(share * (high - low))
            if not low < between < high:
                continue
            found = points.get(between)
            if found is None:
                found = made(between)
            straight = points[low] + (points[high] - points[low]) * (between - low) / (high - low)
            of = np.abs(found[:watched]) if beside is None else beside(found)
            if (np.abs(found - straight)[:watched] > allowed * of).any():
                points[between] = found
                open_ += [(low, between), (between, high)]
                break
    places = sorted(points)
    return places, np.stack([points[one] for one in places])


@dataclass
class RefinedPlane:
    """A table over (row, column), whose rows have points of their own.

    `made` finds values of many places at once, and leaves out what cannot be; `beside_s` tells the seconds of the rest
    of a row's step.  The first `watched` numbers of a value decide where points are added.
    """

    made: Callable[[list[Place]], dict[Place, Floats]]
    beside_s: Callable[[int], float]
    tolerance: float = TOLERANCE
    most_rows: int = MOST_ROWS
    most_points: int = MOST_POINTS
    watched: int = 1
    rows: dict[int, dict[int, Floats]] = field(default_factory=dict)

    def build(self, rows: Sequence[int], columns: Sequence[int]) -> RefinedPlane:
        """Begin with a grid, and add what is missing."""
        self._fill([(row, column) for row in rows for column in columns])
        kept = sorted(self.rows)
        self._refine_columns(kept)
        gaps = [(low, high) for low, high in pairwise(kept) if high - low > 1]
        while gaps and len(self.rows) < self.most_rows:
            middles = {(low + high) // 2: (low, high) for low, high in gaps}
            self._fill([(middle, column) for middle in middles for column in columns])
            gaps, new = [], []
            for middle, (low, high) in middles.items():
                if middle not in self.rows:
                    continue
                if self._bent(low, middle, high, columns):
                    new.append(middle)
                    gaps += [one for one in ((low, middle), (middle, high)) if one[1] - one[0] > 1]
                else:
                    del self.rows[middle]
            self._refine_columns(new)
        return self

    def packed(self) -> Floats:
        """Its numbers, as the compiled loop reads them."""
        rows = sorted(self.rows)
        columns = [sorted(self.rows[row]) for row in rows]
        starts = np.cumsum([0, *(len(some) for some in columns)])
        values = np.concatenate(
            [np.stack([self.rows[r][c] for c in some]) for r, some in zip(rows, columns, strict=True)]
        )
        numbers = np.concatenate([rows, starts, np.concatenate(columns), values.ravel()]).astype(np.float64)
        return np.concatenate([[len(numbers) + 2, len(rows)], numbers])

    def _fill(self, places: list[Place]) -> None:
        for (row, column), value in self.made(places).items():
            self.rows.setdefault(row, {})[column] = value

    def _off(self, row: int, found: Floats, straight: Floats) -> bool:
        """Whether one of the watched numbers is off by more than it may."""
        allowed = self.tolerance * (np.abs(found[: self.watched]) + self.beside_s(row))
        return bool((np.abs(found - straight)[: self.watched] > allowed).any())

    def _refine_columns(self, rows: list[int]) -> None:
        open_ = [(row, low, high) for row in rows for low, high in pairwise(sorted(self.rows[row]))]
        while open_:
            open_ = [one for one in open_ if one[2] - one[1] > 1 and len(self.rows[one[0]]) < self.most_points]
            if open_:
                self._fill([(row, (low + high) // 2) for row, low, high in open_])
            again = []
            for row, low, high in open_:
                middle, known = (low + high) // 2, self.rows[row]
                if middle not in known:
                    continue
                straight = known[low] + (known[high] - known[low]) * (middle - low) / (high - low)
                found = known[middle]
                if self._off(row, found, straight):
                    again += [(row, low, middle), (row, middle, high)]
            open_ = again

    def _bent(self, low: int, middle: int, high: int, columns: Sequence[int]) -> bool:
        share = (middle - low) / (high - low)
        for column in {*columns} & {*self.rows[low]} & {*self.rows[middle]} & {*self.rows[high]}:
            straight = (1 - share) * self.rows[low][column] + share * self.rows[high][column]
            if self._off(middle, self.rows[middle][column], straight):
                return True
        return False
