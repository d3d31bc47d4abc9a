"""SCALE-Sim's buffers behind given bandwidths and memories, rebuilt from their observed rules, compiled.

The prefetching read buffers, with a plain SRAM or one whose words are laid out over banks, and the run of all buffers.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tierform.compat.scalesim.streams import address_of, asked_address, asking_ports, line_asks
from tierform.compat.scalesim.write_buffer import FIRST, FREE, LAST, WRITES, finish_writes, outputs, respond, write_line

# Indices of a prefetching read buffer's state.
(
    _START,
    _ACTIVE,
    _AHEAD,
    _LINES,
    _FETCHED_AT,
    _ACCESSES,
    _FETCH_WORDS,
    _FETCH_CYCLES,
    _WORDS,
    _STOP,
    _BEGIN,
    _FETCHES,
) = range(12)


@njit(cache=True)
def prefetch_order(stream, tiles, height, width, diagonal, shape, result):  # type: ignore[no-untyped-def]
    """Addresses in the order in which a prefetching buffer fetches them; the number of them.

    The operand's tiles (first port's place, ports used) stand one below the other, `height` lines of `width` ports
    each; they are taken line by line, or along the diagonals of the whole.
    """
    total = height * tiles.shape[0]
    count = 0
    outer = total + width - 1 if diagonal else total
    for a in range(outer):
        low = max(0, a - total + 1) if diagonal else 0
        high = min(width, a + 1) if diagonal else width
        for column in range(low, high):
            row = a - column if diagonal else a
            tile, step = row // height, row % height
            if column >= tiles[tile, 1]:
                continue
            x = tiles[tile, 0] + column
            address = address_of(stream[0], x, step, shape) if stream[2] == 1 else address_of(stream[0], step, x, shape)
            if address >= 0:
                result[count] = address
                count += 1
    return count


@njit(cache=True)
def _hold(held, fetched, line, per_line, change):  # type: ignore[no-untyped-def]
    for index in range(line * per_line, min((line + 1) * per_line, fetched.size)):
        held[fetched[index]] += change


@njit(cache=True)
def _read_line(  # type: ignore[no-untyped-def]
    state, held, fetched, port, latencies, queue, log, stream, fold, line, shape, cycle
):
    """Serve the demand of a line: the delay in cycles.  A miss moves the window on and waits (twice, as observed)."""
    low, high = asking_ports(stream, fold, line)
    offset = 1
    for column in range(low, high):
        address = asked_address(stream, fold, line, column, shape)
        if address < 0:
            continue
        while held[address] == 0 and state[_AHEAD] > 0:
            for step in range(state[_AHEAD]):
                _hold(held, fetched, (state[_START] + step) % state[_LINES], state[_WORDS], -1)
                added = (state[_START] + state[_ACTIVE] + step) % state[_LINES]
                _hold(held, fetched, added, state[_WORDS], 1)
            state[_START] = (state[_START] + state[_AHEAD]) % state[_LINES]
            wait = _fetch(state, port, latencies, queue, log) - (cycle + offset)
            offset += wait
            if wait > 0:
                offset += wait
    return offset - 1


@njit(cache=True)
def first_fill(state, port, latencies, queue, lines):  # type: ignore[no-untyped-def]
    """Fill the active buffer before the first demand: (first answer, cycles by which it comes late)."""
    low, high = respond(port, latencies, queue, -lines - 1, lines)
    state[_FETCHED_AT] = high
    return low, high + 1


@njit(cache=True)
def _read_banked_line(  # type: ignore[no-untyped-def]
    state, line_of, place_of, banks, seen_lines, port, latencies, queue, log, stream, fold, line, shape, cycle, position
):
    """As :func:`_read_line` from a laid-out SRAM, where lines of one bank are read one after the other.

    `banks` = (banks, ports of a bank, words of a line in a bank); `seen_lines[bank, line]` is the last demand that
    read the line there.
    """
    low, high = asking_ports(stream, fold, line)
    offset = 1
    asked = np.zeros(banks[0], dtype=np.int64)
    for column in range(low, high):
        address = asked_address(stream, fold, line, column, shape)
        if address < 0:
            continue
        where = line_of[address]
        while (where - state[_START]) % state[_LINES] >= state[_ACTIVE] and state[_AHEAD] > 0:
            state[_START] = (state[_START] + state[_AHEAD]) % state[_LINES]
            wait = _fetch(state, port, latencies, queue, log) - (cycle + offset)
            offset += max(0, wait)
        bank = place_of[address] // banks[2]
        if seen_lines[bank, where] != position:
            seen_lines[bank, where] = position
            asked[bank] += 1
    return offset - 1 + -(-asked.max() // banks[1]) - 1


@njit(cache=True)
def _fetch(state, port, latencies, queue, log):  # type: ignore[no-untyped-def]
    """Fetch the next part of the operand; the cycle when it is there."""
    if state[_FETCHES] < log.size:
        log[state[_FETCHES]] = state[_FETCHED_AT] + 1
    state[_FETCHES] += 1
    state[_ACCESSES] += state[_FETCH_WORDS]
    low, high = respond(port, latencies, queue, state[_FETCHED_AT] + 1, state[_FETCH_CYCLES])
    state[_FETCHED_AT] = high
    state[_STOP] = max(state[_STOP], high)
    state[_BEGIN] = min(state[_BEGIN], low)
    return high


@njit(cache=True, inline="always")
def _see(seen, operand, cycle):  # type: ignore[no-untyped-def]
    if seen[operand, 0] < 0:
        seen[operand, 0] = cycle
    seen[operand, 1] = cycle


@njit(cache=True)
def _serve(  # type: ignore[no-untyped-def]
    banks, state, held, fetched, seen_lines, port, latencies, queue, log, stream, fold, line, shape, cycle, position
):
    """The delay of one operand's demand; `banks[0]` = 0 where its SRAM has no layout."""
    if banks[0] == 0:
        return _read_line(state, held, fetched, port, latencies, queue, log, stream, fold, line, shape, cycle)
    return _read_banked_line(
        state, held, fetched, banks, seen_lines, port, latencies, queue, log, stream, fold, line, shape, cycle, position
    )


@njit(cache=True)
def run_bounded(  # type: ignore[no-untyped-def]
    lines,
    ifmap,
    ifmap_folds,
    ifmap_state,
    ifmap_held,
    ifmap_fetched,
    ifmap_banks,
    ifmap_seen,
    ifmap_port,
    ifmap_latencies,
    ifmap_queue,
    ifmap_log,
    filters,
    filter_folds,
    filter_state,
    filter_held,
    filter_fetched,
    filter_banks,
    filter_seen,
    filter_port,
    filter_latencies,
    filter_queue,
    filter_log,
    ifmap_shape,
    filter_shape,
    output,
    output_folds,
    size,
    bandwidth,
    late,
    output_port,
    output_latencies,
    output_queue,
    output_log,
):
    """All three buffers together behind given bandwidths.

    `held` and `fetched` are of the plain buffer, or the line and the place of each address where there are banks.
    `late`: by how much the first fill of each operand delays the first line.  Returns (writes, first and last drain
    cycle, stalls, cycle of the last line) and, for inputs, weights and outputs, the cycles of the first and the last
    line in which they are asked for.
    """
    state = np.zeros(9, dtype=np.int64)
    state[FREE], state[FIRST], state[LAST] = size, -1, -1
    fills = np.zeros(64, dtype=np.int64)
    seen = np.full((3, 2), -1, dtype=np.int64)
    if ifmap_banks[0] == 0:
        for step in range(ifmap_state[_ACTIVE]):
            _hold(ifmap_held, ifmap_fetched, step, ifmap_state[_WORDS], 1)
    if filter_banks[0] == 0:
        for step in range(filter_state[_ACTIVE]):
            _hold(filter_held, filter_fetched, step, filter_state[_WORDS], 1)
    stall, position, current, last = 0, 0, 0, 0
    for f in range(output_folds.shape[0]):
        for line in range(lines):
            cycle = position + stall
            a = _serve(
                ifmap_banks,
                ifmap_state,
                ifmap_held,
                ifmap_fetched,
                ifmap_seen,
                ifmap_port,
                ifmap_latencies,
                ifmap_queue,
                ifmap_log,
                ifmap,
                ifmap_folds[f],
                line,
                ifmap_shape,
                cycle,
                position,
            )
            b = _serve(
                filter_banks,
                filter_state,
                filter_held,
                filter_fetched,
                filter_seen,
                filter_port,
                filter_latencies,
                filter_queue,
                filter_log,
                filters,
                filter_folds[f],
                line,
                filter_shape,
                cycle,
                position,
            )
            if position == 0:
                a += late[0]
                b += late[1]
            words = outputs(output, output_folds[f], line)
            current, fills = write_line(
                state, fills, words, cycle, size, bandwidth, output_port, output_latencies, output_queue, output_log
            )
            last = max(last, current)
            if line_asks(ifmap, ifmap_folds[f], line, ifmap_shape):
                _see(seen, 0, cycle + a + 1)
            if line_asks(filters, filter_folds[f], line, filter_shape):
                _see(seen, 1, cycle + b + 1)
            if words:
                _see(seen, 2, current)
            stall += max(a, b, current - cycle)
            position += 1
    finish_writes(state, fills, current, size, bandwidth, output_port, output_latencies, output_queue, output_log)
    return state[WRITES], state[FIRST], state[LAST], stall, last, seen
