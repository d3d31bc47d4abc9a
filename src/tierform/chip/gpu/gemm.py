"""How long a matrix product takes on a GPU: tiles, waves and split-K, chosen as a library's heuristic would.

The output is cut into tiles; a tile (times its share of k, when k is split) is one block of threads.  Blocks run in
rounds over the multiprocessors, `resident` at a time on each.  A round lasts the longest of

- arithmetic: resident * area * k / (peak per multiprocessor * efficiency) * (1 + half_tile^2 / (resident * area)):
  few independent accumulators leave the tensor cores waiting;
- feeding operands: (rows + columns) * k * bytes / (operand_feed * peak per multiprocessor);
- the chain of k steps, `step` cycles for each k;

plus a prologue and the writing of the tile (`epilogue` bytes a cycle).  Beside this runs the traffic to memory: what
the L2 does not hold, and panels read again when a wave's operands exceed it; hits fall off as 1 / (1 + (L2/set)^4).
The two overlap as (a^p + b^p)^(1/p).  Split k adds a reduction kernel and the partial sums' traffic.  The library does
not choose the fastest candidate but the one its own, simpler estimate favours: the same formula with the `chosen_`
parameters picks, the others time it.  With `tile_step` a tile shrinks to the shape in such steps (Hopper's kernels).

A board holds the arithmetic of a short kernel at its boost clock and that of a long one at `sustained_efficiency` of
the peak, which its power allows: what a kernel of length t lacks to that rate is added by the share
t / (t + `boost_time`).

Limits: no alignment penalties, one library version.  The
model is ours; tile and wave quantization: NVIDIA, Matrix Multiplication Background User's Guide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tierform.chip.gpu.parameters import ProductParameters, Sheet

Array = NDArray[np.float64]
_SPLITS = np.array([1, 2, 3, 4, 6, 8], dtype=np.float64)
_WAVES = np.array([1, 2, 3, 4, 6, 8], dtype=np.float64)
_MOST_SPLITS, _SHORTEST_K, _K_STEP, _HIT_SHARPNESS, _MOST_RESIDENT = 64.0, 128.0, 32.0, 4, 4.0
_ACCUMULATOR_B, _OUTPUT_B, _MOST_EFFICIENCY = 4.0, 2.0, 1.15

# The order in which a fit sees the parameters.
FITTED = (
    "tensor_efficiency",
    "memory_efficiency",
    "launch",
    "prologue",
    "operand_feed",
    "reduction",
    "overlap",
    "step",
    "reduction_bandwidth",
    "l2_share",
    "half_tile",
    "epilogue",
    "resident_outputs",
    "chosen_half_tile",
    "chosen_reduction",
    "chosen_reduction_bandwidth",
    "chosen_prologue",
    "miss_latency",
    "miss_step",
    "miss_prologue",
    "smallest_grid",
    "small_grid_reduction",
    "sustained_efficiency",
    "boost_time",
)


@dataclass(frozen=True)
class ProductModel:
    """The model with its parameters as floats, in the order of FITTED, and tiles as (tiles, 1) columns."""

    sheet: Sheet
    values: tuple[float, ...]
    rows: Array
    columns: Array
    tile_step: tuple[int, int] | None

    @classmethod
    def of(cls, sheet: Sheet, parameters: ProductParameters) -> ProductModel:
        """From a data file's section."""
        values = tuple(float(getattr(parameters, name).value) for name in FITTED)
        return cls.with_values(sheet, values, parameters.tiles, parameters.tile_step)

    @classmethod
    def with_values(
        cls, sheet: Sheet, values: tuple[float, ...], tiles: list[tuple[int, int]], step: tuple[int, int] | None
    ) -> ProductModel:
        """From plain values in the order of FITTED (as a fit does)."""
        shape = np.array(tiles, dtype=np.float64)
        return cls(sheet, values, shape[:, :1].copy(), shape[:, 1:].copy(), step)

    def seconds(
        self,
        m: ArrayLike,
        n: ArrayLike,
        k: ArrayLike,
        *,
        batch: float = 1.0,
        copies: float = 1e6,
        input_B: float = 2.0,
        weight_B: float | None = None,
        speedup: float = 1.0,
    ) -> Array:
        """Time of each product (m, k) x (k, n), or of `batch` such products in one kernel: arrays or numbers.

        `copies`: distinct weights used in turn, as a benchmark does to defeat the L2; the default is a model's weights,
        each used once.  `input_B`, `weight_B`: bytes per value of the two operands.  `speedup`: the format's peak over
        the 16-bit peak.
        """
        weight_B = input_B if weight_B is None else weight_B
        m, n, k = (np.atleast_1d(np.asarray(v, dtype=np.float64))[:, None, None] for v in (m, n, k))
        (
            efficiency,
            memory,
            launch,
            prologue,
            operand_feed,
            reduction,
            overlap,
            step,
            reduction_share,
            l2_share,
            half,
            epilogue,
            outputs,
            half_2,
            reduction_2,
            reduction_share_2,
            prologue_2,
            miss_latency,
            miss_step,
            miss_prologue,
            smallest,
            small_reduction,
            sustained,
            boost_time,
        ) = self.values
        sheet = self.sheet
        sms, cycle, bandwidth = sheet.multiprocessors, 1.0 / sheet.clock_Hz, sheet.memory_B_per_s
        per_sm = sheet.peak_per_s / sms / 2.0  # multiply-accumulates
        a, b, c = batch * m * k * input_B, batch * n * k * weight_B, batch * m * n * _OUTPUT_B
        l2 = sheet.l2_B * l2_share
        b_missed = _missed(l2, copies * b + a + c)
        others_missed, panels_missed = _missed(l2, a + b + c), _missed(l2, a + b)

        rows, columns = self.rows[None], self.columns[None]
        down, across = np.ceil(m / rows), np.ceil(n / columns)
        tiles = batch * down * across
        if self.tile_step is not None:
            rows = np.minimum(rows, np.ceil(m / down / self.tile_step[0]) * self.tile_step[0])
            columns = np.minimum(columns, np.ceil(n / across / self.tile_step[1]) * self.tile_step[1])
        area = rows * columns
        resident = np.clip(np.floor(outputs / area), 1.0, _MOST_RESIDENT)
        slots = sms * resident
        by_wave = np.floor(_WAVES * sms / tiles)
        split = np.concatenate((np.broadcast_to(_SPLITS, by_wave.shape), by_wave), axis=2)
        split = np.clip(np.minimum(split, np.floor(k / _SHORTEST_K)), 1.0, _MOST_SPLITS)
        length = np.ceil(k / split / _K_STEP) * _K_STEP
        blocks = tiles * split
        full = np.floor(blocks / slots)
        last = np.ceil((blocks - full * slots) / sms)

        floor = length * (step * cycle * (input_B / 2.0) * (1.0 + miss_step * b_missed))
        arithmetic = length * area / (per_sm * speedup * min(efficiency, _MOST_EFFICIENCY))
        fed = np.minimum(rows, m) * input_B + np.minimum(columns, n) * weight_B
        feed = length * (fed / (operand_feed * 2.0 * per_sm))
        written = area * (_OUTPUT_B * cycle / epilogue)
        waiting = miss_prologue * cycle * b_missed
        some = last > 0

        def rounds(half: float, prologue: float) -> Array:
            """Full rounds and the last one; its length is zero when nothing is left for it."""
            of_area = arithmetic * (half * half / area)
            start = prologue * cycle + waiting
            whole = np.maximum(np.maximum(resident * arithmetic + of_area, resident * feed), floor)
            rest = np.maximum(np.maximum(last * arithmetic + of_area, last * feed), floor)
            busy: Array = full * (whole + start + resident * written) + some * (rest + start + last * written)
            return busy

        streamed = np.minimum(
            np.maximum(2.0 * np.sqrt(slots * area / split) * k * input_B * np.maximum(blocks / slots, 1.0), a + b),
            np.maximum(a + b, tiles * (rows * input_B + columns * weight_B) * k),
        )
        moved = b * b_missed + (a + c) * others_missed + (streamed - a - b) * panels_missed
        traffic = moved / (bandwidth * memory) + miss_latency * cycle * b_missed
        is_split = split > 1
        forced = (m > 16) & (batch * m * n < smallest)
        partial = (is_split * (2.0 * _ACCUMULATOR_B * batch) * split * m * n + c) / bandwidth * (is_split | forced)

        def total(half: float, prologue: float, reduction: float, share: float) -> Array:
            reduce = cycle * np.where(is_split, reduction, forced * (reduction * small_reduction))
            together: Array = _overlapped(rounds(half, prologue), traffic, overlap) + reduce + partial / share
            return together

        chosen = total(half_2, prologue_2, reduction_2, reduction_share_2).reshape(len(m), -1).argmin(axis=1)
        timed = total(half, prologue, reduction, reduction_share).reshape(len(m), -1)
        boosted = launch * cycle + timed[np.arange(len(m)), chosen]
        throttled = (batch * m * n * k / (sms * per_sm * speedup * sustained)).reshape(-1)
        result: Array = boosted + np.maximum(throttled - boosted, 0.0) * (boosted / (boosted + boost_time * cycle))
        return result


def _missed(l2: float, used: Array) -> Array:
    ratio = l2 / used
    ratio = ratio * ratio
    result: Array = 1.0 / (1.0 + ratio * ratio)
    return result


def _overlapped(a: Array, b: Array, p: float) -> Array:
    most, least = np.maximum(a, b), np.minimum(a, b)
    result: Array = most * (1.0 + (least / most) ** p) ** (1.0 / p)
    return result
