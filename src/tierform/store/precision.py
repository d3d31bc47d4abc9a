"""Which precision each block of a tensor is read at: one for all, one for each group of rows, or one for each block.

What an element type cannot be read at, or does not fit the tensor's shape, is a TierformError that says what would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.store.elements import BLOCK_WEIGHTS
from tierform.store.layout import TensorEntry


@dataclass(frozen=True, slots=True)
class RowBits:
    """A precision for each group of `rows_per_group` rows (first dimension); the last group may be shorter.

    A block that lies in two groups is read at the higher of their precisions.  0 bits gives zeros and reads nothing.
    """

    bits: Sequence[int] | NDArray[np.integer]
    rows_per_group: int


@dataclass(frozen=True, slots=True)
class BlockBits:
    """A precision for each 512-weight block; 0 bits gives zeros and reads nothing."""

    bits: Sequence[int] | NDArray[np.integer]


Bits = int | RowBits | BlockBits | None


def block_bits(entry: TensorEntry, bits: Bits) -> NDArray[np.uint8]:
    """The precision of each block (or one for all), checked against the element type and the tensor's size."""
    element, name = entry.element, entry.name
    if bits is None:
        return np.full(1, element.planes, np.uint8)
    if not isinstance(bits, (RowBits, BlockBits)):
        return np.full(1, element.check_bits(bits, name), np.uint8)
    given = np.asarray(bits.bits)
    if given.ndim != 1 or (given.size and not np.issubdtype(given.dtype, np.integer)):
        fail("one whole number of bits for each group is needed", key=name, value=str(given.dtype))
    low, high = (int(given.min()), int(given.max())) if given.size else (0, 0)
    if low < 0 or high > element.planes:
        fail(f"{element.name} is read at 0 to {element.planes} bits", key=name, value=low if low < 0 else high)
    if not element.partial and given.size and not np.isin(given, (0, element.planes)).all():
        fail(f"{element.name} can only be read whole, at {element.planes} bits", key=name)
    if isinstance(bits, BlockBits):
        if given.size != entry.blocks:
            fail(f"{entry.blocks} blocks need as many precisions", key=name, value=given.size)
        return given.astype(np.uint8)
    if not entry.shape or bits.rows_per_group < 1:
        fail("a precision by rows needs rows, and at least one in a group", key=name, value=bits.rows_per_group)
    groups = -(-entry.shape[0] // bits.rows_per_group)
    if given.size != groups:
        fail(f"{groups} groups of {bits.rows_per_group} rows need as many precisions", key=name, value=given.size)
    result = np.zeros(entry.blocks, np.uint8)
    row_weights = entry.weights // entry.shape[0] if entry.shape[0] else 0
    for group in range(groups):
        first = group * bits.rows_per_group * row_weights
        last = min((group + 1) * bits.rows_per_group * row_weights, entry.weights)
        span = slice(first // BLOCK_WEIGHTS, -(-last // BLOCK_WEIGHTS))
        result[span] = np.maximum(result[span], given[group])
    return result
