"""SCALE-Sim's mode with a given bandwidth: buffers with or without a layout, before a plain memory or its latencies."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tierform.arrays import Ints, Words
from tierform.compat.scalesim.files import Configuration, LayerShape
from tierform.compat.scalesim.layout import Layout, Lines, filter_lines, ifmap_lines
from tierform.compat.scalesim.plan import Plan, space_of
from tierform.errors import fail

Int64 = NDArray[np.int64]
_NONE = np.zeros(0, dtype=np.int64)
_MOST_FETCHES = 1_000_000


@dataclass(frozen=True, slots=True)
class Memory:
    """What stands behind the buffers: a layout of the SRAM, and latencies of the DRAM in array cycles.

    `latencies` of the lines of inputs, weights and outputs in the order in which they are asked for; a line that has
    none takes one cycle (an output line none).
    """

    layout: Layout | None = None
    latencies: tuple[Int64, Int64, Int64] = (_NONE, _NONE, _NONE)


@dataclass(slots=True)
class Requests:
    """Lines that one operand asked the memory for: (first cycle, lines) of each fetch, and words of a line."""

    words: int
    fetches: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Bounded:
    """Total, stalls, SRAM spans, DRAM (start, stop, words), and what was asked of the memory."""

    total: int
    stall: int
    spans: list[tuple[int, int]]
    moved: list[tuple[int, int, int]]
    requests: tuple[Requests, Requests, Requests]


def bounded(layer: LayerShape, plan: Plan, configuration: Configuration, memory: Memory) -> Bounded:
    """Walk through all demands of a layer; the buffers are always rebuilt."""
    from tierform.compat.scalesim.bounded import first_fill, run_bounded

    folds, spaces = plan.folds(), space_of(layer, plan)
    parts: list[Ints | Words] = []
    late = np.zeros(2, dtype=np.int64)
    before, first, logs = [], [], []
    sizes = (configuration.ifmap_words, configuration.filter_words)
    widths = (configuration.ifmap_bandwidth, configuration.filter_bandwidth)
    for operand, words in enumerate(widths):
        lines = _lines_of(layer, configuration, memory, operand, words)
        if lines is None:
            state, fetched = _prefetching(plan, operand, sizes[operand], words, spaces[operand])
            held, banks, seen = (
                np.zeros(spaces[operand], dtype=np.int32),
                np.zeros(3, np.int64),
                np.zeros((1, 1), np.int64),
            )
        else:
            state = _state(sizes[operand], words, lines.count, words, lines.fetched_words)
            held, fetched = lines.line_of.astype(np.int32), lines.place_of
            number, ports = configuration.banks[operand]
            banks = np.array([number, ports, words // number], dtype=np.int64)
            seen = np.full((number, lines.count), -1, dtype=np.int64)
        port, queue = np.array([0, 0, 1], dtype=np.int64), np.zeros(configuration.read_queue, dtype=np.int64)
        log = np.zeros(_MOST_FETCHES, dtype=np.int64)
        count = int(state[5]) // words
        start, late[operand] = first_fill(state, port, memory.latencies[operand], queue, count)
        state[9], state[10] = state[4], start
        before.append(state)
        first.append(Requests(words, [(-count - 1, count)]))
        logs.append(log)
        parts += [plan.streams[operand], folds[operand], state, held, fetched, banks, seen, port]
        parts += [memory.latencies[operand], queue, log]
    drains = np.full(2 * _MOST_FETCHES, -1, dtype=np.int64)
    writes, first_write, last_write, stall, end, seen_at = run_bounded(
        plan.lines,
        *parts,
        *plan.shapes,
        plan.output,
        folds[2],
        configuration.ofmap_words,
        configuration.ofmap_bandwidth,
        late,
        np.zeros(3, dtype=np.int64),
        memory.latencies[2],
        np.zeros(configuration.write_queue, dtype=np.int64),
        drains,
    )
    for operand, (state, log) in enumerate(zip(before, logs, strict=True)):
        first[operand].fetches += [(int(cycle), int(state[7])) for cycle in log[: int(state[11])]]
    drained = [(int(a), int(b)) for a, b in drains.reshape(-1, 2) if b > 0] if drains[1] > 0 else []
    spans = [(int(a), int(b)) for a, b in seen_at]
    moved = [(int(state[10]), int(state[9]), int(state[5])) for state in before]
    return Bounded(
        int(end),
        int(stall),
        spans,
        [*moved, (int(first_write), int(last_write), int(writes))],
        (first[0], first[1], Requests(configuration.ofmap_bandwidth, drained)),
    )


def _lines_of(
    layer: LayerShape, configuration: Configuration, memory: Memory, operand: int, words: int
) -> Lines | None:
    """The operand in its laid-out SRAM; None where it has no layout of its own."""
    if not configuration.layouts[operand]:
        return None
    if memory.layout is None:
        fail("a custom layout needs its layout file", key="layout", fix="Give it with --layout.")
    number, _ = configuration.banks[operand]
    if words % number:
        what = "the bandwidth of an SRAM must be a multiple of its banks"
        fail(what, key=("IfmapSRAMBankNum", "FilterSRAMBankNum")[operand], value=f"{words} words, {number} banks")
    window = layer.window or (1, layer.k)
    if operand == 0:
        return ifmap_lines(memory.layout, layer.ifmap or (layer.m, layer.k, 1), words)
    channels = layer.ifmap[2] if layer.ifmap else 1
    return filter_lines(memory.layout, (layer.n, channels, *window), words, configuration.filter_offset)


def _prefetching(plan: Plan, operand: int, size: int, bandwidth: int, space: int) -> tuple[Int64, Int64]:
    """State of a prefetching read buffer, and the addresses in the order of fetching."""
    from tierform.compat.scalesim.bounded import prefetch_order

    stream = plan.streams[operand]
    by_rows = operand == 0 if plan.dataflow == "os" else stream[1] == 0
    extent, step = (plan.sr, plan.rows) if by_rows else (plan.sc, plan.columns)
    starts = np.arange(0, extent, step)
    tiles = np.stack([starts, np.minimum(step, extent - starts)], axis=1).astype(np.int64)
    height = plan.sr if stream[1] == 1 else plan.t
    result = np.empty(height * extent, dtype=np.int64)
    count = prefetch_order(stream, tiles, height, step, stream[1] == 0, plan.shapes[operand], result)
    per_line = -(-size // 100)
    return _state(size, bandwidth, count // per_line + 1, per_line, height * tiles.shape[0] * step), result[:count]


def _state(size: int, bandwidth: int, lines: int, per_line: int, words: int) -> Int64:
    """State of a prefetching read buffer before its first fill of `words` in lines of `per_line`."""
    active = -(-size // 2)
    ahead = size - active
    held = min(-(-active // per_line), lines)
    following = min(-(-ahead // per_line), lines - held)
    first = min(-(-active // bandwidth), -(-words // bandwidth))
    each = -(-ahead // bandwidth)
    return np.array(
        [0, held, following, lines, -1, first * bandwidth, each * bandwidth, each, per_line, 0, 0, 0], dtype=np.int64
    )
