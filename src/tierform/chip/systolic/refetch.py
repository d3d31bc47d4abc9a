"""How often the operands of a product cross between memory and a systolic array's buffer: the best tiling.

A dataflow lays two of the product's sizes over the R x C elements (x over rows, y over columns) and streams the third
(t), see :mod:`tierform.chip.systolic.folds`.  Three operands: the stationary one has the sizes (x, y), the two streamed
ones (t, x) and (t, y).  One of them is the result: (t, y) for weights and inputs in place, (x, y) for outputs in place.

The product is cut into tiles of tx * ty * tt, visited in any of the six orders of the three loops.  For each operand
one may choose:

- **kept in the buffer**: a tile of it takes its bytes there.  It crosses again for every round of the loop over the
  size that it does not have, unless all loops inside that one make a single round, in which it stays where it is.
- **not kept**: a streamed operand crosses for every fold of the array (ceil(Y / C) or ceil(X / R) times), the
  stationary one for every round over t.  A stationary tile of a single fold is in the array's registers: it is kept and
  takes no room.

Half of the buffer holds what is in use while the other half is filled; a `serial` array uses all of it.  A result that
crosses f times leaves f times and comes back f - 1 times, in the accumulator's width except when it is final.  The
choice with the fewest bytes is taken.  More room only adds choices, so traffic never grows with the buffer.

Laws: blocking and loop order decide the traffic of a product (J.-W. Hong, H. T. Kung, I/O complexity: the red-blue
pebble game, STOC 1981); the terms are those of loop-nest models such as Timeloop (A. Parashar et al., ISPASS 2019).
Limits: one level of buffer, shared by all operands without banks; what arrays have in common is read once for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from numba import njit

from tierform.chip.component import Refetch

_MARGIN = 1 - 1e-12  # a choice must be better by more than rounding, so that the first of equals is taken


@dataclass(frozen=True, slots=True)
class Widths:
    """Bytes of a value: first and second operand, result, and a partial sum."""

    first: float
    second: float
    result: float
    partial: float


@lru_cache(maxsize=16384)
def best_refetch(
    dataflow: str, m: int, n: int, k: int, rows: int, columns: int, room_B: float, widths: Widths
) -> Refetch:
    """Factors of an (m, k) x (k, n) product on an array with `room_B` bytes of buffer in use; see the module's text."""
    first, second, result = {"ws": (1, 0, 2), "os": (1, 2, 0), "is": (0, 1, 2)}[dataflow]
    x, y, t = {"ws": (k, n, m), "os": (m, n, k), "is": (k, m, n)}[dataflow]
    width = [0.0, 0.0, 0.0]
    width[first], width[second], width[result] = float(widths.first), float(widths.second), float(widths.partial)
    found = _best(x, y, t, rows, columns, float(room_B), *width, result, float(widths.result))
    spilled = (found[result] - 1) * widths.partial / widths.result
    return Refetch(found[first], found[second], spilled, 1 + spilled)


@njit(cache=True)
def _best(x, y, t, rows, columns, room_B, width_xy, width_tx, width_ty, result, final):  # type: ignore[no-untyped-def]
    """Crossings of the operands (x, y), (t, x), (t, y) in the best tiling; `result` is one of them by its number."""
    folds_x, folds_y = -(-x // rows), -(-y // columns)
    least_B, best_xy, best_tx, best_ty = -1.0, 1.0, 1.0, 1.0
    wide_x = 1
    while True:
        rounds_x = -(-folds_x // wide_x)
        tile_x = min(x, -(-folds_x // rounds_x) * rows)
        wide_y = 1
        while True:
            rounds_y = -(-folds_y // wide_y)
            tile_y = min(y, -(-folds_y // rounds_y) * columns)
            held_B = tile_x * tile_y * width_xy
            if tile_x <= rows and tile_y <= columns:
                held_B = 0.0
            for kept in range(8):
                room = room_B - (held_B if kept & 1 else 0.0)
                each_B = (tile_x * width_tx if kept & 2 else 0.0) + (tile_y * width_ty if kept & 4 else 0.0)
                if room < each_B:
                    continue
                tile_t = t if each_B == 0.0 else min(t, int(room / each_B))
                rounds_t = -(-t // tile_t)
                many_x, many_y, many_t = rounds_x > 1, rounds_y > 1, rounds_t > 1
                for order in range(6):
                    # Loops from the outside in: xyt, xty, yxt, ytx, txy, tyx.
                    xy, tx, ty = float(rounds_t), float(folds_y), float(folds_x)
                    if kept & 1:
                        inner = (order == 1 and many_y) or (order == 3 and many_x) or (order > 3 and (many_x or many_y))
                        xy = float(rounds_t) if inner else 1.0
                    if kept & 2:
                        inner = (order == 0 and many_t) or (order == 5 and many_x)
                        inner = inner or ((order == 2 or order == 3) and (many_x or many_t))
                        tx = float(rounds_y) if inner else 1.0
                    if kept & 4:
                        inner = (order == 2 and many_t) or (order == 4 and many_y)
                        inner = inner or (order < 2 and (many_y or many_t))
                        ty = float(rounds_x) if inner else 1.0
                    moved = 1.0 * x * y * width_xy * (xy if result != 0 else 2 * (xy - 1))
                    moved += 1.0 * t * x * width_tx * tx
                    moved += 1.0 * t * y * width_ty * (ty if result != 2 else 2 * (ty - 1))
                    moved += final * (1.0 * x * y if result == 0 else 1.0 * t * y)
                    if least_B < 0 or moved < least_B * _MARGIN:
                        least_B, best_xy, best_tx, best_ty = moved, xy, tx, ty
                    if kept == 0:
                        break
            if wide_y >= folds_y:
                break
            # The next width that gives fewer rounds.
            wide_y = -(-folds_y // (rounds_y - 1))
        if wide_x >= folds_x:
            break
        wide_x = -(-folds_x // (rounds_x - 1))
    return best_xy, best_tx, best_ty
