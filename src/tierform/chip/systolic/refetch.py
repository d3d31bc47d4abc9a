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

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tierform.chip.component import Refetch
from tierform.machine_code import load_loop


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
    found = (ctypes.c_double * 3)()
    _loop()(x, y, t, rows, columns, float(room_B), *width, result, float(widths.result), ctypes.addressof(found))
    spilled = (found[result] - 1) * widths.partial / widths.result
    return Refetch(found[first], found[second], spilled, 1 + spilled)


@lru_cache(maxsize=1)
def _loop() -> Callable[..., int]:
    """The search over tilings as a ctypes function."""
    word, number = ctypes.c_int64, ctypes.c_double

    def source() -> tuple[Callable[..., int], str]:
        from tierform.chip.systolic import refetch_loop

        return refetch_loop.best, refetch_loop.SIGNATURE

    kinds = (*(word,) * 5, *(number,) * 4, word, number, ctypes.c_void_p)
    found: Callable[..., int] = load_loop(
        "systolic-refetch", [Path(__file__).with_name("refetch_loop.py")], kinds, source
    )
    return found
