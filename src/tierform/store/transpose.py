"""The bit-matrix transpose under the plane kernels, written for the processor's vector registers.

The w x w bit matrix under each 64-bit word of a block (64/w matrices side by side) is turned in log2(w) stages of
masked swaps (H. S. Warren, Hacker's Delight, 2nd edition, section 7-3).  From plain loops over rows that lie apart the
compiler makes checks, for every few words, that they do not overlap; here the words are emitted as vectors of four, and
the rows of a matrix stay in registers.  The stages commute: they are made in two halves, each on groups of rows that
swap among themselves, so that few rows are needed at once.

:func:`put_row` writes past the caches: the processor need not read what is about to be overwritten, so large results
cost two passes over memory instead of three.

Limits: positions are not checked.  The compiler lowers the vectors to whatever the processor has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tierform.store.hashing import ROW

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing import Context, Signature

    Intrinsic = tuple[Signature, Callable[..., ir.Value]]

LANES = 4  # 64-bit words of a vector
VECTOR_B = 8 * LANES
_WORD = ir.IntType(64)
_VECTOR = ir.VectorType(_WORD, LANES)


def _mask(distance: int) -> int:
    """The lower `distance` bits of every 2 * `distance` of a 64-bit word."""
    return sum(((1 << distance) - 1) << at for at in range(0, 64, 2 * distance))


def _groups(width: int) -> list[tuple[list[int], list[int]]]:
    """Rows that swap among themselves, and at which distances, in the order in which to do it."""
    distances = [width >> i for i in range(1, width.bit_length())]
    far, near = distances[: len(distances) // 2], distances[len(distances) // 2 :]
    block = 2 * near[0]
    apart = [(list(range(first, width, block)), far) for first in range(block)]
    return apart + [(list(range(first, first + block)), near) for first in range(0, width, block)]


def _vector(context: BaseContext, builder: ir.IRBuilder, kind: types.Type, array: ir.Value, at: ir.Value) -> ir.Value:
    """Where the vector at word `at` of an array lies."""
    first = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(first, [at]), _VECTOR.as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def transpose(
    typing: Context,
    width: types.Type,
    source: types.Type,
    start: types.Type,
    step: types.Type,
    target: types.Type,
    target_start: types.Type,
    target_step: types.Type,
) -> Intrinsic | None:
    """Turn the `width` rows at ``source[start + r * step]`` into those of `target`, ROW words each.

    Both are contiguous arrays of uint64; they may not overlap.  `width` is a constant: 8, 16, 32 or 64.
    """
    if not isinstance(width, types.IntegerLiteral):
        return None
    rows = width.literal_value
    signature = types.void(width, source, types.intp, types.intp, target, types.intp, types.intp)

    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Sequence[ir.Value]
    ) -> ir.Value:
        def place(array: int, row: int, lane: int) -> ir.Value:
            start, step = arguments[array + 1], arguments[array + 2]
            at = builder.add(start, builder.add(builder.mul(step, _WORD(row)), _WORD(lane)))
            return _vector(context, builder, signature.args[array], arguments[array], at)

        def every(value: int) -> ir.Constant:
            return ir.Constant(_VECTOR, [value] * LANES)

        for lane in range(0, ROW, LANES):
            words = [builder.load(place(1, row, lane), align=8) for row in range(rows)]
            for members, distances in _groups(rows):
                for distance in distances:
                    for row in members:
                        if row & distance:
                            continue
                        one, other = words[row], words[row + distance]
                        swap = builder.xor(builder.lshr(one, every(distance)), other)
                        swap = builder.and_(swap, every(_mask(distance)))
                        words[row] = builder.xor(one, builder.shl(swap, every(distance)))
                        words[row + distance] = builder.xor(other, swap)
            for row in range(rows):
                builder.store(words[row], place(4, row, lane), align=8)
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def put_row(typing: Context, target: types.Type, at: types.Type, source: types.Type, start: types.Type) -> Intrinsic:
    """Copy the row at ``source[start]`` past the caches to ``target[at]``, on a multiple of VECTOR_B bytes."""
    signature = types.void(target, types.intp, source, types.intp)

    def generate(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Sequence[ir.Value]
    ) -> ir.Value:
        once = builder.module.add_metadata([ir.IntType(32)(1)])
        for lane in range(0, ROW, LANES):
            place, goal = (
                _vector(context, builder, signature.args[i], arguments[i], builder.add(arguments[i + 1], _WORD(lane)))
                for i in (2, 0)
            )
            builder.store(builder.load(place, align=8), goal, align=VECTOR_B).set_metadata("nontemporal", once)
        return context.get_dummy_value()

    return signature, generate
