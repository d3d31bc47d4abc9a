"""When everything happens: layers, micro-batches and token chunks on resources, in fixed service orders.

A stage is a run of layers; each layer is a list of steps in a valid order.  Every step works chunk by chunk and starts
when its first chunk of tokens is there, unless it waits for all of them.  A resource of a single layer (crossbars with
its weights) and a shared one (the systolic arrays, a path of the network) serve their work in a fixed order:

    begin[event] = max(end of what it waits for, end of the resource's event before)

The order is that of a *virtual time* in which a step on a layer's own resource takes `weight` units and any other step
one, and micro-batches follow each other at a fixed spacing.  It does not depend on any duration.  So all times are
maxima of sums of durations, and a shorter duration never makes the schedule longer (list scheduling, which fills gaps
as it meets them, has no such law: Graham, SIAM J. Appl. Math. 17, 1969).  Several orders are tried and the best is
taken; the minimum of monotone functions is monotone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.simulation.schedule_critical import Span, critical_path, seconds_by_resource
from tierform.simulation.schedule_flat import FlatStage
from tierform.simulation.schedule_kernel import Events, Structure, order_events, play
from tierform.simulation.schedule_layers import Run
from tierform.simulation.schedule_timeline import Piece, Slice, pieces, slices

Times = NDArray[np.float64]
Ints = NDArray[np.int64]
# (weight of a step on a layer's own resource, spacing of micro-batches in chunks of that weight): the orders tried.
_ORDERS = ((1, 0.5), (4, 1.0), (16, 1.0), (64, 1.0))
_ORDERS_OF_ONE = ((1, 0.0), (4, 0.0), (16, 0.0))
# Beyond so many micro-batches the schedule is continued with the period that it has reached.
MOST_MICRO_BATCHES = 64
_PERIOD = 16
_REMEMBERED = 256


@dataclass(frozen=True)
class StageSchedule:
    """The length of one pass and, if asked for, its timeline; bars, pieces and path are found when called for."""

    makespan_s: float
    slices: Callable[[], list[Slice]] = list
    pieces: Callable[[], list[Piece]] = list
    path: Callable[[], list[Span]] = list

    def critical(self) -> dict[str, float]:
        """Seconds of the critical path by what they were spent on."""
        return seconds_by_resource(self.path())


def schedule_stage(
    waves: Sequence[Run], micro_batches: Sequence[int] = (1,), chunks: int = 1, *, record: bool = False
) -> StageSchedule:
    """Schedule a stage.

    `waves` holds, for each wave of equal micro-batches, its runs of equal layers with their counts (the same structure
    in all waves); `micro_batches` how many there are of each.  `record` keeps the timeline.
    """
    total = sum(micro_batches)
    if total > MOST_MICRO_BATCHES and not record:
        return StageSchedule(_continued(waves, micro_batches, chunks))
    flat = FlatStage(waves, chunks)
    if not flat.alike:  # waves of other structure wait for each other
        parts = [
            schedule_stage([wave], (number,), chunks, record=record)
            for wave, number in zip(waves, micro_batches, strict=True)
        ]
        return _one_after_the_other(parts, micro_batches)
    orders = _ORDERS if total > 1 else _ORDERS_OF_ONE
    best: tuple[float, Events] | None = None
    for weight, share in orders:
        spacing = max(1, round(weight * share * chunks))
        events = _events(flat, tuple(micro_batches), weight, spacing)
        makespan = play(events, flat.time, flat.tail, flat.resources)
        if best is None or makespan < best[0] * (1 - 1e-12):
            best = (makespan, events)
    assert best is not None
    if not record:
        return StageSchedule(best[0])
    return StageSchedule(
        best[0],
        partial(slices, flat, best[1], micro_batches),
        partial(pieces, flat, best[1]),
        partial(critical_path, flat, best[1]),
    )


def _one_after_the_other(parts: Sequence[StageSchedule], micro_batches: Sequence[int]) -> StageSchedule:
    """Schedules that follow each other."""
    starts = [0.0, *accumulate(part.makespan_s for part in parts)]
    micro = [0, *accumulate(micro_batches)]
    at = list(zip(parts, starts, micro, strict=False))
    return StageSchedule(starts[-1], partial(_slices_of, at), partial(_pieces_of, at), partial(_path_of, at))


Parts = Sequence[tuple[StageSchedule, float, int]]


def _slices_of(parts: Parts) -> list[Slice]:
    return [replace(item, **_later(item, clock_s, micro)) for part, clock_s, micro in parts for item in part.slices()]


def _pieces_of(parts: Parts) -> list[Piece]:
    found: list[Piece] = []
    for part, clock_s, micro in parts:
        shift = len(found)
        found += [
            replace(item, **_later(item, clock_s, micro), after=tuple(number + shift for number in item.after))
            for item in part.pieces()
        ]
    return found


def _path_of(parts: Parts) -> list[Span]:
    return [span.later(clock_s) for part, clock_s, _ in parts for span in part.path()]


def _later(item: Slice | Piece, clock_s: float, micro: int) -> dict[str, Any]:
    return {
        "micro_batch": item.micro_batch + micro,
        "start_s": item.start_s + clock_s,
        "end_s": item.end_s + clock_s,
    }


def _continued(waves: Sequence[Run], micro_batches: Sequence[int], chunks: int) -> float:
    """The makespan of many micro-batches: scheduled for as many as the period needs to settle, then continued."""
    largest = max(range(len(waves)), key=lambda index: micro_batches[index])
    excess = sum(micro_batches) - MOST_MICRO_BATCHES
    few = [
        number - min(excess, number - 1) if index == largest else number for index, number in enumerate(micro_batches)
    ]
    fewer = [max(1, number - _PERIOD) if index == largest else number for index, number in enumerate(few)]
    long = schedule_stage(waves, few, chunks).makespan_s
    short = schedule_stage(waves, fewer, chunks).makespan_s
    return long + (sum(micro_batches) - sum(few)) * (long - short) / (sum(few) - sum(fewer))


_orders: OrderedDict[object, Events] = OrderedDict()


def _events(flat: FlatStage, micro_batches: tuple[int, ...], weight: int, spacing: int) -> Events:
    """The events of a structure in one service order; remembered, since it depends on no duration."""
    key = (flat.plan, micro_batches, weight, spacing)
    found = _orders.get(key)
    if found is not None:
        _orders.move_to_end(key)
        return found
    plan, chunks, levels, leave = flat.plan, flat.chunks, [], []
    for table in flat.tables:
        # Transfers hold own paths for much shorter than own crossbars are held: only steps of operators are heavy.
        shown = set(table.shown)
        heavy = [own and number in shown for number, own in enumerate(table.own)]
        own_levels = table.levels(weight, chunks, heavy)
        levels += own_levels
        leave.append(own_levels[table.output] + (weight if heavy[table.output] else 1))
    start, at = [], 0
    for kind in flat.kinds:
        start.append(at)
        at += leave[kind]
    edges = [edges for table in flat.tables for edges in table.edges]
    flat_edges = [edge for group in edges for edge in group]
    step_at = np.cumsum([0, *(len(table.once) for table in flat.tables)])
    structure = Structure(
        kinds=np.array(flat.kinds, dtype=np.int64),
        start=np.array(start, dtype=np.int64),
        step_at=step_at.astype(np.int64),
        step_level=np.array(levels, dtype=np.int64),
        step_once=np.array([once for table in flat.tables for once in table.once], dtype=np.int64),
        step_shared=np.array(
            [-1 if name is None else plan.shared[name] for table in flat.tables for name in table.resource],
            dtype=np.int64,
        ),
        edge_at=np.cumsum([0, *(len(group) for group in edges)]).astype(np.int64),
        edge_source=np.array([source for source, _ in flat_edges], dtype=np.int64),
        edge_whole=np.array([whole for _, whole in flat_edges], dtype=np.int64),
        output=np.array([table.output for table in flat.tables], dtype=np.int64),
        wave_of=np.repeat(np.arange(len(micro_batches)), micro_batches).astype(np.int64),
    )
    found = order_events(structure, chunks, weight, spacing, len(plan.shared), plan.steps)
    _orders[key] = found
    if len(_orders) > _REMEMBERED:
        _orders.popitem(last=False)
    return found
