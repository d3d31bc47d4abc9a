"""A vector, or a few, times a matrix of bit planes, each input channel at its own number of planes, never unpacked.

Four input channels at one plane have sixteen possible sums of inputs for an output: these stand in a table, and the
four bits of an output choose one of them, 32 outputs an instruction (T-MAC: Wei et al., EuroSys 2025).  The bits of
four channels' rows become indices by two exchanges of bits over 64-bit words (Warren, Hacker's Delight, 2nd ed., 7-3).
Sums of a plane are 16-bit integers; planes are added with their weights, and scales come after each group of inputs.
Work and bytes follow the number of planes read.  Several vectors share the exchange of bits.

Inputs are rounded to integers so that the magnitudes of a segment of 64 channels sum to 32,700: for even inputs a
relative error of 6e-4, half of bf16's.  The integers are exact, so that a vector's product does not depend on which
others are multiplied with it.  The midpoint of the missing bits and the offsets are added once a segment.  Scales and
outputs stand in the order of :func:`tierform.store.nested.sums_order` until the end.

Tables are looked up by the byte shuffle of AVX2; a processor without it runs a plain loop with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from tierform.arrays import Bits, Bytes, Ints, Shorts, Singles, Words
from tierform.store.nested import LANES, OUTPUTS, PLACES, PLANES, ChannelPlanes

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing import Context, Signature

    Intrinsic = tuple[Signature, Callable[..., ir.Value]]

SEGMENT = 64  # channels that share a rounding of their inputs
_GREATEST = 32700.0  # what 64 rounded inputs may sum to: 64 halves below the largest 16-bit integer
_OCTET = 8  # channels looked up together
_TABLES = 128  # bytes of an octet's tables: two quads, low and high bytes, each twice
_INDICES = 64  # words of an octet's indices: two quads of 8 x 32 bytes
_WORD, _BYTE, _SHORT = ir.IntType(64), ir.IntType(8), ir.IntType(16)
_EXCHANGES = ((1, 0x5555555555555555), (2, 0x3333333333333333))
_NIBBLE = 0x0F0F0F0F0F0F0F0F
_SHUFFLES = bool(llvmlite.binding.get_host_cpu_features().get("avx2"))


def _pointer(
    context: BaseContext, builder: ir.IRBuilder, kind: types.Type, array: ir.Value, place: ir.Value
) -> ir.Value:
    start = context.make_array(kind)(context, builder, array).data
    return builder.gep(start, [place])


def _same(vector: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * vector.count)


@intrinsic  # type: ignore[untyped-decorator]
def _turn(
    _context: Context,
    source: types.Type,
    one: types.Type,
    two: types.Type,
    three: types.Type,
    four: types.Type,
    target: types.Type,
    place: types.Type,
) -> Intrinsic:
    """Four words of each of four rows become 8 x 32 bytes: byte i of vector r has the rows' bits r of byte i."""
    signature = types.void(source, *(types.intp,) * 4, target, types.intp)
    vector = ir.VectorType(_WORD, LANES)

    def generate(context: BaseContext, builder: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
        rows = []
        for number in range(4):
            at = _pointer(context, builder, sig.args[0], args[0], args[1 + number])
            rows.append(builder.load(builder.bitcast(at, vector.as_pointer()), align=8))
        for distance, low in _EXCHANGES:
            shift = _same(vector, distance)
            for number in range(4):
                if number & distance:
                    continue
                upper, lower = rows[number], rows[number | distance]
                differs = builder.and_(builder.xor(builder.lshr(upper, shift), lower), _same(vector, low))
                rows[number | distance] = builder.xor(lower, differs)
                rows[number] = builder.xor(upper, builder.shl(differs, shift))
        nibble, four_bits = _same(vector, _NIBBLE), _same(vector, 4)
        turned = [builder.and_(row, nibble) for row in rows]
        turned += [builder.and_(builder.lshr(row, four_bits), nibble) for row in rows]
        start = _pointer(context, builder, sig.args[5], args[5], args[6])
        for number, value in enumerate(turned):
            at = builder.gep(start, [ir.Constant(args[6].type, number * LANES)])
            builder.store(value, builder.bitcast(at, vector.as_pointer()), align=8)
        return context.get_dummy_value()

    return signature, generate


def _shuffled(quads: int) -> Callable[..., None]:
    """An intrinsic: look 256 indices of one or two quads up in their tables and add what they say to 256 sums."""
    bytes_, shorts = ir.VectorType(_BYTE, 32), ir.VectorType(_SHORT, 16)
    lower = [base + half * 32 for base in (*range(8), *range(16, 24)) for half in (0, 1)]
    upper = [base + half * 32 for base in (*range(8, 16), *range(24, 32)) for half in (0, 1)]
    masks = [
        ir.Constant(ir.VectorType(ir.IntType(32), 32), [ir.Constant(ir.IntType(32), one) for one in mask])
        for mask in (lower, upper)
    ]

    @intrinsic  # type: ignore[untyped-decorator]
    def shuffled(
        _context: Context,
        indices: types.Type,
        tables: types.Type,
        first: types.Type,
        sums: types.Type,
        place: types.Type,
    ) -> Intrinsic:
        signature = types.void(indices, tables, types.intp, sums, types.intp)

        def generate(context: BaseContext, builder: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
            kind = ir.FunctionType(bytes_, [bytes_, bytes_])
            shuffle = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx2.pshuf.b")

            def load(start: ir.Value, offset: int, vector: ir.VectorType) -> ir.Value:
                at = builder.gep(start, [ir.Constant(_WORD, offset)])
                return builder.load(builder.bitcast(at, vector.as_pointer()), align=2)

            seen = _pointer(context, builder, sig.args[0], args[0], ir.Constant(_WORD, 0))
            table = _pointer(context, builder, sig.args[1], args[1], args[2])
            total = _pointer(context, builder, sig.args[3], args[3], args[4])
            halves = [load(table, 32 * number, bytes_) for number in range(2 * quads)]
            for number in range(8):
                added: list[list[ir.Value]] = [[], []]
                for quad in range(quads):
                    index = load(seen, quad * 32 + number * LANES, bytes_)
                    low, high = (builder.call(shuffle, [halves[2 * quad + part], index]) for part in (0, 1))
                    for half in range(2):
                        added[half].append(builder.bitcast(builder.shuffle_vector(low, high, masks[half]), shorts))
                for half in range(2):
                    at = builder.gep(total, [ir.Constant(_WORD, number * 32 + half * 16)])
                    at = builder.bitcast(at, shorts.as_pointer())
                    value = added[half][0] if quads == 1 else builder.add(*added[half])
                    builder.store(builder.add(builder.load(at, align=2), value), at, align=2)
            return context.get_dummy_value()

        return signature, generate

    return shuffled  # type: ignore[no-any-return]


_SHUFFLED_ONE, _SHUFFLED_TWO = _shuffled(1), _shuffled(2)


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def look_plainly(quads: int, indices: Bits, tables: Bytes, first: int, sums: Shorts, place: int) -> None:
    """What :func:`_shuffled` does, without its instruction."""
    seen = indices.view(np.uint8)
    for number in range(8):
        for word in range(4):
            for i in range(8):
                at = number * 32 + word * 8 + i
                value = 0
                for quad in range(quads):
                    entry = first + quad * 64 + seen[quad * 256 + at]
                    value += int(tables[entry]) + (int(np.int8(tables[entry + 32])) << 8)
                sums[place + number * 32 + PLACES[word] + i] += value


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def look_by_shuffles(quads: int, indices: Bits, tables: Bytes, first: int, sums: Shorts, place: int) -> None:
    """The same, 32 indices an instruction."""
    if quads == 1:
        _SHUFFLED_ONE(indices, tables, first, sums, place)
    else:
        _SHUFFLED_TWO(indices, tables, first, sums, place)


_look = look_by_shuffles if _SHUFFLES else look_plainly


@intrinsic  # type: ignore[untyped-decorator]
def _tabulate(
    _context: Context,
    one: types.Type,
    two: types.Type,
    three: types.Type,
    four: types.Type,
    tables: types.Type,
    place: types.Type,
) -> Intrinsic:
    """The 16 sums of four inputs, low bytes and high bytes, each twice."""
    signature = types.void(*(types.int16,) * 4, tables, types.intp)
    shorts, bytes_ = ir.VectorType(_SHORT, 16), ir.VectorType(_BYTE, 16)

    def generate(context: BaseContext, builder: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
        total: ir.Value = _same(shorts, 0)
        zero = ir.Constant(ir.IntType(32), 0)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), 16), [zero] * 16)
        for number in range(4):
            spread = builder.insert_element(ir.Constant(shorts, ir.Undefined), args[number], zero)
            spread = builder.shuffle_vector(spread, spread, everywhere)
            mask = [ir.Constant(_SHORT, -(index >> number & 1)) for index in range(16)]
            total = builder.add(total, builder.and_(spread, ir.Constant(shorts, mask)))
        low = builder.trunc(total, bytes_)
        high = builder.trunc(builder.lshr(total, _same(shorts, 8)), bytes_)
        start = _pointer(context, builder, sig.args[4], args[4], args[5])
        for number, value in enumerate((low, low, high, high)):
            at = builder.gep(start, [ir.Constant(ir.IntType(64), 16 * number)])
            builder.store(value, builder.bitcast(at, bytes_.as_pointer()), align=1)
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def _soon(_context: Context, source: types.Type, place: types.Type) -> Intrinsic:
    """Ask for the cache line of a word that will be read."""
    signature = types.void(source, types.intp)

    def generate(context: BaseContext, builder: ir.IRBuilder, sig: Signature, args: Sequence[ir.Value]) -> ir.Value:
        start = context.make_array(sig.args[0])(context, builder, args[0]).data
        line = builder.bitcast(builder.gep(start, [args[1]]), _BYTE.as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [_BYTE.as_pointer()], kind)
        builder.call(function, [line, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return signature, generate


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _sort(planes: Bytes, first: int, count: int, order: Ints, having: Ints) -> None:
    """Channels of a segment by falling depth, and how many of them have each plane."""
    at = np.zeros(PLANES + 2, np.int64)
    for k in range(first, first + count):
        at[planes[k]] += 1
    for depth in range(PLANES, -1, -1):
        at[depth] += at[depth + 1]
    for plane in range(PLANES):
        having[plane] = at[plane + 1]
    for k in range(first, first + count):
        place = at[planes[k] + 1]  # channels deeper than this one come first
        order[place] = k - first
        at[planes[k] + 1] += 1


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _fill(rounded: Shorts, first: int, kept: int, tables: Bytes, place: int) -> None:
    """An octet's tables from its rounded inputs, those behind `kept` left out."""
    zero = np.int16(0)
    for quad in range(2):
        k = first + 4 * quad
        _tabulate(
            rounded[k] if k < kept else zero,
            rounded[k + 1] if k + 1 < kept else zero,
            rounded[k + 2] if k + 2 < kept else zero,
            rounded[k + 3] if k + 3 < kept else zero,
            tables,
            place + 64 * quad,
        )


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _round(x: Singles, first: int, order: Ints, kept: int, rounded: Shorts) -> np.float32:
    """A segment's inputs as integers, in `order`; what one of them is worth."""
    total = np.float32(0)
    for k in range(kept):
        total += abs(x[first + order[k]])
    if not total > 0:
        rounded[:kept] = 0
        return np.float32(0)
    factor = np.float32(_GREATEST) / total
    for k in range(kept):
        rounded[k] = np.int16(np.rint(x[first + order[k]] * factor))
    return np.float32(1) / factor


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _multiply(
    words: Bits, factors: Singles, places: Ints, group: int, x: Singles, planes: Bytes, found: Singles
) -> None:
    """Set `found` [vector, output] to the matrix times x [vector, input].

    `words` are [group, plane, input, word], `factors` [scale or offset, group, place], output n is at ``places[n]``.
    """
    vectors, inputs = x.shape
    size = factors.shape[2]
    chunks = size // OUTPUTS
    row = words.size // (factors.shape[1] * PLANES * group)
    order, having = np.empty(SEGMENT, np.int64), np.empty(PLANES, np.int64)
    rounded = np.zeros((vectors, SEGMENT), np.int16)
    octets = SEGMENT // _OCTET
    tables = np.empty(vectors * (octets + 1) * _TABLES, np.uint8)
    indices = np.empty(_INDICES, np.uint64)
    rows = np.empty(_OCTET, np.int64)
    sums, whole = np.empty(vectors * size, np.int16), np.empty(vectors * size, np.int32)
    worth, sum_x, middle = (np.empty(vectors, np.float32), np.empty(vectors, np.float32), np.empty(vectors, np.float32))
    y = np.zeros((vectors, size), np.float32)
    for first in range(0, inputs, min(group, SEGMENT)):
        number = first // group
        count = min(SEGMENT, (number + 1) * group - first, inputs - first)
        _sort(planes, first, count, order, having)
        deepest = 0
        while deepest < PLANES and having[deepest] > 0:
            deepest += 1
        if deepest == 0:
            continue
        for t in range(vectors):
            worth[t] = _round(x[t], first, order, having[0], rounded[t])
            sum_x[t], middle[t] = 0, 0
            for k in range(having[0]):
                value = np.float32(rounded[t, k]) * worth[t]
                sum_x[t] += value
                middle[t] += value * np.float32(((1 << (PLANES - planes[first + order[k]])) - 1) * 0.5)
            for octet in range(-(-having[0] // _OCTET)):
                _fill(rounded[t], octet * _OCTET, having[0], tables, (t * (octets + 1) + octet) * _TABLES)
        begin = (number * group * PLANES + first - number * group) * row
        following = begin + (SEGMENT if first + SEGMENT < (number + 1) * group else group * PLANES) * row
        if first + SEGMENT >= inputs:
            following = -1
        for plane in range(deepest):
            sums[:] = 0
            kept, start = having[plane], begin + plane * group * row
            for at in range(0, kept, _OCTET):
                octet = at // _OCTET
                if at + _OCTET > kept and kept < having[0]:
                    octet = octets
                    for t in range(vectors):
                        _fill(rounded[t], at, kept, tables, (t * (octets + 1) + octets) * _TABLES)
                for i in range(_OCTET):
                    rows[i] = start + order[min(at + i, kept - 1)] * row
                # which rows follow, the processor does not foresee: the same octet of the next plane is asked for,
                # and beside the first plane that of the next segment
                if plane + 1 < deepest:
                    for i in range(at, min(at + _OCTET, having[plane + 1])):
                        far = start + (group + order[i]) * row
                        for word in range(0, row, 8):
                            _soon(words, far + word)
                if plane == 0 and following >= 0:
                    for i in range(at, at + _OCTET):
                        for word in range(0, row, 8):
                            _soon(words, following + i * row + word)
                quads = 1 if kept - at <= 4 else 2
                for chunk in range(chunks):
                    word = min(chunk * LANES, row - LANES)
                    _turn(words, rows[0] + word, rows[1] + word, rows[2] + word, rows[3] + word, indices, 0)
                    if quads == 2:
                        _turn(words, rows[4] + word, rows[5] + word, rows[6] + word, rows[7] + word, indices, 32)
                    for t in range(vectors):
                        place = (t * (octets + 1) + octet) * _TABLES
                        _look(quads, indices, tables, place, sums, t * size + chunk * OUTPUTS)
            if plane == 0:
                _widen(sums, whole)
            else:
                _append(sums, whole)
        for t in range(vectors):
            factor = worth[t] * np.float32(1 << (PLANES - deepest))
            part = whole[t * size : (t + 1) * size]
            _scale(part, factor, factors[0, number], factors[1, number], middle[t], sum_x[t], y[t])
    for t in range(vectors):
        for n in range(found.shape[1]):
            found[t, n] = y[t, places[n]]


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _widen(sums: Shorts, whole: Words) -> None:
    for i in range(whole.size):
        whole[i] = sums[i]


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _append(sums: Shorts, whole: Words) -> None:
    """The next plane: what there is counts twice."""
    for i in range(whole.size):
        whole[i] = 2 * whole[i] + sums[i]


@njit(boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _scale(
    whole: Words, factor: np.float32, scale: Singles, offset: Singles, middle: np.float32, sum_x: np.float32, y: Singles
) -> None:
    """Add a segment's sums with scales and offsets."""
    for i in range(y.size):
        y[i] += scale[i] * (factor * np.float32(whole[i]) + middle - offset[i] * sum_x)


def multiply(matrix: ChannelPlanes, x: NDArray[np.float32], planes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The product (outputs,) of a matrix of planes with inputs (inputs,), each at its own number of planes (0 to 8).

    With x (vectors, inputs) the products (vectors, outputs), all at the same planes.
    """
    several = x if x.ndim == 2 else x[None]
    found = np.empty((len(several), matrix.outputs), np.float32)
    _multiply(matrix.words.reshape(-1), matrix.factors, matrix.places, matrix.group, several, planes, found)
    return found if x.ndim == 2 else found[0]
