"""SCALE-Sim's buffers behind given bandwidths and memories, rebuilt from their observed rules, compiled.

The prefetching read buffers, with a plain SRAM or one whose words are laid out over banks, the draining write buffer,
and the ports to the memory, whose requests take one cycle each or as long as a list of latencies says.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tierform.compat.scalesim.streams import address_of, asked_address, asking_ports, line_asks

# Indices of a write buffer's state.
_FREE, _AT, _READY, _DRAINED, _WRITES, _DRAIN_END, _FIRST, _LAST, _DRAINS = range(9)
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
def _push(fills, ready, value):  # type: ignore[no-untyped-def]
    if ready == fills.size:
        grown = np.zeros(2 * fills.size, dtype=np.int64)
        grown[:ready] = fills
        fills = grown
    fills[ready] = value
    return fills


@njit(cache=True)
def _drain(state, fills, start, lines, bandwidth, port, latencies, queue, log):  # type: ignore[no-untyped-def]
    """Send up to `lines` lines out from cycle `start`; all but the last line count as full."""
    until = min(state[_DRAINED] + lines, state[_READY])
    count = until - state[_DRAINED]
    if count < 1:
        return
    moved = count * bandwidth - (bandwidth - fills[until - 1])
    state[_WRITES] += moved
    state[_FREE] += moved
    if state[_DRAINS] < log.size // 2:
        log[2 * state[_DRAINS]] = start
        log[2 * state[_DRAINS] + 1] = count
    state[_DRAINS] += 1
    low, high = _respond(port, latencies, queue, start, count)
    if state[_FIRST] < 0 or low < state[_FIRST]:
        state[_FIRST] = low
    state[_DRAIN_END] = high
    state[_LAST] = max(state[_LAST], state[_DRAIN_END])
    state[_DRAINED] = until


@njit(cache=True)
def _write_line(state, fills, left, cycle, size, bandwidth, port, latencies, queue, log):  # type: ignore[no-untyped-def]
    """Take `left` words in a cycle: (cycle when they are taken, fills)."""
    drain = size - -(-size // 2)
    threshold = size - drain
    current = cycle
    while left > 0:
        draining = current < state[_DRAIN_END]
        take = min(left, max(1, state[_FREE] if draining else state[_FREE] - threshold + 1))
        left -= take
        state[_FREE] -= take
        state[_AT] += take
        while state[_AT] >= bandwidth:
            state[_AT] -= bandwidth
            fills = _push(fills, state[_READY], bandwidth)
            state[_READY] += 1
        if draining:
            if state[_FREE] <= 0:
                current = state[_DRAIN_END]
        elif state[_FREE] < threshold:
            if state[_AT]:
                fills = _push(fills, state[_READY], state[_AT])
                state[_READY] += 1
                state[_AT] = 0
            _drain(state, fills, current, -(-drain // bandwidth), bandwidth, port, latencies, queue, log)
    return current, fills


@njit(cache=True)
def _finish_writes(state, fills, cycle, size, bandwidth, port, latencies, queue, log):  # type: ignore[no-untyped-def]
    if state[_AT]:
        fills = _push(fills, state[_READY], state[_AT])
        state[_READY] += 1
        state[_AT] = 0
    while state[_DRAINED] < state[_READY]:
        _drain(state, fills, cycle, -(-(size - -(-size // 2)) // bandwidth), bandwidth, port, latencies, queue, log)
        cycle = state[_DRAIN_END] + 1


@njit(cache=True, inline="always")
def _outputs(output, fold, line):  # type: ignore[no-untyped-def]
    """Words that leave in a line.  `output` = (reversed?, lead, steps, array rows); `fold` = (columns, rows used)."""
    if output[0] == 1:
        low = max(0, line - output[1] - (output[3] - 1))
        high = min(fold[0], line - output[1] - (output[3] - fold[1]) + 1)
    else:
        low = max(0, line - output[1] - output[2] + 1)
        high = min(fold[0], line - output[1] + 1)
    return max(0, high - low)


@njit(cache=True)
def drain_writes(output, lines, folds, size, bandwidth, stalls):  # type: ignore[no-untyped-def]
    """The write buffer alone: (writes, first and last drain cycle, stalls, cycle of the last line, stop cycle).

    `stalls` receives the delay before each line when it is not empty.
    """
    state = np.zeros(9, dtype=np.int64)
    state[_FREE], state[_FIRST], state[_LAST] = size, -1, -1
    fills = np.zeros(64, dtype=np.int64)
    port, none = np.zeros(3, dtype=np.int64), np.zeros(0, dtype=np.int64)
    stall, position, current, stop = 0, 0, 0, 0
    for f in range(folds.shape[0]):
        for line in range(lines):
            if stalls.size:
                stalls[position] = stall
            cycle = position + stall
            words = _outputs(output, folds[f], line)
            current, fills = _write_line(state, fills, words, cycle, size, bandwidth, port, none, none, none)
            if words:
                stop = current
            stall += current - cycle
            position += 1
    _finish_writes(state, fills, current, size, bandwidth, port, none, none, none)
    return state[_WRITES], state[_FIRST], state[_LAST], stall, current, stop


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
def _respond(port, latencies, queue, first, count):  # type: ignore[no-untyped-def]
    """The cycles of the first and the last answer to `count` requests of a line each, one a cycle from `first` on.

    `port` = (latencies used so far, requests in the queue, latency when none is left); without latencies a request
    takes that one.  A full queue holds the next request until its earliest answer is there.
    """
    if latencies.size == 0:
        return first + port[2], first + count - 1 + port[2]
    stall, low, high = 0, 0, 0
    for i in range(count):
        latency = port[2]
        if port[0] < latencies.size:
            latency = latencies[port[0]]
            port[0] += 1
        if latency > 10000:
            latency = port[2]
        out = first + i + stall + latency
        low = out if i == 0 else min(low, out)
        high = out if i == 0 else max(high, out)
        queue[port[1]] = out
        port[1] += 1
        if port[1] == queue.size:
            now = first + i + stall
            queue[:] = np.sort(queue)
            gone = 0
            if queue[0] >= now:
                stall += queue[0] - now
                gone = 1
            else:
                while gone < queue.size and queue[gone] < now:
                    gone += 1
            for k in range(gone, queue.size):
                queue[k - gone] = queue[k]
            port[1] -= gone
    return low, high


@njit(cache=True)
def first_fill(state, port, latencies, queue, lines):  # type: ignore[no-untyped-def]
    """Fill the active buffer before the first demand: (first answer, cycles by which it comes late)."""
    low, high = _respond(port, latencies, queue, -lines - 1, lines)
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
    low, high = _respond(port, latencies, queue, state[_FETCHED_AT] + 1, state[_FETCH_CYCLES])
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
    state[_FREE], state[_FIRST], state[_LAST] = size, -1, -1
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
            words = _outputs(output, output_folds[f], line)
            current, fills = _write_line(
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
    _finish_writes(state, fills, current, size, bandwidth, output_port, output_latencies, output_queue, output_log)
    return state[_WRITES], state[_FIRST], state[_LAST], stall, last, seen
