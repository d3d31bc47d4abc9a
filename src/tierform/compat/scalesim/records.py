"""Where the figures of a buffer stand in its record, whole numbers that Python and the compiled loops share.

Each record begins with its port to the memory, so that reads and writes are answered by the same function.
"""

from __future__ import annotations

# The port: latencies used so far, requests in the queue, the latency when none is left, how many latencies there are,
# places of the queue, entries of the log.
USED, QUEUED, OTHERWISE, LATENCIES, PLACES, LOGGED = range(6)
# A prefetching read buffer.  `HELD_AT` is where its marks begin; `BANKS` is 0 where its SRAM has no layout.
(
    START,
    ACTIVE,
    AHEAD,
    LINES,
    FETCHED_AT,
    ACCESSES,
    FETCH_WORDS,
    FETCH_CYCLES,
    WORDS,
    STOP,
    BEGIN,
    FETCHES,
    FIRST_LINES,
    FETCHED,
    HELD_AT,
    BANKS,
    BANK_PORTS,
    BANK_WORDS,
    READ_RECORD,
) = range(6, 25)
# A draining write buffer: words, words of a line, lines that can wait in the ring, and whether more would have had to.
(
    SIZE,
    BANDWIDTH,
    RING,
    OVERFLOWN,
    FREE,
    AT,
    READY,
    DRAINED,
    WRITES,
    DRAIN_END,
    FIRST,
    LAST,
    DRAINS,
    WRITE_RECORD,
) = range(6, 20)
# A read buffer of the stall-free mode.
SET_SIZE, SET_BANDWIDTH, CURRENT, WINDOW, SEEN, FIRST_CYCLE, END, BEGUN, DONE, SET_RECORD = range(10)
