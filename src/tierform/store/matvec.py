"""A vector times a matrix of bit planes, each input channel at its own number of planes, without unpacking the matrix.

For every input channel the rows of its first p planes are turned into one byte for each output by three exchanges of
bits over 64-bit words, four words at once; four channels' bytes are multiplied with their inputs and added.  After
each group of inputs the sums get their scales.  Planes that are not asked for are not read: time and bytes follow the
number of planes.  The midpoint of the missing bits is the same for all outputs and is added once a group.

Sums are single precision, in the order of the inputs.  Threads share the outputs' words.
Source: the exchange of bits is the usual transpose of an 8 x 8 bit matrix (Warren, Hacker's Delight, 2nd ed., 7-3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from tierform.arrays import Bits, Bytes, Singles
from tierform.store.nested import PLANES, ChannelPlanes

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing import Context, Signature

    Intrinsic = tuple[Signature, Callable[..., ir.Value]]

LANES = 4
_AHEAD = 8  # channels
_WORD = ir.IntType(64)
_MASKS = ((1, 0x5555555555555555), (2, 0x3333333333333333), (4, 0x0F0F0F0F0F0F0F0F))
_ALL = 2**64 - 1


def _exchange(planes: int, lanes: int) -> Callable[..., None]:
    """An intrinsic: `planes` words of a channel (`step` apart) become eight words of bytes (`apart` apart).

    Words are taken `lanes` at a time; planes that are not there are zero and cost nothing.
    """
    vector = ir.VectorType(_WORD, lanes)

    def constant(value: int) -> ir.Constant:
        return ir.Constant(vector, [ir.Constant(_WORD, value)] * lanes)

    @intrinsic  # type: ignore[untyped-decorator]
    def turn(
        _context: Context,
        source: types.Type,
        base: types.Type,
        step: types.Type,
        target: types.Type,
        place: types.Type,
        apart: types.Type,
    ) -> Intrinsic:
        signature = types.void(source, types.intp, types.intp, target, types.intp, types.intp)

        def generate(context: BaseContext, builder: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
            def pointer(number: int, offset: ir.Value) -> ir.Value:
                start = context.make_array(sig.args[number])(context, builder, args[number]).data
                return builder.bitcast(builder.gep(start, [offset]), vector.as_pointer())

            def after(begin: ir.Value, step: ir.Value, count: int) -> ir.Value:
                return builder.add(begin, builder.mul(step, ir.Constant(step.type, count)))

            def masked(value: ir.Value | None, mask: int) -> ir.Value | None:
                return None if value is None else builder.and_(value, constant(mask))

            def joined(one: ir.Value | None, other: ir.Value | None) -> ir.Value | None:
                if one is None or other is None:
                    return other if one is None else one
                return builder.or_(one, other)

            rows: list[ir.Value | None] = [None] * PLANES
            for plane in range(planes):  # the first plane is the highest bit
                rows[PLANES - 1 - plane] = builder.load(pointer(0, after(args[1], args[2], plane)), align=8)
            for distance, low in _MASKS:
                turned = list(rows)
                shift = constant(distance)
                for number in range(PLANES):
                    if number & distance:
                        continue
                    one, other = rows[number], rows[number | distance]
                    up = masked(other, low)
                    turned[number] = joined(masked(one, low), None if up is None else builder.shl(up, shift))
                    high = low << distance & _ALL
                    down = masked(one, high)
                    down = None if down is None else builder.lshr(down, shift)
                    turned[number | distance] = joined(down, masked(other, high))
                rows = turned
            for number in range(PLANES):
                value = constant(0) if rows[number] is None else rows[number]
                builder.store(value, pointer(3, after(args[4], args[5], number)), align=8)
            return context.get_dummy_value()

        return signature, generate

    return turn  # type: ignore[no-any-return]


@intrinsic  # type: ignore[untyped-decorator]
def _soon(_context: Context, source: types.Type, place: types.Type) -> Intrinsic:
    """Ask for the cache line of a word that will be read."""
    signature = types.void(source, types.intp)

    def generate(context: BaseContext, builder: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
        start = context.make_array(sig.args[0])(context, builder, args[0]).data
        line = builder.bitcast(builder.gep(start, [args[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [ir.IntType(8).as_pointer()], kind)
        builder.call(function, [line, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return signature, generate


_KERNELS = {planes: _exchange(planes, LANES) for planes in range(1, PLANES + 1)}


def _row(planes: int) -> Callable[..., None]:
    """A function that turns a whole row of `words` words, at least four; the last ones may be turned twice."""
    wide = _KERNELS[planes]

    @njit(boundscheck=False, error_model="numpy", inline="never")  # type: ignore[untyped-decorator]
    def turn_row(source: Bits, base: int, step: int, words: int, target: Bits, place: int) -> None:
        at = 0
        while at + 4 <= words:
            wide(source, base + at, step, target, place + at, words)
            at += 4
        if at < words:
            at = words - 4
            wide(source, base + at, step, target, place + at, words)

    return turn_row  # type: ignore[no-any-return]


_ONE, _TWO, _THREE, _FOUR, _FIVE, _SIX, _SEVEN, _EIGHT = (_row(planes) for planes in range(1, PLANES + 1))


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _turn(source: Bits, base: int, step: int, words: int, planes: int, target: Bits, place: int) -> None:
    if planes == 3:
        _THREE(source, base, step, words, target, place)
    elif planes == 4:
        _FOUR(source, base, step, words, target, place)
    elif planes == 2:
        _TWO(source, base, step, words, target, place)
    elif planes == 8:
        _EIGHT(source, base, step, words, target, place)
    elif planes == 5:
        _FIVE(source, base, step, words, target, place)
    elif planes == 6:
        _SIX(source, base, step, words, target, place)
    elif planes == 7:
        _SEVEN(source, base, step, words, target, place)
    else:
        _ONE(source, base, step, words, target, place)


@njit(fastmath=True, boundscheck=False, error_model="numpy", inline="never")  # type: ignore[untyped-decorator]
def _add(total: Singles, content: Bytes, a: np.float32, b: np.float32, c: np.float32, d: np.float32) -> None:
    """Add a, b, c, d times four channels' bytes, which follow each other, to `total`."""
    n = total.size
    for i in range(n):
        total[i] += (
            a * np.float32(content[i])
            + b * np.float32(content[n + i])
            + c * np.float32(content[2 * n + i])
            + d * np.float32(content[3 * n + i])
        )


@njit(cache=True, nogil=True, fastmath=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _multiply(words: Bits, scale: Singles, offset: Singles, group: int, x: Singles, planes: Bytes, y: Singles) -> None:
    """Set y (padded outputs,) to matrix times x, the words flat as [group, plane, input, word]."""
    inputs, row = x.size, scale.shape[1] // 64
    outputs = row * 64
    scratch = np.empty(4 * outputs // 8, np.uint64)
    content = scratch.view(np.uint8)
    total, factors = np.empty(outputs, np.float32), np.zeros(4, np.float32)
    y[:] = 0
    for number in range(scale.shape[0]):
        total[:] = 0
        waiting, sum_x, sum_middle = 0, np.float32(0), np.float32(0)
        first, begin = number * group, number * group * 8 * row
        for k in range(first, min(first + group, inputs)):
            ahead = k + _AHEAD  # rows are short and channels skip planes: the processor does not foresee what comes
            if ahead < inputs:
                far = (ahead // group * group * 8 + ahead % group) * row
                for plane in range(planes[ahead]):
                    for word in range(0, row, 8):
                        _soon(words, far + plane * group * row + word)
            depth = planes[k]
            if depth == 0:
                continue
            sum_x += x[k]
            sum_middle += x[k] * np.float32(((1 << (8 - depth)) - 1) * 0.5)
            _turn(words, begin + (k - first) * row, group * row, row, depth, scratch, waiting * row * 8)
            factors[waiting] = x[k]
            waiting += 1
            if waiting == 4:
                _add(total, content, factors[0], factors[1], factors[2], factors[3])
                waiting = 0
        if waiting:
            factors[waiting:] = 0
            _add(total, content, factors[0], factors[1], factors[2], factors[3])
        for n in range(outputs):
            y[n] += scale[number, n] * (total[n] + sum_middle - offset[number, n] * sum_x)


def multiply(matrix: ChannelPlanes, x: NDArray[np.float32], planes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The product (outputs,) of a matrix of planes with inputs (inputs,), each at its own number of planes (0 to 8)."""
    y = np.empty(matrix.scale.shape[1], np.float32)
    _multiply(matrix.words.reshape(-1), matrix.scale, matrix.offset, matrix.group, x, planes, y)
    return y[: matrix.outputs]
