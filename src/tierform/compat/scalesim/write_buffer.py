# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""SCALE-Sim's ports to the memory and its draining write buffer, rebuilt from their observed rules, compiled.

A record's places are those of :mod:`tierform.compat.scalesim.records`.
"""

from __future__ import annotations

from tierform.compat.scalesim.records import (
    AT,
    BANDWIDTH,
    DRAIN_END,
    DRAINED,
    DRAINS,
    FIRST,
    FREE,
    LAST,
    LATENCIES,
    LOGGED,
    OTHERWISE,
    OVERFLOWN,
    PLACES,
    QUEUED,
    READY,
    RING,
    SIZE,
    USED,
    WRITES,
)
from tierform.jit import compiled, inlined

_LONGEST = 10000  # a latency beyond it is taken for a fault


@inlined
def _join(record, queue, answer):
    """Put an answer's cycle into the queue, which stays sorted."""
    place = record[QUEUED]
    while place > 0 and queue[place - 1] > answer:
        queue[place] = queue[place - 1]
        place -= 1
    queue[place] = answer
    record[QUEUED] += 1


@compiled
def respond(record, latencies, queue, first, count):
    """The cycles of the first and the last answer to `count` requests of a line each, one a cycle from `first` on.

    Without latencies a request takes the port's one.  A full queue holds the next request until its earliest answer is
    there.
    """
    if record[LATENCIES] == 0:
        return first + record[OTHERWISE], first + count - 1 + record[OTHERWISE]
    stall, low, high = 0, 0, 0
    for i in range(count):
        latency = record[OTHERWISE]
        if record[USED] < record[LATENCIES]:
            latency = latencies[record[USED]]
            record[USED] += 1
        if latency > _LONGEST:
            latency = record[OTHERWISE]
        out = first + i + stall + latency
        low = out if i == 0 else min(low, out)
        high = out if i == 0 else max(high, out)
        _join(record, queue, out)
        if record[QUEUED] == record[PLACES]:
            now = first + i + stall
            gone = 0
            if queue[0] >= now:
                stall += queue[0] - now
                gone = 1
            else:
                while gone < record[PLACES] and queue[gone] < now:
                    gone += 1
            for k in range(gone, record[PLACES]):
                queue[k - gone] = queue[k]
            record[QUEUED] -= gone
    return low, high


@inlined
def _push(record, ring, words):
    """One more line waits, of so many words."""
    if record[READY] - record[DRAINED] >= record[RING]:
        record[OVERFLOWN] = 1
        return
    ring[record[READY] % record[RING]] = words
    record[READY] += 1


@compiled
def _drain(record, ring, start, lines, latencies, queue, log):
    """Send up to `lines` lines out from cycle `start`; all but the last line count as full."""
    until = min(record[DRAINED] + lines, record[READY])
    count = until - record[DRAINED]
    if count < 1:
        return
    moved = (count - 1) * record[BANDWIDTH] + ring[(until - 1) % record[RING]]
    record[WRITES] += moved
    record[FREE] += moved
    if record[DRAINS] < record[LOGGED]:
        log[2 * record[DRAINS]] = start
        log[2 * record[DRAINS] + 1] = count
    record[DRAINS] += 1
    low, high = respond(record, latencies, queue, start, count)
    if record[FIRST] < 0 or low < record[FIRST]:
        record[FIRST] = low
    record[DRAIN_END] = high
    record[LAST] = max(record[LAST], high)
    record[DRAINED] = until


@inlined
def _push_rest(record, ring):
    if record[AT] > 0:
        _push(record, ring, record[AT])
        record[AT] = 0


@compiled
def write_line(record, ring, left, cycle, latencies, queue, log):
    """Take `left` words in a cycle: the cycle when they are taken."""
    bandwidth = record[BANDWIDTH]
    threshold = -(-record[SIZE] // 2)
    drain = record[SIZE] - threshold
    current = cycle
    while left > 0 and record[OVERFLOWN] == 0:
        draining = current < record[DRAIN_END]
        take = min(left, max(1, record[FREE] if draining else record[FREE] - threshold + 1))
        left -= take
        record[FREE] -= take
        record[AT] += take
        while record[AT] >= bandwidth:
            record[AT] -= bandwidth
            _push(record, ring, bandwidth)
        if draining:
            if record[FREE] <= 0:
                current = record[DRAIN_END]
        elif record[FREE] < threshold:
            _push_rest(record, ring)
            _drain(record, ring, current, -(-drain // bandwidth), latencies, queue, log)
    return current


@compiled
def finish_writes(record, ring, cycle, latencies, queue, log):
    """Send out what is left from `cycle` on, half a buffer at a time."""
    _push_rest(record, ring)
    drain = record[SIZE] - -(-record[SIZE] // 2)
    while record[DRAINED] < record[READY]:
        _drain(record, ring, cycle, -(-drain // record[BANDWIDTH]), latencies, queue, log)
        cycle = record[DRAIN_END] + 1


@inlined
def outputs(output, folds, fold, line):
    """Words that leave in a line.  `output` = (reversed?, lead, steps, array rows); a fold = (columns, rows used)."""
    if output[0] == 1:
        low = max(0, line - output[1] - (output[3] - 1))
        high = min(folds[fold], line - output[1] - (output[3] - folds[fold + 1]) + 1)
    else:
        low = max(0, line - output[1] - output[2] + 1)
        high = min(folds[fold], line - output[1] + 1)
    return max(0, high - low)


def drain_writes(p, _):
    """The write buffer alone; -1 where its ring is too short.

    `p` = (found (3,), (lines, number of folds, are stalls kept?), output, folds, record, ring, stalls, no latencies, no
    queue, no log).  Found are (stalls, cycle of the last line, stop cycle); `stalls` receives the delay before each
    line when they are kept.
    """
    lines, total, keep = p[1][0], p[1][1], p[1][2]
    output, folds, record, ring, stalls = p[2], p[3], p[4], p[5], p[6]
    latencies, queue, log = p[7], p[8], p[9]
    stall, position, current, stop = 0, 0, 0, 0
    for f in range(total):
        for line in range(lines):
            if keep == 1:
                stalls[position] = stall
            cycle = position + stall
            words = outputs(output, folds, 2 * f, line)
            current = write_line(record, ring, words, cycle, latencies, queue, log)
            if words > 0:
                stop = current
            stall += current - cycle
            position += 1
        if record[OVERFLOWN] == 1:
            return -1
    finish_writes(record, ring, current, latencies, queue, log)
    p[0][0], p[0][1], p[0][2] = stall, current, stop
    return -record[OVERFLOWN]
