"""How worn each crossbar is, and how long cells last.

Counts programming passes of every crossbar (a pass writes each cell `writes_per_cell` times).  Lifetime is endurance
over the writes of the most worn crossbar; rotating the places that are rewritten over all crossbars (`levelled`) is the
bound that wear levelling can reach.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tierform.chip.component import Wearing
from tierform.errors import fail


@dataclass
class WearLedger:
    """Writes per cell of each of `crossbars` crossbars, with cells that survive `endurance` writes."""

    crossbars: int
    endurance: float
    cells_each: int
    writes: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        if self.crossbars < 1 or self.endurance <= 0 or self.cells_each < 1:
            fail("a wear ledger needs crossbars, cells and an endurance", value=self.crossbars)
        self.writes = np.zeros(self.crossbars)

    @classmethod
    def of(cls, component: Wearing) -> WearLedger:
        """A fresh ledger for a component whose cells wear."""
        return cls(component.crossbars, component.endurance_writes, component.cells_per_crossbar)

    def write(self, first: int, count: int, writes_per_cell: float = 1.0) -> None:
        """Book a programming pass over `count` crossbars from `first` on."""
        if first < 0 or count < 0 or first + count > self.crossbars:
            fail("these crossbars are not there", value=f"{first} to {first + count - 1} of {self.crossbars}")
        self.writes[first : first + count] += writes_per_cell

    def rotate(self, first: int, count: int, passes: float, writes_per_cell: float = 1.0) -> None:
        """Book `passes` crossbar programmings that take turns over `count` crossbars from `first` on."""
        rounds, rest = divmod(passes, count) if count else (0.0, 0.0)
        self.write(first, count, rounds * writes_per_cell)
        whole = int(rest)
        self.write(first, whole, writes_per_cell)
        if rest > whole:
            self.write(first + whole, 1, (rest - whole) * writes_per_cell)

    @property
    def cell_writes(self) -> float:
        """Cells written in all, each time counted."""
        return float(self.writes.sum()) * self.cells_each

    @property
    def most(self) -> float:
        """Writes per cell of the most worn crossbar."""
        return float(self.writes.max())

    @property
    def used_share(self) -> float:
        """Share of the endurance that the most worn crossbar has used."""
        return self.most / self.endurance

    def runs_left(self) -> float:
        """How many times what is booked can be done in all before the most worn cells wear out."""
        return self.endurance / self.most if self.most else float("inf")

    def lifetime_s(self, seconds_booked: float, *, levelled: bool = False) -> float:
        """Time until cells wear out when what is booked took so many seconds and goes on; infinite without writes."""
        worn = float(self.writes.mean()) if levelled else self.most
        return seconds_booked * self.endurance / worn if worn else float("inf")
