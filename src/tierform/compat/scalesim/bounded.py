# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""SCALE-Sim's buffers behind given bandwidths and memories, rebuilt from their observed rules, compiled.

The prefetching read buffers, with a plain SRAM or one whose words are laid out over banks, and the run of all buffers.
A record's places are those of :mod:`tierform.compat.scalesim.records`.  `marks` of a plain buffer count how often an
address is held; where there are banks, they are the line of each address.
"""

from __future__ import annotations

from tierform.compat.scalesim.records import (
    ACCESSES,
    ACTIVE,
    AHEAD,
    BANK_PORTS,
    BANK_WORDS,
    BANKS,
    BEGIN,
    FETCH_CYCLES,
    FETCH_WORDS,
    FETCHED,
    FETCHED_AT,
    FETCHES,
    FIRST_LINES,
    HELD_AT,
    LINES,
    LOGGED,
    OVERFLOWN,
    START,
    STOP,
    WORDS,
)
from tierform.compat.scalesim.streams import FOLD, address_of, asked_address, asking_ports, line_asks
from tierform.compat.scalesim.write_buffer import finish_writes, outputs, respond, write_line
from tierform.jit import compiled, inlined

# Where the arrays of an operand stand in the table of :func:`run_bounded`, from the operand's first on.
_STREAM, _FOLDS, _SHAPE, _RECORD, _FETCHED, _SEEN_LINES, _ASKED, _LATENCIES, _QUEUE, _LOG = range(10)
_INPUTS, _WEIGHTS = 9, 19


def prefetch_order(p, _):
    """Addresses in the order in which a prefetching buffer fetches them; the number of them.

    `p` = (result, (number of tiles, height, width, along diagonals?), stream, tiles, shape).  The operand's tiles
    (first port's place, ports used) stand one below the other, `height` lines of `width` ports each; they are taken
    line by line, or along the diagonals of the whole.
    """
    result, stream, tiles, shape = p[0], p[2], p[3], p[4]
    number, height, width, diagonal = p[1][0], p[1][1], p[1][2], p[1][3]
    total = height * number
    count = 0
    outer = total + width - 1 if diagonal == 1 else total
    for a in range(outer):
        low = max(0, a - total + 1) if diagonal == 1 else 0
        high = min(width, a + 1) if diagonal == 1 else width
        for column in range(low, high):
            row = a - column if diagonal == 1 else a
            tile, step = row // height, row % height
            if column >= tiles[2 * tile + 1]:
                continue
            x = tiles[2 * tile] + column
            address = address_of(stream[0], x, step, shape) if stream[2] == 1 else address_of(stream[0], step, x, shape)
            if address >= 0:
                result[count] = address
                count += 1
    return count


@inlined
def _hold(record, held, fetched, line, change):
    low, at = line * record[WORDS], record[HELD_AT]
    for index in range(low, min(low + record[WORDS], record[FETCHED])):
        held[at + fetched[index]] += change


@compiled
def _fetch(record, latencies, queue, log):
    """Fetch the next part of the operand; the cycle when it is there."""
    if record[FETCHES] < record[LOGGED]:
        log[record[FETCHES]] = record[FETCHED_AT] + 1
    record[FETCHES] += 1
    record[ACCESSES] += record[FETCH_WORDS]
    low, high = respond(record, latencies, queue, record[FETCHED_AT] + 1, record[FETCH_CYCLES])
    record[FETCHED_AT] = high
    record[STOP] = max(record[STOP], high)
    record[BEGIN] = min(record[BEGIN], low)
    return high


@compiled
def _read_line(p, o, held, fold, line, cycle):
    """Serve the demand of a line: the delay in cycles.  A miss moves the window on and waits (twice, as observed)."""
    stream, folds, shape, record = p[o + _STREAM], p[o + _FOLDS], p[o + _SHAPE], p[o + _RECORD]
    fetched = p[o + _FETCHED]
    low, high = asking_ports(stream, folds, fold, line)
    at = record[HELD_AT]
    offset = 1
    for column in range(low, high):
        address = asked_address(stream, folds, fold, line, column, shape)
        if address < 0:
            continue
        while held[at + address] == 0 and record[AHEAD] > 0:
            for step in range(record[AHEAD]):
                _hold(record, held, fetched, (record[START] + step) % record[LINES], -1)
                _hold(record, held, fetched, (record[START] + record[ACTIVE] + step) % record[LINES], 1)
            record[START] = (record[START] + record[AHEAD]) % record[LINES]
            wait = _fetch(record, p[o + _LATENCIES], p[o + _QUEUE], p[o + _LOG]) - (cycle + offset)
            offset += wait
            if wait > 0:
                offset += wait
    return offset - 1


@compiled
def _read_banked_line(p, o, line_of, fold, line, cycle, position):
    """As :func:`_read_line` from a laid-out SRAM, where lines of one bank are read one after the other.

    `seen_lines[bank, line]` is the last demand that read the line there.
    """
    stream, folds, shape, record = p[o + _STREAM], p[o + _FOLDS], p[o + _SHAPE], p[o + _RECORD]
    place_of, seen_lines, asked = p[o + _FETCHED], p[o + _SEEN_LINES], p[o + _ASKED]
    low, high = asking_ports(stream, folds, fold, line)
    offset = 1
    for bank in range(record[BANKS]):
        asked[bank] = 0
    most = 0
    for column in range(low, high):
        address = asked_address(stream, folds, fold, line, column, shape)
        if address < 0:
            continue
        where = line_of[record[HELD_AT] + address]
        while (where - record[START]) % record[LINES] >= record[ACTIVE] and record[AHEAD] > 0:
            record[START] = (record[START] + record[AHEAD]) % record[LINES]
            wait = _fetch(record, p[o + _LATENCIES], p[o + _QUEUE], p[o + _LOG]) - (cycle + offset)
            offset += max(0, wait)
        bank = place_of[address] // record[BANK_WORDS]
        if seen_lines[bank * record[LINES] + where] != position:
            seen_lines[bank * record[LINES] + where] = position
            asked[bank] += 1
            most = max(most, asked[bank])
    return offset - 1 + -(-most // record[BANK_PORTS]) - 1


@compiled
def _serve(p, o, marks, f, line, cycle, position):
    """The delay of one operand's demand."""
    if p[o + _RECORD][BANKS] == 0:
        return _read_line(p, o, marks, f * FOLD, line, cycle)
    return _read_banked_line(p, o, marks, f * FOLD, line, cycle, position)


@compiled
def _fill(p, o, held):
    """Fill the active buffer before the first demand: the cycles by which it comes late."""
    record, lines = p[o + _RECORD], p[o + _RECORD][FIRST_LINES]
    low, high = respond(record, p[o + _LATENCIES], p[o + _QUEUE], -lines - 1, lines)
    record[FETCHED_AT], record[STOP], record[BEGIN] = high, high, low
    if record[BANKS] == 0:
        for step in range(record[ACTIVE]):
            _hold(record, held, p[o + _FETCHED], step, 1)
    return high + 1


@inlined
def _see(seen, operand, cycle):
    if seen[2 * operand] < 0:
        seen[2 * operand] = cycle
    seen[2 * operand + 1] = cycle


def run_bounded(p, marks):
    """All three buffers together behind given bandwidths; -1 where the ring of the write buffer is too short.

    `p` = (found (2,), (lines, number of folds), seen (3, 2), output, its folds, write record, ring, latencies and queue
    of the writes, ...), the ten arrays of inputs and of weights in the order above, and the log of the drains.  Found
    are the stalls and the cycle of the last line; seen, for inputs, weights and outputs, the cycles of the first and
    the last line in which they are asked for.
    """
    lines, total, seen = p[1][0], p[1][1], p[2]
    output, output_folds, writes, ring, latencies, queue = p[3], p[4], p[5], p[6], p[7], p[8]
    log = p[_WEIGHTS + _LOG + 1]
    for index in range(6):
        seen[index] = -1
    late_a, late_b = _fill(p, _INPUTS, marks), _fill(p, _WEIGHTS, marks)
    stall, position, current, last = 0, 0, 0, 0
    for f in range(total):
        for line in range(lines):
            cycle = position + stall
            a = _serve(p, _INPUTS, marks, f, line, cycle, position)
            b = _serve(p, _WEIGHTS, marks, f, line, cycle, position)
            if position == 0:
                a += late_a
                b += late_b
            words = outputs(output, output_folds, 2 * f, line)
            current = write_line(writes, ring, words, cycle, latencies, queue, log)
            last = max(last, current)
            if line_asks(p[_INPUTS + _STREAM], p[_INPUTS + _FOLDS], f * FOLD, line, p[_INPUTS + _SHAPE]):
                _see(seen, 0, cycle + a + 1)
            if line_asks(p[_WEIGHTS + _STREAM], p[_WEIGHTS + _FOLDS], f * FOLD, line, p[_WEIGHTS + _SHAPE]):
                _see(seen, 1, cycle + b + 1)
            if words > 0:
                _see(seen, 2, current)
            stall += max(a, b, current - cycle)
            position += 1
        if writes[OVERFLOWN] == 1:
            return -1
    finish_writes(writes, ring, current, latencies, queue, log)
    p[0][0], p[0][1] = stall, last
    return -writes[OVERFLOWN]
