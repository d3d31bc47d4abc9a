"""SCALE-Sim's ports to the memory and its draining write buffer, rebuilt from their observed rules, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

# Indices of a write buffer's state.
FREE, _AT, _READY, _DRAINED, WRITES, _DRAIN_END, FIRST, LAST, _DRAINS = range(9)


@njit(cache=True)
def respond(port, latencies, queue, first, count):  # type: ignore[no-untyped-def]
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
    state[WRITES] += moved
    state[FREE] += moved
    if state[_DRAINS] < log.size // 2:
        log[2 * state[_DRAINS]] = start
        log[2 * state[_DRAINS] + 1] = count
    state[_DRAINS] += 1
    low, high = respond(port, latencies, queue, start, count)
    if state[FIRST] < 0 or low < state[FIRST]:
        state[FIRST] = low
    state[_DRAIN_END] = high
    state[LAST] = max(state[LAST], state[_DRAIN_END])
    state[_DRAINED] = until


@njit(cache=True)
def write_line(state, fills, left, cycle, size, bandwidth, port, latencies, queue, log):  # type: ignore[no-untyped-def]
    """Take `left` words in a cycle: (cycle when they are taken, fills)."""
    drain = size - -(-size // 2)
    threshold = size - drain
    current = cycle
    while left > 0:
        draining = current < state[_DRAIN_END]
        take = min(left, max(1, state[FREE] if draining else state[FREE] - threshold + 1))
        left -= take
        state[FREE] -= take
        state[_AT] += take
        while state[_AT] >= bandwidth:
            state[_AT] -= bandwidth
            fills = _push(fills, state[_READY], bandwidth)
            state[_READY] += 1
        if draining:
            if state[FREE] <= 0:
                current = state[_DRAIN_END]
        elif state[FREE] < threshold:
            if state[_AT]:
                fills = _push(fills, state[_READY], state[_AT])
                state[_READY] += 1
                state[_AT] = 0
            _drain(state, fills, current, -(-drain // bandwidth), bandwidth, port, latencies, queue, log)
    return current, fills


@njit(cache=True)
def finish_writes(state, fills, cycle, size, bandwidth, port, latencies, queue, log):  # type: ignore[no-untyped-def]
    """Send out what is left from `cycle` on, half a buffer at a time."""
    if state[_AT]:
        fills = _push(fills, state[_READY], state[_AT])
        state[_READY] += 1
        state[_AT] = 0
    while state[_DRAINED] < state[_READY]:
        _drain(state, fills, cycle, -(-(size - -(-size // 2)) // bandwidth), bandwidth, port, latencies, queue, log)
        cycle = state[_DRAIN_END] + 1


@njit(cache=True, inline="always")
def outputs(output, fold, line):  # type: ignore[no-untyped-def]
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
    state[FREE], state[FIRST], state[LAST] = size, -1, -1
    fills = np.zeros(64, dtype=np.int64)
    port, none = np.zeros(3, dtype=np.int64), np.zeros(0, dtype=np.int64)
    stall, position, current, stop = 0, 0, 0, 0
    for f in range(folds.shape[0]):
        for line in range(lines):
            if stalls.size:
                stalls[position] = stall
            cycle = position + stall
            words = outputs(output, folds[f], line)
            current, fills = write_line(state, fills, words, cycle, size, bandwidth, port, none, none, none)
            if words:
                stop = current
            stall += current - cycle
            position += 1
    finish_writes(state, fills, current, size, bandwidth, port, none, none, none)
    return state[WRITES], state[FIRST], state[LAST], stall, current, stop
