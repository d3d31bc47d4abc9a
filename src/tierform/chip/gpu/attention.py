"""How long fused attention takes on a GPU: scores, softmax and weighted values in one kernel that keeps them on chip.

Prefill (many queries): blocks of `tile` queries walk over tiles of keys; a causal block stops at its diagonal.  Three
times overlap as (a^p + b^p + c^p)^(1/p): all tiles over all multiprocessors at the efficiency reached together, the
longest block alone (`lone_block` times a tile's share), and queries, keys, values and result, as fast as the
multiprocessors take them (`bytes_per_cycle` each) or, where the L2 does not hold them, as memory gives them.

Decode (one query a sequence): blocks of keys are shared among the multiprocessors where the kernel can split them
(`splits_ungrouped`, or queries that share keys); the chain of one block's key tiles, the cache through memory, and the
setting-up of blocks overlap in the same way.  Splitting adds `combine`; regrouping queries that share keys adds
`regroup`.

Times are in clock cycles.  Limits: the tile sizes are the library's, not searched; no cascade of shared prefixes;
decode does not model the L2 (a benchmark's repeated small cache is read from it).  Source of the algorithms: T. Dao,
FlashAttention-2 (2023); the model is ours, fitted as the data file says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tierform.chip.gpu.parameters import DecodeParameters, PrefillParameters, Sheet

Array = NDArray[np.float64]
PREFILL = (
    "launch",
    "tensor_efficiency",
    "lone_block",
    "block_setup",
    "bytes_per_cycle",
    "overlap",
    "cache_write",
    "memory_efficiency",
)
DECODE = (
    "launch",
    "combine",
    "block",
    "memory_efficiency",
    "overlap",
    "block_setup",
    "regroup",
    "blocks_per_multiprocessor",
)
_KEY_TILE, _HIT_SHARPNESS, _MOST_MEMORY = 128.0, 4, 0.95


@dataclass(frozen=True)
class PrefillModel:
    """Fused attention over many queries; `values` in the order of PREFILL."""

    sheet: Sheet
    values: tuple[float, ...]
    tile: tuple[int, int]

    @classmethod
    def of(cls, sheet: Sheet, parameters: PrefillParameters, tile: tuple[int, int]) -> PrefillModel:
        """From a data file's section."""
        return cls(sheet, tuple(float(getattr(parameters, name).value) for name in PREFILL), tile)

    def seconds(
        self,
        batch: ArrayLike,
        queries: ArrayLike,
        keys: ArrayLike,
        heads: ArrayLike,
        kv_heads: ArrayLike,
        size: ArrayLike,
        *,
        value_size: ArrayLike | None = None,
        causal: bool = True,
        value_B: float = 2.0,
        writes_cache: bool = False,
    ) -> Array:
        """Time for `batch` sequences; `writes_cache` adds the kernel that appends keys and values to a paged cache."""
        launch, efficiency, lone, setup, per_cycle, p, written, memory = self.values
        batch, queries, keys, heads, kv_heads, size = (
            np.asarray(v, dtype=np.float64) for v in (batch, queries, keys, heads, kv_heads, size)
        )
        last = size if value_size is None else np.asarray(value_size, dtype=np.float64)
        sheet, (rows, columns) = self.sheet, self.tile
        row_tiles, column_tiles = np.ceil(queries / rows), np.ceil(keys / columns)
        past = np.maximum(keys - queries, 0.0)  # keys before the first query, which every query sees
        triangle = row_tiles * (row_tiles + 1) / 2 * (rows / columns) + row_tiles * (past / columns)
        visited = triangle if causal else row_tiles * column_tiles
        per_sm = sheet.peak_per_s / sheet.multiprocessors * efficiency
        tile_s = 2.0 * rows * columns * (size + last) / per_sm
        setup_s = setup / sheet.clock_Hz
        blocks = batch * heads * row_tiles
        together = (batch * heads * visited * tile_s + blocks * setup_s) / sheet.multiprocessors
        longest = column_tiles * tile_s * lone + setup_s
        moved_B = batch * value_B * (size + last) * (queries * heads + keys * kv_heads)
        missed = 1.0 / (1.0 + (sheet.l2_B / moved_B) ** _HIT_SHARPNESS)
        on_chip = sheet.multiprocessors * sheet.clock_Hz * per_cycle
        bandwidth = sheet.memory_B_per_s * min(memory, _MOST_MEMORY)
        moved = np.maximum(moved_B / on_chip, moved_B / bandwidth * missed)
        cache: Array | float = 0.0
        if writes_cache:
            written_B = 2.0 * batch * np.minimum(queries, keys) * kv_heads * (size + last) * value_B
            cache = np.maximum(written_B / on_chip, written_B / bandwidth * missed) * written
        result: Array = launch / sheet.clock_Hz + cache + _overlapped(together, longest, moved, p)
        return result


@dataclass(frozen=True)
class DecodeModel:
    """Fused attention of one query over a cache; `values` in the order of DECODE."""

    sheet: Sheet
    values: tuple[float, ...]
    splits_ungrouped: bool

    @classmethod
    def of(cls, sheet: Sheet, parameters: DecodeParameters) -> DecodeModel:
        """From a data file's section."""
        values = tuple(float(getattr(parameters, name).value) for name in DECODE)
        return cls(sheet, values, parameters.splits_ungrouped)

    def seconds(
        self,
        batch: ArrayLike,
        keys: ArrayLike,
        heads: ArrayLike,
        kv_heads: ArrayLike,
        size: ArrayLike,
        *,
        value_size: ArrayLike | None = None,
        value_B: float = 2.0,
    ) -> Array:
        """Time for one new token in each of `batch` sequences of `keys` keys."""
        launch, combine, block, memory, p, setup, regroup, per_sm = self.values
        batch, keys, heads, kv_heads, size = (
            np.asarray(v, dtype=np.float64) for v in (batch, keys, heads, kv_heads, size)
        )
        last = size if value_size is None else np.asarray(value_size, dtype=np.float64)
        sheet = self.sheet
        cycle = 1.0 / sheet.clock_Hz
        grouped = heads > kv_heads
        walkers = np.where(grouped, kv_heads, heads)
        tiles = np.ceil(keys / _KEY_TILE)
        split = np.clip(np.floor(sheet.multiprocessors * per_sm / (batch * walkers)), 1.0, tiles)
        split = np.where(grouped | self.splits_ungrouped, split, 1.0)
        chain_tiles = np.ceil(tiles / split)
        split = np.ceil(tiles / chain_tiles)
        chain = chain_tiles * block * cycle
        moved = batch * walkers * keys * (size + last) * value_B / (sheet.memory_B_per_s * memory)
        started = batch * walkers * split * setup * cycle / sheet.multiprocessors
        extra = np.where((batch > 1) & (kv_heads > 1) & grouped, regroup, 0.0) + np.where(split > 1, combine, 0.0)
        result: Array = (launch + extra) * cycle + _overlapped(chain, moved, started, p)
        return result


def _overlapped(first: Array, second: Array, third: Array, exponent: float) -> Array:
    """(a^p + b^p + c^p)^(1/p), by the longest of the three, so that no power leaves what numbers can hold."""
    most = np.maximum(np.maximum(first, second), third)
    first, second, third = ((each / most) ** exponent for each in (first, second, third))
    result: Array = most * (first + second + third) ** (1.0 / exponent)
    return result
