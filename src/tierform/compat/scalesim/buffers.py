"""SCALE-Sim's mode with a given bandwidth: buffers with or without a layout, before a plain memory or its latencies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tierform.arrays import Ints, Words
from tierform.compat.scalesim import records as r
from tierform.compat.scalesim.files import Configuration, LayerShape
from tierform.compat.scalesim.layout import Layout, Lines, filter_lines, ifmap_lines
from tierform.compat.scalesim.loops import call
from tierform.compat.scalesim.plan import Plan, space_of
from tierform.errors import fail

_NONE = np.zeros(0, dtype=np.int64)
_MOST_FETCHES = 1_000_000


@dataclass(frozen=True, slots=True)
class Memory:
    """What stands behind the buffers: a layout of the SRAM, and latencies of the DRAM in array cycles.

    `latencies` of the lines of inputs, weights and outputs in the order in which they are asked for; a line that has
    none takes one cycle (an output line none).
    """

    layout: Layout | None = None
    latencies: tuple[Ints, Ints, Ints] = (_NONE, _NONE, _NONE)


@dataclass(frozen=True, slots=True)
class Requests:
    """Lines that one operand asked the memory for: (first cycle, lines) of each fetch, and words of a line."""

    words: int
    fetches: Ints


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
    found, ring = None, 64 + 2 * configuration.ofmap_words // configuration.ofmap_bandwidth
    while found is None:
        found = _walk(layer, plan, configuration, memory, ring)
        ring *= 2
    return found


def _walk(layer: LayerShape, plan: Plan, configuration: Configuration, memory: Memory, ring: int) -> Bounded | None:
    """:func:`bounded` with a write buffer in which at most `ring` lines wait; None where more would have to."""
    folds = plan.folds()
    operands = [_operand(layer, plan, folds[operand], configuration, memory, operand) for operand in range(2)]
    marks = np.concatenate([one.marks for one in operands])
    operands[1].record[r.HELD_AT] = operands[0].marks.size
    write = write_record(configuration.ofmap_words, configuration.ofmap_bandwidth, ring)
    write[[r.LATENCIES, r.PLACES, r.LOGGED]] = memory.latencies[2].size, configuration.write_queue, _MOST_FETCHES
    totals, seen, drains = np.zeros(2, np.int64), np.zeros((3, 2), np.int64), np.zeros((_MOST_FETCHES, 2), np.int64)
    table = [totals, np.array([plan.lines, plan.fold_total]), seen, plan.output, folds[2], write]
    table += [np.zeros(ring, np.int64), memory.latencies[2], np.zeros(configuration.write_queue, np.int64)]
    if call("run_bounded", [*table, *operands[0].arrays, *operands[1].arrays, drains], marks) < 0:
        return None
    requests = []
    for one, words in zip(operands, (configuration.ifmap_bandwidth, configuration.filter_bandwidth), strict=True):
        log = one.arrays[-1][: int(one.record[r.FETCHES])]
        first = int(one.record[r.FIRST_LINES])
        fetches = np.full((log.size + 1, 2), one.record[r.FETCH_CYCLES])
        fetches[0], fetches[1:, 0] = (-first - 1, first), log
        requests.append(Requests(words, fetches))
    drained = drains[: int(write[r.DRAINS])]
    moved = [(int(one.record[r.BEGIN]), int(one.record[r.STOP]), int(one.record[r.ACCESSES])) for one in operands]
    return Bounded(
        int(totals[1]),
        int(totals[0]),
        [(int(a), int(b)) for a, b in seen],
        [*moved, (int(write[r.FIRST]), int(write[r.LAST]), int(write[r.WRITES]))],
        (requests[0], requests[1], Requests(configuration.ofmap_bandwidth, drained)),
    )


def write_record(words: int, bandwidth: int, ring: int) -> Ints:
    """An empty write buffer of so many words that sends lines of `bandwidth`."""
    record = np.zeros(r.WRITE_RECORD, np.int64)
    record[[r.SIZE, r.BANDWIDTH, r.RING, r.FREE, r.FIRST, r.LAST]] = words, bandwidth, ring, words, -1, -1
    return record


@dataclass(frozen=True, slots=True)
class _Operand:
    """A read buffer's record, its arrays in the order of :func:`run_bounded`, and the marks of its addresses."""

    record: Ints
    arrays: list[Ints]
    marks: Words


def _operand(
    layer: LayerShape, plan: Plan, folds: Ints, configuration: Configuration, memory: Memory, operand: int
) -> _Operand:
    """The read buffer of inputs (0) or weights (1) before its first fill."""
    size = (configuration.ifmap_words, configuration.filter_words)[operand]
    words = (configuration.ifmap_bandwidth, configuration.filter_bandwidth)[operand]
    lines = _lines_of(layer, configuration, memory, operand, words)
    seen, asked = np.zeros(1, np.int64), np.zeros(1, np.int64)
    if lines is None:
        record, fetched = _prefetching(plan, operand, size, words)
        marks = np.zeros(space_of(layer, plan)[operand], np.int32)
    else:
        record, fetched = _record(size, words, lines.count, words, lines.fetched_words), lines.place_of
        number, ports = configuration.banks[operand]
        record[[r.BANKS, r.BANK_PORTS, r.BANK_WORDS]] = number, ports, words // number
        marks = lines.line_of.astype(np.int32)
        seen, asked = np.full(number * lines.count, -1, np.int64), np.zeros(number, np.int64)
    latencies, places = memory.latencies[operand], configuration.read_queue
    record[[r.OTHERWISE, r.LATENCIES, r.PLACES, r.LOGGED]] = 1, latencies.size, places, _MOST_FETCHES
    record[[r.FIRST_LINES, r.FETCHED]] = record[r.ACCESSES] // words, fetched.size
    queue, log = np.zeros(places, np.int64), np.zeros(_MOST_FETCHES, np.int64)
    described = [plan.streams[operand], folds, plan.shapes[operand], record]
    return _Operand(record, [*described, fetched, seen, asked, latencies, queue, log], marks)


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


def _prefetching(plan: Plan, operand: int, size: int, bandwidth: int) -> tuple[Ints, Ints]:
    """Record of a prefetching read buffer, and the addresses in the order of fetching."""
    stream = plan.streams[operand]
    by_rows = operand == 0 if plan.dataflow == "os" else stream[1] == 0
    extent, step = (plan.sr, plan.rows) if by_rows else (plan.sc, plan.columns)
    starts = np.arange(0, extent, step)
    tiles = np.stack([starts, np.minimum(step, extent - starts)], axis=1).astype(np.int64)
    height = plan.sr if stream[1] == 1 else plan.t
    result = np.empty(height * extent, dtype=np.int64)
    numbers = np.array([tiles.shape[0], height, step, int(stream[1] == 0)])
    count = call("prefetch_order", [result, numbers, stream, tiles, plan.shapes[operand]])
    per_line = -(-size // 100)
    return _record(size, bandwidth, count // per_line + 1, per_line, height * tiles.shape[0] * step), result[:count]


def _record(size: int, bandwidth: int, lines: int, per_line: int, words: int) -> Ints:
    """A prefetching read buffer before its first fill of `words` in lines of `per_line`."""
    active = -(-size // 2)
    ahead = size - active
    held = min(-(-active // per_line), lines)
    record = np.zeros(r.READ_RECORD, np.int64)
    record[r.ACTIVE], record[r.AHEAD] = held, min(-(-ahead // per_line), lines - held)
    record[r.LINES], record[r.WORDS] = lines, per_line
    record[r.FETCH_CYCLES] = -(-ahead // bandwidth)
    record[r.FETCH_WORDS] = record[r.FETCH_CYCLES] * bandwidth
    record[r.ACCESSES] = min(-(-active // bandwidth), -(-words // bandwidth)) * bandwidth
    return record
