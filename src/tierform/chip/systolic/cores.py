"""One product on several arrays: how it is cut, and how long the slowest array takes.

Products (heads, experts) are dealt out whole.  With fewer products than arrays, each product is cut into a grid of
parts along m and n (`m_parts` x `n_parts` arrays, each with all of k, so nothing has to be added up between arrays).
Folds of one product may instead be dealt out one by one; partial sums then meet in the shared output SRAM.  The
fastest of these is taken.  Cutting along k between arrays is given by `k_parts` on request; its partial sums
(m * n words for each part but one) have to be moved and added.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tierform.chip.systolic.folds import OVERLAPS, Overlap, fold_count, layout, output_cycles, stationary_cycles


@dataclass(frozen=True, slots=True)
class Cut:
    """How a product is cut over arrays, and the cycles of the whole."""

    m_parts: int
    n_parts: int
    k_parts: int
    cycles: int
    reduction_words: int = 0


@lru_cache(maxsize=4096)
def best_cut(
    dataflow: str, m: int, n: int, k: int, products: int, units: int, rows: int, columns: int, overlap: Overlap
) -> Cut:
    """The fastest cut of `products` equal products over `units` equal arrays."""
    how = OVERLAPS.index(overlap)
    closed = output_cycles if dataflow == "os" else stationary_cycles
    sr, sc, t = layout(dataflow, m, n, k)
    best = Cut(1, 1, 1, -(-products // units) * closed(how, sr, sc, t, rows, columns))
    if units == 1:
        return best
    folds = fold_count(dataflow, m, n, k, rows, columns)
    single = closed(how, min(sr, rows), min(sc, columns), t, rows, columns)
    dealt = -(-products * folds // units) * single
    if dealt < best.cycles:
        best = Cut(1, 1, 1, dealt)
    arrays = units // products
    for m_parts in range(1, arrays + 1):
        n_parts = arrays // m_parts
        if m_parts > m or (m_parts < arrays and n_parts == arrays // (m_parts + 1)):
            continue  # the next value of m_parts cuts finer with as many parts of n
        n_parts = min(n_parts, n)
        part = layout(dataflow, -(-m // m_parts), -(-n // n_parts), k)
        cycles = closed(how, *part, rows, columns)
        if cycles < best.cycles:
            best = Cut(m_parts, n_parts, 1, cycles)
    return best


def cut_along_k(dataflow: str, m: int, n: int, k: int, k_parts: int, rows: int, columns: int, overlap: Overlap) -> Cut:
    """A product cut into `k_parts` along k, one array each; the partial sums are moved and added afterwards."""
    closed = output_cycles if dataflow == "os" else stationary_cycles
    part = layout(dataflow, m, n, -(-k // k_parts))
    cycles = closed(OVERLAPS.index(overlap), *part, rows, columns)
    return Cut(1, 1, k_parts, cycles, m * n * (k_parts - 1))
