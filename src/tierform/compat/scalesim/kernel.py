"""SCALE-Sim's memory accounting, line by line and element by element, compiled.

Four processes decide its DRAM counts, stalls, and start and stop cycles, all driven by what the array asks for in each
cycle ("line"): the estimating read buffer of the stall-free mode, the prefetching read buffer of the mode with a given
bandwidth, and the draining write buffer of both.  They are rebuilt here from their observed rules.  Nothing is stored
per element of the demand: a stream is its kind (skewed along a wavefront, or preloaded row by row) and its folds.

A `stream` is the integers (operand: 0 inputs, 1 weights; kind; ports are matrix rows?; lead; steps; array rows; lines
of a fold); `folds[f]` is (first port's place, ports used, first place of the preloaded rows, rows preloaded).
"""

from __future__ import annotations

import numpy as np
from numba import njit

SKEWED, PRELOADED = 0, 1
# Indices of a write buffer's state.
_FREE, _AT, _READY, _DRAINED, _WRITES, _DRAIN_END, _FIRST, _LAST = range(8)
# Indices of a prefetching read buffer's state.
_START, _ACTIVE, _AHEAD, _LINES, _FETCHED_AT, _ACCESSES, _FETCH_WORDS, _FETCH_CYCLES, _WORDS = range(9)


@njit(cache=True, inline="always")
def _address(operand, row, column, shape):  # type: ignore[no-untyped-def]
    """Address of element (row, column) of an operand; -1 outside a convolution's input.

    `shape` = (columns of the matrix, convolution?, input height, width, channels, window width, stride h, w, output
    width, kept, block); for N:M sparse products `column` of the inputs counts kept places only.
    """
    if operand == 1:
        return row * shape[0] + column
    if shape[9] < shape[10]:
        column = column // shape[9] * shape[10] + column % shape[9]
    if shape[1] == 0:
        return row * shape[0] + column
    i_row, i_column = row // shape[8] * shape[6], row % shape[8] * shape[7]
    c_row, rest = column // (shape[5] * shape[4]), column % (shape[5] * shape[4])
    c_column, channel = rest // shape[4], rest % shape[4]
    if i_row + c_row >= shape[2] or i_column + c_column >= shape[3]:
        return -1
    return ((i_row + c_row) * shape[3] + i_column + c_column) * shape[4] + channel


@njit(cache=True, inline="always")
def _ports(stream, fold, line):  # type: ignore[no-untyped-def]
    """The ports that ask in a line of a fold: (first, last + 1); for skewed streams port p asks for line - lead - p."""
    if stream[1] == 1:
        row = stream[5] - 1 - line
        return (0, fold[1]) if 0 <= row < fold[3] else (0, 0)
    low = max(0, line - stream[3] - stream[4] + 1)
    return low, max(low, min(fold[1], line - stream[3] + 1))


@njit(cache=True, inline="always")
def _asked(stream, fold, line, port, shape):  # type: ignore[no-untyped-def]
    """Address that a port asks for in a line."""
    x = fold[0] + port
    y = fold[2] + stream[5] - 1 - line if stream[1] == 1 else line - stream[3] - port
    return _address(stream[0], x, y, shape) if stream[2] == 1 else _address(stream[0], y, x, shape)


@njit(cache=True)
def _asks(stream, fold, line, shape):  # type: ignore[no-untyped-def]
    """Whether a line asks for any element (a convolution's edge may be outside its input)."""
    low, high = _ports(stream, fold, line)
    if shape[1] == 0 or stream[0] == 1:
        return high > low
    for port in range(low, high):  # noqa: SIM110
        if _asked(stream, fold, line, port, shape) >= 0:
            return True
    return False


@njit(cache=True)
def asking_lines(stream, folds, shape):  # type: ignore[no-untyped-def]
    """The first and the last line (from 0, over all folds) that ask for any element."""
    lines = stream[6]
    first, last = -1, -1
    for position in range(folds.shape[0] * lines):
        if _asks(stream, folds[position // lines], position % lines, shape):
            first = position
            break
    for position in range(folds.shape[0] * lines - 1, -1, -1):
        if _asks(stream, folds[position // lines], position % lines, shape):
            last = position
            break
    return first, last


@njit(cache=True)
def estimate_reads(stream, folds, shape, space, set_size, bandwidth, stalls):  # type: ignore[no-untyped-def]
    """The stall-free read buffer: (reads, start cycle, stop cycle).

    A new element joins the current set of `set_size`; it is held while its set is in the window of 50 sets; when 50
    sets are full the window moves on.  `stalls` is the delay before each line, or empty.
    """
    last_set = np.full(space, -1, dtype=np.int32)
    current, filled, reads = 0, 0, 0
    window = 0
    done, seen = False, False
    first_cycle, end, start = 0, -1, 0
    lines = stream[6]
    for f in range(folds.shape[0]):
        fold = folds[f]
        for line in range(lines):
            low, high = _ports(stream, fold, line)
            if high <= low:
                continue
            position = f * lines + line
            cycle = position + (stalls[position] if stalls.size else 0)
            if not seen:
                seen, first_cycle = True, cycle
            for port in range(low, high):
                address = _asked(stream, fold, line, port, shape)
                if address < 0 or last_set[address] >= window:
                    continue
                last_set[address] = current
                reads += 1
                filled += 1
                if filled < set_size:
                    continue
                filled = 0
                current += 1
                if current == window + 50:
                    if not done:
                        end = first_cycle - 2
                        start = end - -(-(50 * set_size) // bandwidth) + 2
                        done = True
                    window += 50
                    end = cycle
    if not done:
        sets = current + (1 if filled else 0)
        return reads, -sets * set_size // bandwidth, -1
    return reads, start, end + 1


@njit(cache=True)
def estimate_product_reads(stream, folds, tile_ports, once, set_size, bandwidth, stalls):  # type: ignore[no-untyped-def]
    """As :func:`estimate_reads` for an operand of a plain product, where addresses may be laid out freely.

    Every tile of `tile_ports` ports has a place of its own in which the elements of a line are neighbours.  With `once`
    no element is asked for in two folds, and nothing has to be remembered.
    """
    lines, height = stream[6], stream[4] + tile_ports - 1
    tiles = 0
    for f in range(folds.shape[0]):
        tiles = max(tiles, folds[f, 0] // tile_ports + 1)
    last_set = np.full(0 if once else tiles * height * tile_ports, -1, dtype=np.int32)
    current, filled, reads, window = 0, 0, 0, 0
    done, seen = False, False
    first_cycle, end, start = 0, -1, 0
    for f in range(folds.shape[0]):
        fold = folds[f]
        place = fold[0] // tile_ports * height
        for line in range(lines):
            low, high = _ports(stream, fold, line)
            if high <= low:
                continue
            position = f * lines + line
            cycle = position + (stalls[position] if stalls.size else 0)
            if not seen:
                seen, first_cycle = True, cycle
            at = (place + line - stream[3]) * tile_ports
            port = low
            while port < high:
                if once:
                    take = min(high - port, set_size - filled)
                    port += take
                    reads += take
                    filled += take
                else:
                    index = at + port
                    port += 1
                    if last_set[index] >= window:
                        continue
                    last_set[index] = current
                    reads += 1
                    filled += 1
                if filled < set_size:
                    continue
                filled = 0
                current += 1
                if current == window + 50:
                    if not done:
                        end = first_cycle - 2
                        start = end - -(-(50 * set_size) // bandwidth) + 2
                        done = True
                    window += 50
                    end = cycle
    if not done:
        sets = current + (1 if filled else 0)
        return reads, -sets * set_size // bandwidth, -1
    return reads, start, end + 1


@njit(cache=True)
def _push(fills, ready, value):  # type: ignore[no-untyped-def]
    if ready == fills.size:
        grown = np.zeros(2 * fills.size, dtype=np.int64)
        grown[:ready] = fills
        fills = grown
    fills[ready] = value
    return fills


@njit(cache=True)
def _drain(state, fills, start, lines, bandwidth):  # type: ignore[no-untyped-def]
    """Send up to `lines` lines out from cycle `start`; all but the last line count as full."""
    until = min(state[_DRAINED] + lines, state[_READY])
    count = until - state[_DRAINED]
    if count < 1:
        return
    moved = count * bandwidth - (bandwidth - fills[until - 1])
    state[_WRITES] += moved
    state[_FREE] += moved
    if state[_FIRST] < 0:
        state[_FIRST] = start
    state[_DRAIN_END] = start + count - 1
    state[_LAST] = max(state[_LAST], state[_DRAIN_END])
    state[_DRAINED] = until


@njit(cache=True)
def _write_line(state, fills, left, cycle, size, bandwidth):  # type: ignore[no-untyped-def]
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
            _drain(state, fills, current, -(-drain // bandwidth), bandwidth)
    return current, fills


@njit(cache=True)
def _finish_writes(state, fills, cycle, size, bandwidth):  # type: ignore[no-untyped-def]
    if state[_AT]:
        fills = _push(fills, state[_READY], state[_AT])
        state[_READY] += 1
        state[_AT] = 0
    while state[_DRAINED] < state[_READY]:
        _drain(state, fills, cycle, -(-(size - -(-size // 2)) // bandwidth), bandwidth)
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
    state = np.zeros(8, dtype=np.int64)
    state[_FREE], state[_FIRST], state[_LAST] = size, -1, -1
    fills = np.zeros(64, dtype=np.int64)
    stall, position, current, stop = 0, 0, 0, 0
    for f in range(folds.shape[0]):
        for line in range(lines):
            if stalls.size:
                stalls[position] = stall
            cycle = position + stall
            words = _outputs(output, folds[f], line)
            current, fills = _write_line(state, fills, words, cycle, size, bandwidth)
            if words:
                stop = current
            stall += current - cycle
            position += 1
    _finish_writes(state, fills, current, size, bandwidth)
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
            address = _address(stream[0], x, step, shape) if stream[2] == 1 else _address(stream[0], step, x, shape)
            if address >= 0:
                result[count] = address
                count += 1
    return count


@njit(cache=True)
def _hold(held, fetched, line, per_line, change):  # type: ignore[no-untyped-def]
    for index in range(line * per_line, min((line + 1) * per_line, fetched.size)):
        held[fetched[index]] += change


@njit(cache=True)
def _read_line(state, held, fetched, stream, fold, line, shape, cycle):  # type: ignore[no-untyped-def]
    """Serve the demand of a line: the delay in cycles.  A miss moves the window on and waits (twice, as observed)."""
    low, high = _ports(stream, fold, line)
    offset = 1
    for port in range(low, high):
        address = _asked(stream, fold, line, port, shape)
        if address < 0:
            continue
        while held[address] == 0 and state[_AHEAD] > 0:
            for step in range(state[_AHEAD]):
                _hold(held, fetched, (state[_START] + step) % state[_LINES], state[_WORDS], -1)
                added = (state[_START] + state[_ACTIVE] + step) % state[_LINES]
                _hold(held, fetched, added, state[_WORDS], 1)
            state[_START] = (state[_START] + state[_AHEAD]) % state[_LINES]
            state[_ACCESSES] += state[_FETCH_WORDS]
            state[_FETCHED_AT] += state[_FETCH_CYCLES] + 1
            wait = state[_FETCHED_AT] - (cycle + offset)
            offset += wait
            if wait > 0:
                offset += wait
    return offset - 1


@njit(cache=True, inline="always")
def _see(seen, operand, cycle):  # type: ignore[no-untyped-def]
    if seen[operand, 0] < 0:
        seen[operand, 0] = cycle
    seen[operand, 1] = cycle


@njit(cache=True)
def run_bounded(  # type: ignore[no-untyped-def]
    lines,
    ifmap,
    ifmap_folds,
    ifmap_state,
    ifmap_held,
    ifmap_fetched,
    filters,
    filter_folds,
    filter_state,
    filter_held,
    filter_fetched,
    ifmap_shape,
    filter_shape,
    output,
    output_folds,
    size,
    bandwidth,
):
    """All three buffers together behind given bandwidths.

    Returns (writes, first and last drain cycle, stalls, cycle of the last line) and, for inputs, weights and outputs,
    the cycles of the first and the last line in which they are asked for.
    """
    state = np.zeros(8, dtype=np.int64)
    state[_FREE], state[_FIRST], state[_LAST] = size, -1, -1
    fills = np.zeros(64, dtype=np.int64)
    seen = np.full((3, 2), -1, dtype=np.int64)
    for step in range(ifmap_state[_ACTIVE]):
        _hold(ifmap_held, ifmap_fetched, step, ifmap_state[_WORDS], 1)
    for step in range(filter_state[_ACTIVE]):
        _hold(filter_held, filter_fetched, step, filter_state[_WORDS], 1)
    stall, position, current = 0, 0, 0
    for f in range(output_folds.shape[0]):
        for line in range(lines):
            cycle = position + stall
            a = _read_line(ifmap_state, ifmap_held, ifmap_fetched, ifmap, ifmap_folds[f], line, ifmap_shape, cycle)
            b = _read_line(
                filter_state, filter_held, filter_fetched, filters, filter_folds[f], line, filter_shape, cycle
            )
            words = _outputs(output, output_folds[f], line)
            current, fills = _write_line(state, fills, words, cycle, size, bandwidth)
            if _asks(ifmap, ifmap_folds[f], line, ifmap_shape):
                _see(seen, 0, cycle + a + 1)
            if _asks(filters, filter_folds[f], line, filter_shape):
                _see(seen, 1, cycle + b + 1)
            if words:
                _see(seen, 2, current)
            stall += max(a, b, current - cycle)
            position += 1
    _finish_writes(state, fills, current, size, bandwidth)
    return state[_WRITES], state[_FIRST], state[_LAST], stall, current, seen
