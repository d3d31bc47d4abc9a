# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Rows of small symbols coded near their entropy: a table of frequencies for each row, and one stream for all.

A row is, say, one channel's exponents over a group of tokens.  Its table says for each of 32 symbols the logarithm of
how often it occurs, rounded to octaves (which costs 0.02 bits a symbol); the tables of many rows are coded in the same
way, symbol by symbol, and the few tables of those are compressed plainly.  Symbols are coded by range asymmetric
numeral systems (Duda, arXiv:1311.2540) with 32-bit states, ten bits of frequency and four states that take turns, so
that a processor decodes four symbols at a time.

Limits: symbols of 0 to 31; the decoder trusts what it reads, which never leaves memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tierform.arrays import Bytes, Ints, Numbers, Unsigned

SYMBOLS = 32
LANES = 4
_BITS = 10  # of a frequency
_TOTAL = 1 << _BITS
_LOW = 1 << 16  # a state is at least this between symbols
FAR = SYMBOLS // 2 - 1  # exponents at least so far below a row's largest are kept apart
_PLAIN_ROWS = 64  # tables of so many rows or fewer are not worth a code of their own

Shorts = NDArray[np.uint16]


class Compressor(Protocol):
    """What compresses the last tables: zstd."""

    def compress(self, data: bytes) -> bytes:
        """A compressed copy."""
        ...


class Decompressor(Protocol):
    """The opposite."""

    def decompress(self, data: bytes, *, max_output_size: int) -> bytes:
        """The content again."""
        ...


@dataclass(frozen=True, slots=True)
class CodedRows:
    """Coded symbols: the stream (16-bit words behind the last states), and the tables, coded or compressed."""

    stream: bytes
    tables: CodedRows | bytes

    @property
    def size_B(self) -> int:
        """Bytes of stream and tables."""
        return len(self.stream) + (len(self.tables) if isinstance(self.tables, bytes) else self.tables.size_B)


def encode_rows(symbols: NDArray[np.uint8], compressor: Compressor) -> CodedRows:
    """Code `symbols` [row, place], each below 32."""
    rows, places = symbols.shape
    levels = np.zeros((rows, SYMBOLS), np.uint8)
    room = np.empty(rows * places + 2 * LANES, np.uint16)
    first = _encode(symbols, levels, room)
    stream = room[first:].tobytes()
    if rows <= _PLAIN_ROWS:
        return CodedRows(stream, compressor.compress(np.ascontiguousarray(levels.T).tobytes()))
    return CodedRows(stream, encode_rows(np.ascontiguousarray(levels.T), compressor))


def decode_rows(coded: CodedRows, rows: int, places: int, decompressor: Decompressor) -> NDArray[np.uint8]:
    """The symbols [row, place] again."""
    found = np.empty((rows, places), np.uint8)
    _decode(np.frombuffer(coded.stream + b"\0\0", np.uint16), tables_of(coded, rows, decompressor), found)
    return found


def tables_of(coded: CodedRows, rows: int, decompressor: Decompressor) -> NDArray[np.uint8]:
    """The tables [row, symbol] of coded symbols, as levels."""
    if isinstance(coded.tables, bytes):
        content = decompressor.decompress(coded.tables, max_output_size=rows * SYMBOLS)
        turned = np.frombuffer(content, np.uint8).reshape(SYMBOLS, rows)
    else:
        turned = decode_rows(coded.tables, SYMBOLS, rows, decompressor)
    return np.ascontiguousarray(turned.T)


@njit(cache=True, nogil=True)
def _frequencies(levels: Bytes, found: Ints) -> None:
    """Frequencies of a row's symbols, which sum to 1024: level l stands for 2^(l - 1), 0 for none; at least 1 each."""
    total, most, place = 0, -1, 0
    for symbol in range(SYMBOLS):
        if levels[symbol] > 0:
            total += 1 << (levels[symbol] - 1)
    left = _TOTAL
    for symbol in range(SYMBOLS):
        found[symbol] = 0
        if levels[symbol] > 0:
            found[symbol] = max(1, (_TOTAL << (levels[symbol] - 1)) // total)
            left -= found[symbol]
            if found[symbol] > most:
                most, place = found[symbol], symbol
    found[place] += left  # the most frequent one takes what rounding left: at most 31 of at least 32


@njit(cache=True, nogil=True)
def _encode(symbols: Bytes, levels: Bytes, room: Shorts) -> int:
    """Fill the tables [row, symbol] and the end of `room`; where the stream begins."""
    rows, places = symbols.shape
    counts, frequency, start = np.zeros(SYMBOLS, np.int64), np.empty(SYMBOLS, np.int64), np.empty(SYMBOLS, np.int64)
    states = np.full(LANES, _LOW, np.int64)
    at = room.size
    for row in range(rows - 1, -1, -1):
        counts[:] = 0
        for place in range(places):
            counts[symbols[row, place]] += 1
        for symbol in range(SYMBOLS):
            if counts[symbol] > 0:
                levels[row, symbol] = 1 + int(np.rint(np.log2(counts[symbol])))
        _frequencies(levels[row], frequency)
        total = 0
        for symbol in range(SYMBOLS):
            start[symbol] = total
            total += frequency[symbol]
        for place in range(places - 1, -1, -1):
            lane, symbol = place % LANES, symbols[row, place]
            state = states[lane]
            if state >= frequency[symbol] << (32 - _BITS):
                at -= 1
                room[at] = state & 0xFFFF
                state >>= 16
            states[lane] = (state // frequency[symbol] << _BITS) + state % frequency[symbol] + start[symbol]
    for lane in range(LANES - 1, -1, -1):
        at -= 2
        room[at], room[at + 1] = states[lane] & 0xFFFF, states[lane] >> 16
    return at


@njit(inline="always")
def _next(state: np.uint32, at: int, stream: Shorts, slots: Unsigned, out: Bytes, place: int) -> tuple[np.uint32, int]:
    """Take one symbol from a state: the state after it, and the place in the stream."""
    entry, word = slots[state & np.uint32(_TOTAL - 1)], np.uint32(stream[at])
    out[place] = entry & np.uint32(SYMBOLS - 1)
    factor, shift = (entry >> np.uint32(5)) & np.uint32(2 * _TOTAL - 1), entry >> np.uint32(16)
    state = factor * (state >> np.uint32(_BITS)) + shift
    low = state < np.uint32(_LOW)  # without a branch: which symbols need a word is not to be foreseen
    state = (state << np.uint32(16) | word) if low else state
    return state, at + (1 if low else 0)


@njit(cache=True, nogil=True, boundscheck=False)
def _decode(stream: Shorts, levels: Bytes, symbols: Bytes) -> None:
    """Fill `symbols` [row, place]; behind the stream lies one more word, which is read and not used."""
    rows, places = symbols.shape
    frequency = np.empty(SYMBOLS, np.int64)
    slots = np.empty(_TOTAL, np.uint32)  # of each place in the table: symbol, its frequency, what to add
    states = np.empty(LANES, np.uint32)
    for lane in range(LANES):
        states[lane] = np.uint32(stream[2 * lane]) | np.uint32(stream[2 * lane + 1]) << np.uint32(16)
    a, b, c, d = states
    at = 2 * LANES
    for row in range(rows):
        _frequencies(levels[row], frequency)
        total = 0
        for symbol in range(SYMBOLS):
            entry = np.uint32(symbol | frequency[symbol] << 5)
            for offset in range(frequency[symbol]):
                slots[total + offset] = entry | np.uint32(offset) << np.uint32(16)
            total += frequency[symbol]
        out, place = symbols[row], 0
        while place + LANES <= places:
            a, at = _next(a, at, stream, slots, out, place)
            b, at = _next(b, at, stream, slots, out, place + 1)
            c, at = _next(c, at, stream, slots, out, place + 2)
            d, at = _next(d, at, stream, slots, out, place + 3)
            place += LANES
        if place < places:
            a, at = _next(a, at, stream, slots, out, place)
        if place + 1 < places:
            b, at = _next(b, at, stream, slots, out, place + 1)
        if place + 2 < places:
            c, at = _next(c, at, stream, slots, out, place + 2)


@njit(cache=True, nogil=True)
def split_words(words: Numbers, mantissa: int, exponent_bits: int, base: Numbers, symbols: Bytes, far: Bytes) -> int:
    """Sign and exponent of floats [row, place] as symbols, below each row's largest exponent; how many are in `far`."""
    mask, count = (1 << exponent_bits) - 1, 0
    for row in range(words.shape[0]):
        largest = 0
        for place in range(words.shape[1]):
            largest = max(largest, int((np.int64(words[row, place]) >> mantissa) & mask))
        base[row] = largest
        for place in range(words.shape[1]):
            word = np.int64(words[row, place])
            below = largest - int((word >> mantissa) & mask)
            if below >= FAR:
                far[count] = below
                count += 1
            symbols[row, place] = min(below, FAR) << 1 | word >> (mantissa + exponent_bits)
    return count


@njit(cache=True, nogil=True)
def join_words(words: Numbers, symbols: Bytes, far: Bytes, base: Bytes, mantissa: int, exponent_bits: int) -> None:
    """Put sign and exponent into words [row, place] that hold mantissas."""
    count = 0
    for row in range(words.shape[0]):
        for place in range(words.shape[1]):
            symbol = np.int64(symbols[row, place])
            below = symbol >> 1
            if below == FAR:
                below = np.int64(far[count])
                count += 1
            head = (symbol & 1) << exponent_bits | np.int64(base[row]) - below
            words[row, place] = np.int64(words[row, place]) | head << mantissa


@njit(cache=True, nogil=True)
def cut_words(words: Numbers, mantissa: int, exponent_bits: int, missing: int) -> None:
    """Set the last `missing` bits of floats to the middle of what they leave open; to zero for infinities and NaN."""
    if missing == 0:
        return
    mask = (1 << exponent_bits) - 1
    for row in range(words.shape[0]):
        for place in range(words.shape[1]):
            word = np.int64(words[row, place]) >> missing << missing
            if (word >> mantissa) & mask != mask:
                word |= 1 << (missing - 1)
            words[row, place] = word
