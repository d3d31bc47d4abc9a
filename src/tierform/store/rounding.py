# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Codes of which only the first bits were kept: what a fill may not do to them, and rounding to fewer bits.

A fill must not make an infinity or a NaN out of a number, nor the reverse; rounding goes to the nearest value, ties
away from zero, and stops at the largest.  Codes are those of the types in `elements`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tierform.arrays import Array, Bits, Bytes

FILL_ZERO, FILL_MIDPOINT = 0, 1


@njit(cache=True, nogil=True)
def mend(words: Bits, width: int, kept: int, exponent_bits: int, infinities: int, fill: int) -> None:
    """Put right the codes of one block whose kept exponent bits are all ones."""
    one = np.uint64(1)
    mantissa = width - 1 - exponent_bits
    exponent = ((one << np.uint64(exponent_bits)) - one) << np.uint64(mantissa)
    low = (one << np.uint64(width - kept)) - one
    largest = (one << np.uint64(width - 1)) - one
    lane = largest + largest + one
    for i in range(words.size):
        result = np.uint64(0)
        for shift in range(0, 64, width):
            code = (words[i] >> np.uint64(shift)) & lane
            if infinities == 0:
                if code & largest == largest:  # the one NaN of E4M3, made by the fill: the largest number instead
                    code -= one
            elif code & exponent == exponent:
                if kept >= 1 + exponent_bits:
                    code &= ~low
                else:  # the fill reached the exponent of infinity: the middle of the numbers below it
                    code -= one << np.uint64(mantissa)
                    if fill == FILL_MIDPOINT:
                        code |= one << np.uint64(mantissa - 1)
            result |= code << np.uint64(shift)
        words[i] = result


@njit(cache=True, nogil=True)
def round_codes(codes: Array, kept: Bytes, planes: int, width: int, exponent_bits: int, infinities: int) -> None:
    """Round each code to its nearest value of `kept` bits in place (ties away from zero; saturates, never wraps).

    `kept` has one number per 512 codes.  Integers (`exponent_bits` 0) are two's complement of `planes` bits.
    """
    one = np.uint64(1)
    sign = one << np.uint64(width - 1)
    full = sign + (sign - one)
    mantissa = width - 1 - exponent_bits
    exponent = ((one << np.uint64(exponent_bits)) - one) << np.uint64(mantissa)
    for index in range(codes.size):
        bits = np.int64(kept[index // 512])
        if bits <= 0 or bits >= planes:
            continue
        missing = np.uint64(planes - bits)
        low = (one << missing) - one
        half = one << (missing - one)
        code = np.uint64(codes[index])
        if exponent_bits == 0:
            top = (one << np.uint64(planes - 1)) - one
            biased = (code + (top + one)) & ((top << one) | one)  # order of values as order of numbers
            limit = ((top << one) | one) & ~low
            rounded = min((biased + half) & ~low, limit)
            value = (rounded + (top + one)) & ((top << one) | one)
            if value > top:
                value |= full & ~((top << one) | one)
            codes[index] = value
            continue
        magnitude = code & (sign - one)
        if infinities != 0 and magnitude & exponent == exponent:
            codes[index] = (code & sign) | (magnitude & ~low)
            continue
        rounded = (magnitude + half) & ~low
        over = rounded >= exponent if infinities != 0 else rounded >= sign - one
        codes[index] = (code & sign) | ((magnitude & ~low) if over else rounded)
