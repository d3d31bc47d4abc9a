"""A layer by the hardware's accounting, under SCALE-Sim's columns.

Nothing is counted extra, drains are charged, and what double buffering hides is hidden (:mod:`tierform.chip.systolic`).
"""

from __future__ import annotations

from tierform.chip.systolic.cores import best_cut
from tierform.chip.systolic.folds import Overlap, accesses, mapping_efficiency
from tierform.chip.systolic.memory import Buffers, bounded_cycles, traffic
from tierform.compat.scalesim.files import Configuration, LayerShape
from tierform.compat.scalesim.plan import footprint_of, plan_of
from tierform.compat.scalesim.report import Report, figures_of, storage_of


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
        distinct = footprint_of(layer, plan_of(layer, configuration))[0] or m * k
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
    figures = figures_of(
        total, stall, layer.m * layer.n * layer.k, rows * columns * arrays, mapped, busy / mapped, sram, spans, dram
    )
    figures["Total Cycles (incl. prefetch)"] = total + ahead
    if configuration.sparse:
        figures |= storage_of(layer, configuration, total)
    return Report(layer, figures, m * n * k)
