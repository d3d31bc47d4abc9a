"""How long a systolic array takes for one matrix product, and what it reads and writes: closed forms.

An (m, k) x (k, n) product runs on R x C processing elements in folds.  A dataflow keeps one operand in place:
weights (`ws`), outputs (`os`) or inputs (`is`); the product's three sizes become `spatial_rows` and `spatial_columns`
(laid over the array, in ceil(spatial_rows / R) * ceil(spatial_columns / C) folds) and `time_steps` (streamed).
A fold that uses r rows and c columns takes, for T streamed steps:

- ws, is: r cycles to shift the stationary operand in, then R + c + T - 2 until its last sum leaves the bottom row;
- os: T + r + c - 2 cycles until its last element is done, then R to shift the outputs out through the bottom row.

`overlap` says what of it the hardware hides: `serial` nothing; `double-buffered` the shift of one fold behind the
computation of another (a second register in each element); `pipelined` also the wavefronts: a fold follows the one
before it after max(T, shift) cycles.  Edge folds count with the rows and columns that they use.  All three are checked
in the tests against a simulation of every element and register.  The functions take and return plain integers, and
are compiled as they stand for the vectorized call in :mod:`tierform.chip.systolic.batch`.

Sources: Kung, Why Systolic Architectures, 1982; Jouppi et al., ISCA 2017 (double-buffered weights); Samajdar et al.,
ISPASS 2020 (the three dataflows and folds).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dataflow = Literal["ws", "os", "is"]
Overlap = Literal["serial", "double-buffered", "pipelined"]
DATAFLOWS: tuple[Dataflow, ...] = ("ws", "os", "is")
OVERLAPS: tuple[Overlap, ...] = ("serial", "double-buffered", "pipelined")
SERIAL, DOUBLE_BUFFERED, PIPELINED = range(3)


def layout(dataflow: str, m: int, n: int, k: int) -> tuple[int, int, int]:
    """The product's sizes as (spatial_rows, spatial_columns, time_steps)."""
    if dataflow == "ws":
        return k, n, m
    if dataflow == "os":
        return m, n, k
    return k, m, n


def stationary_cycles(overlap: int, sr: int, sc: int, t: int, rows: int, columns: int) -> int:
    """Cycles of a weight- or input-stationary product, first load to last output; `overlap` indexes OVERLAPS."""
    rf, cf = -(-sr // rows), -(-sc // columns)
    first = min(sr, rows)
    compute = rf * cf * (rows + t - 2) + rf * sc
    if overlap == 0:
        return compute + cf * sr
    if overlap == 1:
        return first + compute
    last_row, last_column = sr - (rf - 1) * rows, sc - (cf - 1) * columns
    per_column = (rf - 1) * max(t, rows) + max(t, last_row)
    start = first - max(t, first) + cf * per_column
    end = start + rows + last_column + t - 2
    return max(end, end - per_column + columns - last_column) if cf > 1 else end


def output_cycles(overlap: int, sr: int, sc: int, t: int, rows: int, columns: int) -> int:
    """Cycles of an output-stationary product until its last output has left; `overlap` indexes OVERLAPS."""
    rf, cf = -(-sr // rows), -(-sc // columns)
    if overlap == 0:
        return rf * cf * (t - 2 + rows) + cf * sr + rf * sc
    last_row, last_column = sr - (rf - 1) * rows, sc - (cf - 1) * columns
    if overlap == 1:
        full = min(sr, rows) + min(sc, columns)
        total = t + full - 2 - max(t + full - 2, rows)
        total += (rf - 1) * (cf - 1) * max(t + rows + columns - 2, rows)
        total += (cf - 1) * max(t + last_row + columns - 2, rows)
        total += (rf - 1) * max(t + rows + last_column - 2, rows)
        return total + max(t + last_row + last_column - 2, rows) + rows
    interval = max(t, rows)
    end = (rf * cf - 1) * interval + t + last_row + last_column - 2 + rows
    return max(end, end - rf * interval + columns - last_column) if cf > 1 else end


def cycles(dataflow: str, m: int, n: int, k: int, rows: int, columns: int, overlap: Overlap = "double-buffered") -> int:
    """Cycles of an (m, k) x (k, n) product on one array, from its first load to its last output."""
    sr, sc, t = layout(dataflow, m, n, k)
    how = OVERLAPS.index(overlap)
    return (output_cycles if dataflow == "os" else stationary_cycles)(how, sr, sc, t, rows, columns)


@dataclass(frozen=True, slots=True)
class Accesses:
    """SRAM words by operand: inputs and weights read, outputs (or partial sums) written, partial sums read back."""

    inputs: int
    weights: int
    output_writes: int
    partial_reads: int


def accesses(dataflow: str, m: int, n: int, k: int, rows: int, columns: int) -> Accesses:
    """SRAM accesses of an (m, k) x (k, n) product.

    Partial sums of the folds along k are accumulated in the output SRAM (ws, is): each but the first fold reads them.
    """
    if dataflow == "ws":
        rf, cf = -(-k // rows), -(-n // columns)
        return Accesses(m * k * cf, k * n, m * n * rf, m * n * (rf - 1))
    if dataflow == "os":
        rf, cf = -(-m // rows), -(-n // columns)
        return Accesses(m * k * cf, k * n * rf, m * n, 0)
    rf, cf = -(-k // rows), -(-m // columns)
    return Accesses(m * k, k * n * cf, m * n * rf, m * n * (rf - 1))


def fold_count(dataflow: str, m: int, n: int, k: int, rows: int, columns: int) -> int:
    """Folds of an (m, k) x (k, n) product."""
    sr, sc, _ = layout(dataflow, m, n, k)
    return -(-sr // rows) * -(-sc // columns)


def mapping_efficiency(dataflow: str, m: int, n: int, k: int, rows: int, columns: int) -> float:
    """Mean share of the elements that a fold uses."""
    sr, sc, _ = layout(dataflow, m, n, k)
    return sr * sc / (-(-sr // rows) * rows * -(-sc // columns) * columns)


@dataclass(frozen=True, slots=True)
class Sparsity:
    """N:M weight sparsity: of every `block` weights along k, at most `kept` are not zero, at places kept as indices."""

    kept: int
    block: int

    def depth(self, k: int) -> int:
        """Rows of the packed weight matrix of `k` rows."""
        whole, rest = divmod(k, self.block)
        return whole * self.kept + min(rest, self.kept)

    @property
    def index_bits(self) -> int:
        """Bits that tell the place of a kept weight in its block."""
        return max(0, (self.block - 1).bit_length()) if self.kept < self.block else 0


DENSE = Sparsity(1, 1)
