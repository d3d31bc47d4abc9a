# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""SCALE-Sim's read buffer of the stall-free mode, rebuilt from its observed rules, compiled.

A new element joins the current set; it is held while its set is in the window of 50 sets; when 50 sets are full the
window moves on.  `marks` keeps the last set of each element.
"""

from __future__ import annotations

from tierform.compat.scalesim.records import (
    BEGUN,
    CURRENT,
    DONE,
    END,
    FIRST_CYCLE,
    SEEN,
    SET_BANDWIDTH,
    SET_SIZE,
    WINDOW,
)
from tierform.compat.scalesim.streams import FOLD, asked_address, asking_ports
from tierform.jit import inlined

_SETS = 50  # of a window


@inlined
def _cycle_of(record, stalls, stalled, position):
    """The cycle of a line that asks for something."""
    cycle = position + stalls[position] if stalled == 1 else position
    if record[SEEN] == 0:
        record[SEEN], record[FIRST_CYCLE] = 1, cycle
    return cycle


@inlined
def _next_set(record, cycle):
    """The current set is full."""
    record[CURRENT] += 1
    if record[CURRENT] == record[WINDOW] + _SETS:
        if record[DONE] == 0:
            first = record[FIRST_CYCLE] - 2
            record[BEGUN] = first - -(-(_SETS * record[SET_SIZE]) // record[SET_BANDWIDTH]) + 2
            record[DONE] = 1
        record[WINDOW] += _SETS
        record[END] = cycle


@inlined
def _finish(record, found, reads, filled):
    """Write (reads, start cycle, stop cycle)."""
    found[0], found[1], found[2] = reads, record[BEGUN], record[END] + 1
    if record[DONE] == 0:
        sets = record[CURRENT] + (1 if filled > 0 else 0)
        found[1], found[2] = -sets * record[SET_SIZE] // record[SET_BANDWIDTH], -1


def estimate_reads(p, marks):
    """The stall-free read buffer.

    `p` = (found (3,), (number of folds, are there stalls?), record, stream, folds, stalls, shape); `stalls` is the
    delay before each line.
    """
    total, stalled = p[1][0], p[1][1]
    record, stream, folds, stalls, shape = p[2], p[3], p[4], p[5], p[6]
    set_size, lines = record[SET_SIZE], stream[6]
    filled, reads = 0, 0
    current, window = record[CURRENT], record[WINDOW]
    for f in range(total):
        for line in range(lines):
            low, high = asking_ports(stream, folds, f * FOLD, line)
            if high <= low:
                continue
            cycle = _cycle_of(record, stalls, stalled, f * lines + line)
            for port in range(low, high):
                address = asked_address(stream, folds, f * FOLD, line, port, shape)
                if address < 0 or marks[address] >= window:
                    continue
                marks[address] = current
                reads += 1
                filled += 1
                if filled == set_size:
                    filled = 0
                    _next_set(record, cycle)
                    current, window = record[CURRENT], record[WINDOW]
    _finish(record, p[0], reads, filled)
    return 0


def estimate_product_reads(p, marks):
    """As :func:`estimate_reads` for an operand of a plain product, where addresses may be laid out freely.

    `p` = (found (3,), (number of folds, are there stalls?, ports of a tile, once?), record, stream, folds, stalls).
    Every tile has a place of its own in which the elements of a line are neighbours.  With `once` no element is asked
    for in two folds, and nothing has to be remembered.
    """
    total, stalled, tile_ports, once = p[1][0], p[1][1], p[1][2], p[1][3]
    record, stream, folds, stalls = p[2], p[3], p[4], p[5]
    set_size, lines, height = record[SET_SIZE], stream[6], stream[4] + tile_ports - 1
    filled, reads = 0, 0
    current, window = record[CURRENT], record[WINDOW]
    for f in range(total):
        place = folds[f * FOLD] // tile_ports * height
        for line in range(lines):
            low, high = asking_ports(stream, folds, f * FOLD, line)
            if high <= low:
                continue
            cycle = _cycle_of(record, stalls, stalled, f * lines + line)
            at = (place + line - stream[3]) * tile_ports
            port = low
            while port < high:
                if once == 1:
                    take = min(high - port, set_size - filled)
                    port += take
                    reads += take
                    filled += take
                else:
                    index = at + port
                    port += 1
                    if marks[index] >= window:
                        continue
                    marks[index] = current
                    reads += 1
                    filled += 1
                if filled == set_size:
                    filled = 0
                    _next_set(record, cycle)
                    current, window = record[CURRENT], record[WINDOW]
    _finish(record, p[0], reads, filled)
    return 0
