"""Nested integers: 8-bit codes of a matrix whose first planes are themselves a good quantization, by input channel.

A group is `group` successive inputs of one output, with a scale s and an offset o (both fp16): value = (code - o) s.
Read at p planes, the missing bits stand at their midpoint: code = floor(code / 2^(8-p)) 2^(8-p) + (2^(8-p) - 1) / 2.
How the range of a group lies on the 256 codes decides how good its first planes are.  A few scales and shifts are
tried for every group, and the one with the least error over four, five and six planes is taken, each error counted in
units of what that many planes cost.

Planes are kept channel by channel: a group of inputs has the rows of its first plane, then those of the second,
and so on; a row has one bit for each output.  Bit r of byte i of a row of n bytes belongs to output r n + i, so that
eight rows are turned into bytes by three exchanges of bits (:mod:`tierform.store.matvec`).

Limits: 8 planes; outputs are padded to whole 64-bit words, at least four of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tierform.arrays import Bytes, Ints, Singles
from tierform.errors import fail

PLANES = 8
WORD, LEAST_WORDS = 64, 4
# A product takes four words of a row at once, and has its 256 sums in an order of its own.
LANES, OUTPUTS = 4, 256
PLACES = (0, 16, 8, 24)  # where the sums of the four words stand within each 32
# Codes that the range of a group spans, and shifts of its middle: the candidates of the search.
SPANS = (255.0, 248.0, 240.0)
SHIFTS = (0.0, -4.0, -2.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class NestedMatrix:
    """A matrix (outputs, inputs) as codes; `scale` and `offset` are [input group, output], fp16 values as float32."""

    codes: NDArray[np.uint8]
    scale: Singles
    offset: Singles
    group: int

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def bits_per_weight(self) -> float:
        """Bits of one weight at all planes, scales and offsets included."""
        return PLANES + 32 * int(self.scale.shape[0]) / self.shape[1]

    def values(self, planes: int | NDArray[np.integer] = PLANES) -> Singles:
        """The matrix read at `planes`: one number, or one for each input; an input of 0 planes gives zeros."""
        depth = np.broadcast_to(np.asarray(planes, np.int64), (self.shape[1],))
        if depth.size and (depth.min() < 0 or depth.max() > PLANES):
            fail(f"nested integers are read at 0 to {PLANES} planes", key="planes", value=int(depth.max()))
        found = np.empty(self.shape, np.float32)
        _values(self.codes, self.scale, self.offset, self.group, depth, found)
        return found

    def channel_errors(self, exact: Singles) -> Singles:
        """Squared error of each input channel's weights at 0 to 8 planes, [input, planes + 1]: what the rule stores."""
        found = np.zeros((self.shape[1], PLANES + 1), np.float32)
        _errors(self.codes, self.scale, self.offset, self.group, np.ascontiguousarray(exact, np.float32), found)
        return found


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _values(codes: Bytes, scale: Singles, offset: Singles, group: int, depth: Ints, found: Singles) -> None:
    outputs, inputs = codes.shape
    mask, middle = np.empty(inputs, np.int32), np.empty(inputs, np.float32)
    for k in range(inputs):
        step = 1 << (8 - depth[k])
        mask[k], middle[k] = -step, (step - 1) * 0.5
    for n in range(outputs):
        for g in range(scale.shape[0]):
            s, o = scale[g, n], offset[g, n]
            for k in range(g * group, min((g + 1) * group, inputs)):
                found[n, k] = (np.float32(codes[n, k] & mask[k]) + middle[k] - o) * s
    for k in range(inputs):
        if depth[k] == 0:
            found[:, k] = 0


@njit(cache=True, nogil=True, fastmath=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _errors(codes: Bytes, scale: Singles, offset: Singles, group: int, exact: Singles, found: Singles) -> None:
    outputs, inputs = codes.shape
    for n in range(outputs):
        for k in range(inputs):
            s, o, code, weight = scale[k // group, n], offset[k // group, n], np.int32(codes[n, k]), exact[n, k]
            found[k, 0] += weight * weight
            for planes in range(1, 9):
                step = np.int32(1 << (8 - planes))
                value = np.float32(code & -step) + np.float32(step - 1) * np.float32(0.5)
                off = (value - o) * s - weight
                found[k, planes] += off * off


def nest(matrix: Singles, group: int = 64) -> NestedMatrix:
    """The nested integers of a matrix (outputs, inputs); TierformError when it holds NaN or the group is impossible."""
    if matrix.ndim != 2 or not matrix.size:
        fail("nested integers are for matrices", key="shape", value=matrix.shape)
    if group < 8:
        fail("a group has at least 8 inputs", key="group", value=group)
    if not np.isfinite(matrix).all():
        fail("the weights hold NaN or infinity", key="matrix")
    exact = np.ascontiguousarray(matrix, np.float32)
    outputs, inputs = exact.shape
    groups = -(-inputs // group)
    low = np.minimum(np.minimum.reduceat(exact, np.arange(0, inputs, group), axis=1), 0)
    high = np.maximum(np.maximum.reduceat(exact, np.arange(0, inputs, group), axis=1), 0)
    scales = np.empty((outputs, groups, len(SPANS)), np.float32)
    offsets = np.empty((outputs, groups, len(SPANS), len(SHIFTS)), np.float32)
    for number, span in enumerate(SPANS):
        scale = np.maximum(((high - low) / span).astype(np.float16).astype(np.float32), np.float32(2**-24))
        scales[..., number] = scale
        middle = 127.5 - (low + high) / (2 * scale)
        offsets[..., number, :] = (middle[..., None] + np.array(SHIFTS)).astype(np.float16)
    codes = np.empty((outputs, inputs), np.uint8)
    chosen = np.empty((2, outputs, groups), np.float32)
    _choose(exact, group, scales, offsets, codes, chosen[0], chosen[1])
    return NestedMatrix(codes, np.ascontiguousarray(chosen[0].T), np.ascontiguousarray(chosen[1].T), group)


@njit(cache=True, nogil=True, fastmath=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _judge(row: Singles, inverse: np.float32, offset: np.float32) -> np.float32:
    """The error of a group, in codes, over four, five and six planes, each in units of what so many planes cost."""
    total = np.float32(0)
    for k in range(row.size):
        place = row[k] * inverse + offset
        code = np.int32(min(max(place + np.float32(0.5), np.float32(0)), np.float32(255)))
        four = np.float32(code & 240) + np.float32(7.5) - place
        five = np.float32(code & 248) + np.float32(3.5) - place
        six = np.float32(code & 252) + np.float32(1.5) - place
        total += four * four + np.float32(4) * five * five + np.float32(16) * six * six
    return total


@njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _choose(
    matrix: Singles, group: int, scales: Singles, offsets: Singles, codes: Bytes, scale: Singles, offset: Singles
) -> None:
    """The best candidate of every group, and its codes."""
    outputs, inputs = matrix.shape
    for n in range(outputs):
        for g in range(scales.shape[1]):
            first, last = g * group, min((g + 1) * group, inputs)
            row = matrix[n, first:last]
            least, best_scale, best_offset = np.inf, np.float32(1), np.float32(0)
            for a in range(scales.shape[2]):
                tried = scales[n, g, a]
                for b in range(offsets.shape[3]):
                    error = _judge(row, np.float32(1) / tried, offsets[n, g, a, b]) * tried * tried
                    if error < least:
                        least, best_scale, best_offset = error, tried, offsets[n, g, a, b]
            scale[n, g], offset[n, g] = best_scale, best_offset
            for k in range(first, last):
                place = matrix[n, k] / best_scale + best_offset
                codes[n, k] = np.uint8(min(max(np.rint(place), 0), 255))


@dataclass(frozen=True, slots=True)
class ChannelPlanes:
    """Bit planes of input channels: `words` [input group, plane, input, word], `scale` and `offset` [group, output].

    Outputs are padded to whole words, inputs to whole groups; padded outputs have scale 0.  A product works with
    `factors` [scale or offset, group, place] and finds output n at ``places[n]``: see :func:`sums_order`.
    """

    words: NDArray[np.uint64]
    scale: Singles
    offset: Singles
    group: int
    outputs: int
    inputs: int
    factors: Singles = field(init=False)
    places: Ints = field(init=False)

    def __post_init__(self) -> None:
        """Bring scales and offsets into the order of a product's sums."""
        order = sums_order(int(self.words.shape[3]))
        places = np.empty(int(self.words.shape[3]) * WORD, np.int64)
        places[order] = np.arange(order.size)
        factors = np.ascontiguousarray(np.stack([self.scale[:, order], self.offset[:, order]]))
        object.__setattr__(self, "factors", factors)
        object.__setattr__(self, "places", places[: self.outputs])

    def channel_B(self, planes: int = 1) -> int:
        """Bytes of `planes` planes of one input channel."""
        return planes * int(self.words.shape[3]) * 8


def sums_order(words: int) -> Ints:
    """Which output the sum at each place of a product is, for rows of so many words.

    A chunk is four successive words of a row; the last one may begin within the one before, whose outputs it has, too.
    """
    found = []
    for chunk in range(-(-words // LANES)):
        first = min(chunk * LANES, words - LANES)
        outputs = np.empty((8, 32), np.int64)
        for lane, place in enumerate(PLACES):
            outputs[:, place : place + 8] = (first + lane) * 8 + np.arange(8) + np.arange(8)[:, None] * words * 8
        found.append(outputs.reshape(-1))
    return np.concatenate(found)


def to_planes(matrix: NestedMatrix) -> ChannelPlanes:
    """A nested matrix channel by channel."""
    outputs, inputs = matrix.shape
    words = max(LEAST_WORDS, -(-outputs // WORD))
    row, groups, size = words * 8, matrix.scale.shape[0], matrix.group
    padded = np.zeros((groups * size, row * 8), np.uint8)
    padded[:inputs, :outputs] = matrix.codes.T
    by_bit = padded.reshape(groups, size, 8, row)  # output r row + i is bit r of byte i
    planes = np.empty((groups, PLANES, size, row), np.uint8)
    for plane in range(PLANES):
        bit = (by_bit >> np.uint8(PLANES - 1 - plane)) & np.uint8(1)
        planes[:, plane] = np.packbits(bit, axis=2, bitorder="little")[:, :, 0]
    scale = np.zeros((groups, words * WORD), np.float32)
    offset = np.zeros_like(scale)
    scale[:, :outputs], offset[:, :outputs] = matrix.scale, matrix.offset
    return ChannelPlanes(planes.view(np.uint64), scale, offset, size, outputs, inputs)


def from_planes(planes: ChannelPlanes) -> NestedMatrix:
    """The opposite of :func:`to_planes`."""
    content = planes.words.view(np.uint8)
    groups, _, size, row = content.shape
    codes = np.zeros((groups, size, 8, row), np.uint8)
    for plane in range(PLANES):
        bits = np.unpackbits(content[:, plane, :, None, :], axis=2, bitorder="little")
        codes |= bits << np.uint8(PLANES - 1 - plane)
    kept = planes.outputs
    return NestedMatrix(
        np.ascontiguousarray(codes.reshape(groups * size, -1)[: planes.inputs, :kept].T),
        planes.scale[:, :kept],
        planes.offset[:, :kept],
        planes.group,
    )
