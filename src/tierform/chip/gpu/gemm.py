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

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tierform.chip.gpu.parameters import ProductParameters, Sheet
from tierform.machine_code import load_loop, pointer

Array = NDArray[np.float64]
MOST_SPLITS = 64.0  # of k

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
    """Numbers (FITTED, then the data sheet's, steps of a tile, most splits of k) and tiles (tiles, 2)."""

    numbers: Array
    tiles: Array

    @classmethod
    def of(cls, sheet: Sheet, parameters: ProductParameters) -> ProductModel:
        """From a data file's section."""
        values = tuple(float(getattr(parameters, name).value) for name in FITTED)
        return cls.with_values(sheet, values, parameters.tiles, parameters.tile_step)

    @classmethod
    def with_values(
        cls,
        sheet: Sheet,
        values: tuple[float, ...],
        tiles: list[tuple[int, int]],
        step: tuple[int, int] | None,
        most_splits: float = MOST_SPLITS,
    ) -> ProductModel:
        """From plain values in the order of FITTED (as a fit does); k is split into `most_splits` at most."""
        board = (sheet.multiprocessors, sheet.clock_Hz, sheet.peak_per_s, sheet.memory_B_per_s, sheet.l2_B)
        numbers = np.array([*values, *board, *(step or (0, 0)), most_splits], dtype=np.float64)
        return cls(numbers, np.array(tiles, dtype=np.float64))

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
        shapes = np.broadcast_arrays(*(np.atleast_1d(np.asarray(value, dtype=np.float64)) for value in (m, n, k)))
        products = np.empty((len(shapes[0]), 8))
        for column, shape in enumerate(shapes):
            products[:, column] = shape
        products[:, 3:] = batch, copies, input_B, weight_B, speedup
        result = np.empty(len(products))
        arrays = (self.numbers, self.tiles, products, result)
        _loop()(*(pointer(array) for array in arrays), len(self.tiles), len(products))
        return result


@lru_cache(maxsize=1)
def _loop() -> Callable[..., int]:
    """The loop over products, tiles and splits as a ctypes function."""
    address, word = ctypes.c_void_p, ctypes.c_int64

    def source() -> tuple[Callable[..., int], str]:
        from tierform.chip.gpu import gemm_loop

        return gemm_loop.seconds, gemm_loop.SIGNATURE

    files = [Path(__file__).with_name("gemm_loop.py")]
    found: Callable[..., int] = load_loop("gpu-products", files, (*(address,) * 4, word, word), source)
    return found
