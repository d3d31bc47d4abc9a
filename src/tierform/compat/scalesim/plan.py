"""The streams and folds of a layer on an array, as SCALE-Sim orders them and as the kernels take them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tierform.chip.systolic.folds import layout
from tierform.compat.scalesim.files import Configuration, LayerShape


@dataclass(frozen=True, slots=True)
class Plan:
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
        """Folds of the whole layer."""
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


def plan_of(layer: LayerShape, configuration: Configuration) -> Plan:
    """The layer on the configured array."""
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
    return Plan(
        dataflow=flow,
        rows=rows,
        columns=columns,
        sr=sr,
        sc=sc,
        t=t,
        lines=lines,
        m=m,
        n=n,
        k=k,
        streams=(np.array(ifmap, dtype=np.int64), np.array(weights, dtype=np.int64)),
        shapes=(shape, weight_shape),
        output=np.array(output, dtype=np.int64),
    )


def space_of(layer: LayerShape, plan: Plan) -> tuple[int, int]:
    """How many addresses inputs and weights have."""
    inputs = int(np.prod(layer.ifmap)) if layer.ifmap else layer.m * (layer.k + layer.sparsity.block)
    return inputs, plan.k * plan.n


def footprint_of(layer: LayerShape, plan: Plan) -> tuple[int | None, int]:
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
