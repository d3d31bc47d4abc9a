"""A layer as SCALE-Sim v3 reports it: the same columns, by its accounting or by the hardware's.

`scale_sim` follows SCALE-Sim's own accounting, so that its users find their numbers again: each fold loads, computes
and drains one after the other; output-stationary folds are charged no drain; "Total Cycles" is the number of the last
cycle; output-stationary SRAM writes count R + C extra a fold; DRAM words are those of its set-wise buffers; a miss of
the bandwidth-bound mode waits twice.  Its counts are computed by the closed forms where an operand fits in half of its
SRAM, and by rebuilt buffers (:mod:`tierform.compat.scalesim.kernel`) where it does not.

`hardware` uses :mod:`tierform.chip.systolic.folds` and :mod:`tierform.chip.systolic.memory`: nothing extra, drains
charged, and what double buffering hides is hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.chip.systolic.cores import best_cut
from tierform.chip.systolic.folds import Overlap, accesses, layout, mapping_efficiency
from tierform.chip.systolic.memory import Buffers, bounded_cycles, traffic
from tierform.compat.scalesim.files import Configuration, LayerShape
from tierform.errors import fail

COMPUTE = (
    "Total Cycles (incl. prefetch)",
    "Total Cycles",
    "Stall Cycles",
    "Overall Util %",
    "Mapping Efficiency %",
    "Compute Util %",
)
BANDWIDTH = (
    "Avg IFMAP SRAM BW",
    "Avg FILTER SRAM BW",
    "Avg OFMAP SRAM BW",
    "Avg IFMAP DRAM BW",
    "Avg FILTER DRAM BW",
    "Avg OFMAP DRAM BW",
)
DETAIL = tuple(
    f"{level} {operand} {what}"
    for level in ("SRAM", "DRAM")
    for operand in ("IFMAP", "Filter", "OFMAP")
    for what in ("Start Cycle", "Stop Cycle", "Writes" if operand == "OFMAP" else "Reads")
)
SPARSE = (
    "Original Filter Storage",
    "New Storage (Filter+Metadata)",
    "Filter Metadata Storage",
    "Avg FILTER Metadata SRAM BW",
)
_NO_STALLS = np.zeros(0, dtype=np.int64)
MOST_STEPS = 4_000_000_000  # of a walk through demands: about a minute
_DEFAULT_WORDS = 10  # words a cycle of the first fill in the stall-free mode


@dataclass(frozen=True, slots=True)
class Report:
    """One layer's figures by column name; `sram_words` and `macs` for an energy estimate."""

    layer: LayerShape
    figures: dict[str, float]
    macs: int

    @property
    def sram_words(self) -> float:
        """All SRAM reads and writes."""
        return sum(self.figures[name] for name in ("SRAM IFMAP Reads", "SRAM Filter Reads", "SRAM OFMAP Writes"))

    @property
    def dram_words(self) -> float:
        """All DRAM reads and writes."""
        return sum(self.figures[name] for name in ("DRAM IFMAP Reads", "DRAM Filter Reads", "DRAM OFMAP Writes"))


@dataclass(frozen=True, slots=True)
class _Plan:
    """The streams and folds of a layer on an array, as the kernels take them."""

    dataflow: str
    rows: int
    columns: int
    sr: int
    sc: int
    t: int
    lines: int
    m: int
    n: int
    k: int
    streams: tuple[NDArray[np.int64], NDArray[np.int64]]
    shapes: tuple[NDArray[np.int64], NDArray[np.int64]]
    output: NDArray[np.int64]

    @property
    def fold_total(self) -> int:
        return -(-self.sr // self.rows) * -(-self.sc // self.columns)

    def folds(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Folds of inputs, weights and outputs, columns outside and rows inside."""
        tops = np.arange(0, self.sr, self.rows)
        lefts = np.arange(0, self.sc, self.columns)
        high = np.minimum(self.rows, self.sr - tops)
        wide = np.minimum(self.columns, self.sc - lefts)
        rf, cf = tops.size, lefts.size
        top, row_used = np.tile(tops, cf), np.tile(high, cf)
        left, column_used = np.repeat(lefts, rf), np.repeat(wide, rf)
        none = np.zeros(rf * cf, dtype=np.int64)
        by_row = np.stack([top, row_used, none, none], axis=1)
        by_column = np.stack([left, column_used, none, none], axis=1)
        loaded = np.stack([left, column_used, top, row_used], axis=1)
        output = np.stack([column_used, row_used], axis=1)
        if self.dataflow == "ws":
            return by_row, loaded, output
        if self.dataflow == "is":
            return loaded, by_row, output
        return by_row, by_column, output


def _plan(layer: LayerShape, configuration: Configuration) -> _Plan:
    rows, columns, flow = configuration.rows, configuration.columns, configuration.dataflow
    m, n, k = layer.m, layer.n, layer.sparsity.depth(layer.k)
    sr, sc, t = layout(flow, m, n, k)
    lines = rows + columns + t - 2 if flow == "os" else 2 * rows + columns + t - 2
    # operand, kind, are ports the matrix's rows, lead, steps, array rows, lines
    if flow == "ws":
        ifmap, weights = (0, 0, 0, rows, m, rows, lines), (1, 1, 0, 0, 0, rows, lines)
    elif flow == "is":
        ifmap, weights = (0, 1, 1, 0, 0, rows, lines), (1, 0, 1, rows, n, rows, lines)
    else:
        ifmap, weights = (0, 0, 1, 0, k, rows, lines), (1, 0, 0, 0, k, rows, lines)
    output = (1, t - 1, 0, rows) if flow == "os" else (0, 2 * rows - 1, t, rows)
    kept, block = layer.sparsity.kept, layer.sparsity.block
    conv: tuple[int, ...] = (layer.k, 0, 0, 0, 1, 1, 1, 1, 1)
    if layer.ifmap and layer.window and layer.ofmap:
        conv = (layer.k, 1, *layer.ifmap, layer.window[1], *layer.stride, layer.ofmap[1])
    shape = np.array((*conv, kept, block), dtype=np.int64)
    weight_shape = np.array((n, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1), dtype=np.int64)
    return _Plan(
        flow,
        rows,
        columns,
        sr,
        sc,
        t,
        lines,
        m,
        n,
        k,
        (np.array(ifmap, dtype=np.int64), np.array(weights, dtype=np.int64)),
        (shape, weight_shape),
        np.array(output, dtype=np.int64),
    )


def _space(layer: LayerShape, plan: _Plan) -> tuple[int, int]:
    inputs = int(np.prod(layer.ifmap)) if layer.ifmap else layer.m * (layer.k + layer.sparsity.block)
    return inputs, plan.k * plan.n


def _footprint(layer: LayerShape, plan: _Plan) -> tuple[int | None, int]:
    """Distinct input and weight elements asked for; None where only a walk tells (sparse convolutions)."""
    weights = plan.k * plan.n
    if not (layer.ifmap and layer.window and layer.ofmap):
        return plan.m * plan.k, weights
    if layer.sparsity.kept < layer.sparsity.block:
        return None, weights
    reached = []
    for axis in range(2):
        places = {
            start * layer.stride[axis] + offset
            for start in range(layer.ofmap[axis])
            for offset in range(layer.window[axis])
        }
        reached.append(len([place for place in places if place < layer.ifmap[axis]]))
    return reached[0] * reached[1] * layer.ifmap[2], weights


def scale_sim(layer: LayerShape, configuration: Configuration) -> Report:
    """The layer's figures by SCALE-Sim's accounting (`count` of a depth-wise layer is not applied)."""
    plan = _plan(layer, configuration)
    total, stall, spans, moved = (_estimated if configuration.calculate_bandwidth else _bounded)(
        layer, plan, configuration
    )
    counts = accesses(plan.dataflow, plan.m, plan.n, plan.k, plan.rows, plan.columns)
    input_reads: float = counts.inputs
    if configuration.sparse:
        input_reads *= layer.sparsity.block / layer.sparsity.kept
    writes = counts.output_writes + (plan.fold_total * (plan.rows + plan.columns) if plan.dataflow == "os" else 0)
    utilized = plan.lines + (0 if plan.dataflow == "os" else plan.columns - 1)
    figures = _figures(
        total,
        stall,
        layer.m * layer.n * layer.k,
        plan.rows * plan.columns,
        mapping_efficiency(plan.dataflow, plan.m, plan.n, plan.k, plan.rows, plan.columns),
        plan.t / utilized,
        (input_reads, counts.weights, writes),
        spans,
        moved,
    )
    if configuration.sparse:
        figures |= _storage(layer, plan, configuration, total)
    return Report(layer, figures, plan.m * plan.n * plan.k)


def _estimated(
    layer: LayerShape, plan: _Plan, configuration: Configuration
) -> tuple[int, int, list[tuple[int, int]], list[tuple[int, int, int]]]:
    """The stall-free mode: total, stalls, SRAM spans and DRAM (start, stop, words) of inputs, weights, outputs."""
    total, stall = plan.fold_total * plan.lines - 1, 0
    outputs = plan.m * plan.n * (1 if plan.dataflow == "os" else -(-plan.k // plan.rows))
    folds = None
    stalls = _NO_STALLS
    if outputs <= configuration.ofmap_words // 2:  # the buffer is emptied once, at the end
        drained = (total, total + -(-outputs // plan.columns) - 1, outputs)
    else:
        _check_walk(layer, plan)
        drained, stall, total = _drained(plan, configuration, stalls)
        if stall:  # the delay before each line is needed as well
            stalls = np.zeros(plan.fold_total * plan.lines, dtype=np.int64)
            _drained(plan, configuration, stalls)
    footprints, spaces = _footprint(layer, plan), _space(layer, plan)
    sizes = (configuration.ifmap_words, configuration.filter_words)
    moved: list[tuple[int, int, int]] = []
    for operand in range(2):
        set_size, footprint = sizes[operand] // 100, footprints[operand]
        if footprint is not None and footprint < 50 * set_size:
            sets = -(-footprint // set_size)
            moved.append((-sets * set_size // _DEFAULT_WORDS, -1, footprint))
            continue
        _check_walk(layer, plan)
        from tierform.compat.scalesim.kernel import estimate_product_reads, estimate_reads

        folds = folds or plan.folds()
        stream = plan.streams[operand]
        if operand == 0 and layer.ifmap:
            reads, start, stop = estimate_reads(
                stream, folds[0], plan.shapes[0], spaces[0], set_size, _DEFAULT_WORDS, stalls
            )
        else:
            once = stream[1] == 1 or -(-plan.sc // plan.columns) == 1
            if plan.dataflow == "os" and operand == 1:
                once = -(-plan.sr // plan.rows) == 1
            ports = plan.columns if stream[1] == 1 or (plan.dataflow, operand) == ("os", 1) else plan.rows
            reads, start, stop = estimate_product_reads(
                stream, folds[operand], ports, once, set_size, _DEFAULT_WORDS, stalls
            )
        moved.append((int(start), int(stop), int(reads)))
    return total, stall, _spans(layer, plan, stalls), [*moved, drained]


def _check_walk(layer: LayerShape, plan: _Plan) -> None:
    """Refuse a layer whose rebuilt buffers would take minutes or more memory than there is."""
    counts = accesses(plan.dataflow, plan.m, plan.n, plan.k, plan.rows, plan.columns)
    steps = plan.fold_total * plan.lines + counts.inputs + counts.weights
    if steps > MOST_STEPS:
        fail(
            f"SCALE-Sim's accounting of this layer has to be walked in {steps:.3g} steps; at most {MOST_STEPS:.0e} are",
            key=layer.name,
            value=f"{layer.m} x {layer.n} x {layer.k}",
            fix="Leave out --compat, enlarge the SRAM, or give a smaller layer.",
        )


def _drained(
    plan: _Plan, configuration: Configuration, stalls: NDArray[np.int64]
) -> tuple[tuple[int, int, int], int, int]:
    from tierform.compat.scalesim.kernel import drain_writes

    writes, first, last, stall, end, _ = drain_writes(
        plan.output, plan.lines, plan.folds()[2], configuration.ofmap_words, plan.columns, stalls
    )
    return (int(first), int(last), int(writes)), int(stall), int(end)


def _spans(layer: LayerShape, plan: _Plan, stalls: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First and last cycle of SRAM traffic of inputs, weights and outputs in the stall-free mode."""
    last = (plan.fold_total - 1) * plan.lines
    r = plan.sr - (-(-plan.sr // plan.rows) - 1) * plan.rows
    c = plan.sc - (-(-plan.sc // plan.columns) - 1) * plan.columns
    first_r = min(plan.sr, plan.rows)
    if plan.dataflow == "os":
        first_out = plan.t - 1 + plan.rows - first_r
        spans = [
            (0, last + plan.t - 1 + r - 1),
            (0, last + plan.t - 1 + c - 1),
            (first_out, last + plan.t - 1 + plan.rows - 1 + c - 1),
        ]
    else:
        streamed = (plan.rows, last + plan.rows + plan.t - 1 + r - 1)
        loaded = (plan.rows - first_r, last + plan.rows - 1)
        output = (2 * plan.rows - 1, last + 2 * plan.rows - 1 + plan.t - 1 + c - 1)
        spans = [streamed, loaded, output] if plan.dataflow == "ws" else [loaded, streamed, output]
    if layer.ragged:  # the last windows reach over the input's edge and ask for nothing there
        from tierform.compat.scalesim.kernel import asking_lines

        begin, end = asking_lines(plan.streams[0], plan.folds()[0], plan.shapes[0])
        spans[0] = (int(begin), int(end))
    return [
        (first + _delay(stalls, first) + hit, end + _delay(stalls, end) + hit)
        for (first, end), hit in zip(spans, (1, 1, 0), strict=True)
    ]


def _delay(stalls: NDArray[np.int64], line: int) -> int:
    return int(stalls[line]) if stalls.size else 0


def _bounded(
    layer: LayerShape, plan: _Plan, configuration: Configuration
) -> tuple[int, int, list[tuple[int, int]], list[tuple[int, int, int]]]:
    """The mode with a given bandwidth; the buffers are always rebuilt."""
    _check_walk(layer, plan)
    from tierform.compat.scalesim.kernel import run_bounded

    folds, spaces = plan.folds(), _space(layer, plan)
    parts: list[Any] = []
    before = []
    sizes = (configuration.ifmap_words, configuration.filter_words)
    for operand, words in enumerate((configuration.ifmap_bandwidth, configuration.filter_bandwidth)):
        state, fetched = _prefetching(plan, operand, sizes[operand], words, spaces[operand])
        before.append(int(state[5]) // words)
        held = np.zeros(spaces[operand], dtype=np.int32)
        parts += [plan.streams[operand], folds[operand], state, held, fetched]
    writes, first, last, stall, end, seen = run_bounded(
        plan.lines,
        *parts,
        *plan.shapes,
        plan.output,
        folds[2],
        configuration.ofmap_words,
        configuration.ofmap_bandwidth,
    )
    spans = [(int(a), int(b)) for a, b in seen]
    moved = [(-before[operand], int(parts[5 * operand + 2][4]), int(parts[5 * operand + 2][5])) for operand in (0, 1)]
    return int(end), int(stall), spans, [*moved, (int(first), int(last), int(writes))]


def _prefetching(
    plan: _Plan, operand: int, size: int, bandwidth: int, space: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """State of a prefetching read buffer after its first fill, and the addresses in the order of fetching."""
    from tierform.compat.scalesim.kernel import prefetch_order

    stream = plan.streams[operand]
    by_rows = operand == 0 if plan.dataflow == "os" else stream[1] == 0
    extent, step = (plan.sr, plan.rows) if by_rows else (plan.sc, plan.columns)
    starts = np.arange(0, extent, step)
    tiles = np.stack([starts, np.minimum(step, extent - starts)], axis=1).astype(np.int64)
    height = plan.sr if stream[1] == 1 else plan.t
    result = np.empty(height * extent, dtype=np.int64)
    count = prefetch_order(stream, tiles, height, step, stream[1] == 0, plan.shapes[operand], result)
    active = -(-size // 2)
    ahead, per_line = size - active, -(-size // 100)
    lines = count // per_line + 1
    held = min(-(-active // per_line), lines)
    following = min(-(-ahead // per_line), lines - held)
    fetch_lines = -(-(height * tiles.shape[0] * step) // bandwidth)
    first = min(-(-active // bandwidth), fetch_lines)
    cycles_each = -(-ahead // bandwidth)
    state = np.array(
        [0, held, following, lines, -1, first * bandwidth, cycles_each * bandwidth, cycles_each, per_line],
        dtype=np.int64,
    )
    return state, result[:count]


def _storage(layer: LayerShape, plan: _Plan, configuration: Configuration, total: int) -> dict[str, float]:
    kept = plan.k * plan.n
    if configuration.representation == "csr":
        metadata: float = kept + layer.k + 1
    elif configuration.representation == "csc":
        metadata = kept + layer.n + 1
    else:
        metadata = kept * max(0, (layer.sparsity.block - 1).bit_length()) / 32
    return dict(zip(SPARSE, (layer.k * layer.n, kept + metadata, metadata, metadata / total), strict=True))


def _figures(
    total: int,
    stall: int,
    macs: int,
    elements: int,
    mapped: float,
    streamed: float,
    sram: tuple[float, float, float],
    spans: list[tuple[int, int]],
    moved: list[tuple[int, int, int]],
) -> dict[str, float]:
    values: list[float] = [
        moved[2][1] - min(moved[0][0], moved[1][0]),
        total,
        stall,
        100 * macs / (total * elements),
        100 * mapped,
        100 * mapped * streamed,
    ]
    figures = dict(zip(COMPUTE, values, strict=True))
    rates = [words / total for words in sram] + [words / (stop - start + 1) for start, stop, words in moved]
    figures |= dict(zip(BANDWIDTH, rates, strict=True))
    detail: list[float] = []
    for (first, last), words in zip(spans, sram, strict=True):
        detail += [first, last, words]
    for start, stop, words in moved:
        detail += [start, stop, words]
    return figures | dict(zip(DETAIL, detail, strict=True))


def hardware(
    layer: LayerShape, configuration: Configuration, overlap: Overlap = "double-buffered", arrays: int = 1
) -> Report:
    """The layer's figures by the hardware's accounting; cycles count from 0, prefetching before it is negative.

    Several `arrays`, each with the configured SRAM, share the layer (:mod:`tierform.chip.systolic.cores`).
    """
    rows, columns, flow = configuration.rows, configuration.columns, configuration.dataflow
    m, n, k = layer.m, layer.n, layer.sparsity.depth(layer.k)
    cut = best_cut(flow, m, n, k, 1, arrays, rows, columns, overlap)
    compute = cut.cycles
    moved = traffic(
        flow,
        m,
        n,
        k,
        rows,
        columns,
        Buffers(configuration.ifmap_words, configuration.filter_words, configuration.ofmap_words),
    )
    inputs = moved.inputs
    if layer.ifmap:  # a convolution's windows overlap: each element is fetched once where the product fetches m * k
        distinct = _footprint(layer, _plan(layer, configuration))[0] or m * k
        inputs = -(-moved.inputs * distinct // (m * k))
    writes = moved.output_writes + moved.output_reads
    bandwidth = (configuration.ifmap_bandwidth, configuration.filter_bandwidth, configuration.ofmap_bandwidth)
    total, stall, ahead = compute, 0, 0
    if not configuration.calculate_bandwidth:
        bounded = bounded_cycles(flow, m, n, k, rows, columns, compute, moved, bandwidth)
        total, stall, ahead = bounded.total_cycles, bounded.stall_cycles, bounded.prefetch_cycles
    part_m, part_n = -(-m // cut.m_parts), -(-n // cut.n_parts)
    counts = accesses(flow, part_m, part_n, k, rows, columns)
    parts = m * n / (part_m * part_n)
    spans = [(0, total - 1)] * 3
    dram = [(-ahead, total - 1, inputs), (-ahead, total - 1, moved.weights), (0, total - 1, writes)]
    sram = (parts * counts.inputs, parts * counts.weights, parts * (counts.output_writes + counts.partial_reads))
    mapped = mapping_efficiency(flow, m, n, k, rows, columns)
    busy = m * n * k / (compute * rows * columns * arrays)
    figures = _figures(
        total, stall, layer.m * layer.n * layer.k, rows * columns * arrays, mapped, busy / mapped, sram, spans, dram
    )
    figures["Total Cycles (incl. prefetch)"] = total + ahead
    return Report(layer, figures, m * n * k)
