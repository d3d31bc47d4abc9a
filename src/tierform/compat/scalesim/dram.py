"""Latencies of the DRAM behind a systolic array, from our own memory engine or from files as SCALE-Sim 3 keeps them.

There, the lines that a run without latencies asks for go through Ramulator, and a second run waits as long as each line
took.  Here they go through :class:`tierform.memory.cycle.CycleMemory`.  As there, array and memory share one clock; a
word is a byte; a line is done when its last burst is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tierform.arrays import Ints
from tierform.compat.scalesim.buffers import Memory, Requests, bounded
from tierform.compat.scalesim.files import Configuration, LayerShape
from tierform.compat.scalesim.layout import Layout
from tierform.compat.scalesim.plan import plan_of
from tierform.errors import fail
from tierform.memory.cycle import CycleMemory, Trace

_OFFSETS = (0, 10_000_000, 20_000_000)
_NAMES = ("ifmap", "filter", "ofmap")
_MOST_LINES = 50_000_000
_MOST_LATENCY = 10_000  # SCALE-Sim takes a longer one for a fault


def simulated_latencies(
    layer: LayerShape, configuration: Configuration, memory: CycleMemory, layout: Layout | None = None
) -> tuple[Ints, Ints, Ints]:
    """Latency in cycles of each line of inputs, weights and outputs: a run without latencies asks, `memory` answers."""
    asked = bounded(layer, plan_of(layer, configuration), configuration, Memory(layout)).requests
    cycles, addresses, writes, owners = [], [], [], []
    for operand, requests in enumerate(asked):
        at = _line_cycles(requests)
        burst = memory.spec.burst_bytes
        start = _OFFSETS[operand] + np.arange(at.size) * requests.words
        bursts = (start + requests.words - 1) // burst - start // burst + 1
        line = np.repeat(np.arange(at.size), bursts)
        step = np.arange(line.size) - np.repeat(np.cumsum(bursts) - bursts, bursts)
        cycles.append(at[line])
        addresses.append((start[line] // burst + step) * burst)
        writes.append(np.full(line.size, operand == 2))
        owners.append(line)
    cycle = np.concatenate(cycles)
    order = np.argsort(cycle, kind="stable")
    earliest = int(cycle.min())
    trace = Trace(
        cycle[order] - earliest, np.concatenate(addresses)[order], np.concatenate(writes).astype(np.bool_)[order]
    )
    result = memory.run(trace, wrap=True, issue=64)
    done = np.empty(cycle.size, np.int64)
    done[order] = result.accepted_cycles + 1 + result.latency_cycles - trace.cycle
    found, first = [], 0
    for line in owners:
        latency = np.zeros(line.max(initial=-1) + 1, np.int64)
        np.maximum.at(latency, line, done[first : first + line.size])
        found.append(latency)
        first += line.size
    return found[0], found[1], found[2]


def _line_cycles(requests: Requests) -> Ints:
    """The cycle in which each line is asked for."""
    first, count = requests.fetches.T
    total = int(count.sum())
    if total > _MOST_LINES:
        fail(f"{total} lines are asked of the DRAM; at most {_MOST_LINES} are simulated", fix="Enlarge the SRAM.")
    return np.repeat(first - (np.cumsum(count) - count), count) + np.arange(total)


def read_latencies(folder: Path, layer: int) -> tuple[Ints, Ints, Ints]:
    """The latencies of layer number `layer` as SCALE-Sim keeps them: ``_ifmapFile0.npy`` and its kin."""
    found = []
    for name in _NAMES:
        path = folder / f"_{name}File{layer}.npy"
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            fail("the latencies cannot be read", file=str(path), value=type(error).__name__)
        if values.ndim != 1 or values.dtype.kind not in "iuf" or not np.all(np.isfinite(values)) or np.any(values < 0):
            fail("a list of latencies of at least 0 cycles is needed", file=str(path))
        if np.any(values != np.floor(values)):
            fail("latencies are whole cycles", file=str(path))
        found.append(np.minimum(values, _MOST_LATENCY + 1).astype(np.int64))
    return found[0], found[1], found[2]
