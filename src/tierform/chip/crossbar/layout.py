"""How a weight matrix lies in crossbars: one law for its cost, its placement and its values.

A (k, n) matrix, k along rows and n along columns, of weights of s cells each takes, with R rows and C columns and g
guard columns beside each weight,

    slices beside each other:          ceil(k / R) * ceil(n / floor(C / (s + g)))
    a slice in each of s crossbars:    s * ceil(k / R) * ceil(n / floor(C / (1 + g)))

A weight's cells never continue in the next crossbar: one shift-and-add, and one scale, finishes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CrossbarLayout:
    """Crossbars of `rows` x `columns` cells that hold weights of `cells` cells each."""

    rows: int
    columns: int
    cells: int
    slices: Literal["columns", "crossbars"] = "columns"
    guard_columns: int = 0

    @property
    def columns_per_weight(self) -> int:
        """Columns that a weight takes in one crossbar, guard columns included."""
        return (self.cells if self.slices == "columns" else 1) + self.guard_columns

    @property
    def stacked(self) -> int:
        """Crossbars over which the cells of one weight are spread."""
        return 1 if self.slices == "columns" else self.cells

    @property
    def weights_per_row(self) -> int:
        """Weights beside each other in one crossbar; 0 when not even one fits."""
        return self.columns // self.columns_per_weight

    def across(self, n: int) -> int:
        """Crossbars beside each other for n weights, those of all slices."""
        return self.stacked * -(-n // self.weights_per_row)

    def crossbars(self, k: int, n: int) -> int:
        """Crossbars of a (k, n) matrix."""
        return -(-k // self.rows) * self.across(n)
