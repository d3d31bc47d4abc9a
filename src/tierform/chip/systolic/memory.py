"""DRAM words and stalls of one product behind double-buffered SRAM, in closed form.

Each operand has its own SRAM; half of it holds what is in use, half is being filled (or emptied).  What a dataflow
reuses is kept when it fits in the half in use, and fetched again for every fold that needs it when it does not.
Either the column folds or the row folds run in the outer loop; the order with less traffic is taken.  Partial sums
that do not fit leave and come back.  With a bandwidth, a fold waits for its transfer: the first fetch and the last
write stand alone, and between them the longer of computing and moving counts (uniform over the folds).
"""

from __future__ import annotations

from dataclasses import dataclass

from tierform.chip.systolic.folds import fold_count, layout


@dataclass(frozen=True, slots=True)
class Buffers:
    """SRAM in words: inputs, weights, outputs (both halves)."""

    inputs: int
    weights: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Moved:
    """DRAM words by operand; `output_reads` are partial sums that come back."""

    inputs: int
    weights: int
    output_writes: int
    output_reads: int

    @property
    def words(self) -> int:
        """All of it."""
        return self.inputs + self.weights + self.output_writes + self.output_reads


def traffic(dataflow: str, m: int, n: int, k: int, rows: int, columns: int, buffers: Buffers) -> Moved:
    """DRAM words of an (m, k) x (k, n) product; see the module's text."""
    orders = [_ordered(dataflow, m, n, k, rows, columns, buffers, outer) for outer in ("columns", "rows")]
    return min(orders, key=lambda moved: moved.words)


def _ordered(dataflow: str, m: int, n: int, k: int, rows: int, columns: int, buffers: Buffers, outer: str) -> Moved:
    sr, sc, _ = layout(dataflow, m, n, k)
    rf, cf = -(-sr // rows), -(-sc // columns)
    inputs, weights, outputs = buffers.inputs // 2, buffers.weights // 2, buffers.outputs // 2
    width, height = min(sc, columns), min(sr, rows)
    by_columns = outer == "columns"
    if dataflow == "os":
        weight_reuse = k * width if by_columns else k * n
        input_reuse = m * k if by_columns else height * k
        return Moved(
            m * k * (1 if input_reuse <= inputs else cf),
            k * n * (1 if weight_reuse <= weights else rf),
            m * n,
            0,
        )
    streamed, other = (m, n) if dataflow == "ws" else (n, m)
    reused = streamed * (k if by_columns else height)
    fits = reused <= (inputs if dataflow == "ws" else weights)
    again = streamed * k * (1 if fits else cf)
    once = other * k
    partial = streamed * (width if by_columns else other)
    spills = partial > outputs
    writes, back = (m * n * rf, m * n * (rf - 1)) if spills else (m * n, 0)
    return Moved(again, once, writes, back) if dataflow == "ws" else Moved(once, again, writes, back)


@dataclass(frozen=True, slots=True)
class BoundedCycles:
    """Cycles of a product behind a bandwidth."""

    total_cycles: int
    stall_cycles: int
    prefetch_cycles: int


def bounded_cycles(
    dataflow: str,
    m: int,
    n: int,
    k: int,
    rows: int,
    columns: int,
    compute_cycles: int,
    moved: Moved,
    words_per_cycle: tuple[float, float, float],
) -> BoundedCycles:
    """Total and stalled cycles when inputs, weights and outputs come over interfaces of so many words a cycle.

    The prefetch of the first fold's operands precedes cycle 0 and is not part of the total, as for a double buffer that
    was filled during the layer before.
    """
    folds = fold_count(dataflow, m, n, k, rows, columns)
    by_operand = (
        moved.inputs / words_per_cycle[0],
        moved.weights / words_per_cycle[1],
        (moved.output_writes + moved.output_reads) / words_per_cycle[2],
    )
    transfer = max(by_operand)
    first = max(by_operand[0], by_operand[1]) / folds
    hidden = max(float(compute_cycles), transfer)
    total = int(-(-hidden // 1))
    return BoundedCycles(total, total - compute_cycles, int(-(-first // 1)))
