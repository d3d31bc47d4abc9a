"""A layer as SCALE-Sim v3 reports it, by its own accounting, so that its users find their numbers again.

Each fold loads, computes and drains one after the other; output-stationary folds are charged no drain; "Total Cycles"
is the number of the last cycle; output-stationary SRAM writes count R + C extra a fold; DRAM words are those of its
set-wise buffers; a miss of the bandwidth-bound mode waits twice.  Counts are computed by the closed forms where an
operand fits in half of its SRAM, and by rebuilt buffers (:mod:`tierform.compat.scalesim.estimate` and
:mod:`tierform.compat.scalesim.bounded`) where it does not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tierform.chip.systolic.folds import accesses, mapping_efficiency
from tierform.compat.scalesim import records as r
from tierform.compat.scalesim.buffers import Memory, bounded, write_record
from tierform.compat.scalesim.files import Configuration, LayerShape
from tierform.compat.scalesim.loops import call
from tierform.compat.scalesim.plan import Plan, footprint_of, plan_of, space_of
from tierform.compat.scalesim.report import Report, figures_of, storage_of
from tierform.errors import fail

_NO_STALLS = np.zeros(0, dtype=np.int64)
MOST_STEPS = 4_000_000_000  # of a walk through demands: about a minute
_DEFAULT_WORDS = 10  # words a cycle of the first fill in the stall-free mode


def scale_sim(layer: LayerShape, configuration: Configuration, memory: Memory | None = None) -> Report:
    """The layer's figures by SCALE-Sim's accounting (`count` of a depth-wise layer is not applied).

    `memory`: the layout of the SRAM and the latencies of the DRAM, for the mode with a given bandwidth.
    """
    plan = plan_of(layer, configuration)
    if configuration.calculate_bandwidth:
        total, stall, spans, moved = _estimated(layer, plan, configuration)
    else:
        _check_walk(layer, plan)
        found = bounded(layer, plan, configuration, memory or Memory())
        total, stall, spans, moved = found.total, found.stall, found.spans, found.moved
    counts = accesses(plan.dataflow, plan.m, plan.n, plan.k, plan.rows, plan.columns)
    input_reads: float = counts.inputs
    if configuration.sparse:
        input_reads *= layer.sparsity.block / layer.sparsity.kept
    writes = counts.output_writes + (plan.fold_total * (plan.rows + plan.columns) if plan.dataflow == "os" else 0)
    utilized = plan.lines + (0 if plan.dataflow == "os" else plan.columns - 1)
    figures = figures_of(
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
        figures |= storage_of(layer, configuration, total)
    return Report(layer, figures, plan.m * plan.n * plan.k)


def _estimated(
    layer: LayerShape, plan: Plan, configuration: Configuration
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
    footprints, spaces = footprint_of(layer, plan), space_of(layer, plan)
    sizes = (configuration.ifmap_words, configuration.filter_words)
    moved: list[tuple[int, int, int]] = []
    for operand in range(2):
        set_size, footprint = sizes[operand] // 100, footprints[operand]
        if footprint is not None and footprint < 50 * set_size:
            sets = -(-footprint // set_size)
            moved.append((-sets * set_size // _DEFAULT_WORDS, -1, footprint))
            continue
        _check_walk(layer, plan)
        folds = folds or plan.folds()
        stream = plan.streams[operand]
        record = np.zeros(r.SET_RECORD, np.int64)
        record[[r.SET_SIZE, r.SET_BANDWIDTH]] = set_size, _DEFAULT_WORDS
        found, numbers = np.zeros(3, np.int64), [plan.fold_total, int(stalls.size > 0)]
        if operand == 0 and layer.ifmap:
            marks = np.full(spaces[0], -1, np.int32)
            table = [found, np.array(numbers), record, stream, folds[0], stalls, plan.shapes[0]]
            call("estimate_reads", table, marks)
        else:
            once = stream[1] == 1 or -(-plan.sc // plan.columns) == 1
            if plan.dataflow == "os" and operand == 1:
                once = -(-plan.sr // plan.rows) == 1
            ports = plan.columns if stream[1] == 1 or (plan.dataflow, operand) == ("os", 1) else plan.rows
            tiles = int(folds[operand][:, 0].max()) // ports + 1
            marks = np.full(0 if once else tiles * (int(stream[4]) + ports - 1) * ports, -1, np.int32)
            table = [found, np.array([*numbers, ports, int(once)]), record, stream, folds[operand], stalls]
            call("estimate_product_reads", table, marks)
        reads, start, stop = found
        moved.append((int(start), int(stop), int(reads)))
    return total, stall, _spans(layer, plan, stalls), [*moved, drained]


def _check_walk(layer: LayerShape, plan: Plan) -> None:
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
    plan: Plan, configuration: Configuration, stalls: NDArray[np.int64]
) -> tuple[tuple[int, int, int], int, int]:
    """The write buffer alone: (first and last drain cycle, words), stalls, cycle of the last line."""
    ring, ended = 64 + 2 * configuration.ofmap_words // plan.columns, -1
    found, none = np.zeros(3, np.int64), np.zeros(0, np.int64)
    numbers = np.array([plan.lines, plan.fold_total, int(stalls.size > 0)])
    while ended < 0:
        record = write_record(configuration.ofmap_words, plan.columns, ring)
        table = [found, numbers, plan.output, plan.folds()[2], record, np.zeros(ring, np.int64), stalls]
        ended = call("drain_writes", [*table, none, none, none])
        ring *= 2
    drained = int(record[r.FIRST]), int(record[r.LAST]), int(record[r.WRITES])
    return drained, int(found[0]), int(found[1])


def _spans(layer: LayerShape, plan: Plan, stalls: NDArray[np.int64]) -> list[tuple[int, int]]:
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
        found = np.zeros(2, np.int64)
        number = np.array([plan.fold_total])
        call("asking_lines", [found, number, plan.streams[0], plan.folds()[0], plan.shapes[0]])
        spans[0] = (int(found[0]), int(found[1]))
    return [
        (first + _delay(stalls, first) + hit, end + _delay(stalls, end) + hit)
        for (first, end), hit in zip(spans, (1, 1, 0), strict=True)
    ]


def _delay(stalls: NDArray[np.int64], line: int) -> int:
    return int(stalls[line]) if stalls.size else 0
