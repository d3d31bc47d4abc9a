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
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.simulation.prefetch import LAYER_START
from tierform.simulation.schedule_critical import critical_path
from tierform.simulation.schedule_kernel import Events, Structure, order_events, play
from tierform.simulation.schedule_timeline import Piece, Slice, pieces, slices

Times = NDArray[np.float64]
Ints = NDArray[np.int64]
BLOCK_INPUT = -1
BEFORE_INPUT = -2
PREVIOUS_INPUT = -3
# (weight of a step on a layer's own resource, spacing of micro-batches in chunks of that weight): the orders tried.
_ORDERS = ((1, 0.5), (4, 1.0), (16, 1.0), (64, 1.0))
_ORDERS_OF_ONE = ((1, 0.0), (4, 0.0), (16, 0.0))
# Beyond so many micro-batches the schedule is continued with the period that it has reached.
MOST_MICRO_BATCHES = 64
_PERIOD = 16
_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Edge:
    """What a step waits for: the step `source` of its layer, BLOCK_INPUT, or PREVIOUS_INPUT: that of the layer before.

    `whole` waits for all chunks.  A transfer over `path` takes `head_s` for its head and holds the path for
    `transfer_s`; an empty path is no transfer.  `own` gives every layer a path of its own.
    """

    source: int
    whole: bool = False
    path: str = ""
    head_s: float = 0.0
    transfer_s: float = 0.0
    own: bool = False


@dataclass(frozen=True, slots=True)
class ScheduledOperator:
    """One operator of a layer on a resource.

    `own` gives every layer a resource of its own (weights in its own crossbars).  `occupancy_s` is for all chunks,
    `tail_s` what the result needs beyond that.  `fetch_s` of the resource `fetch` (memory) is spent first, prefetched
    while the step that feeds it waits for its turn or works, or already from the end of the step `freed_by` on.  The
    step begins with the first of `pieces` of its operands, ends after the last (:mod:`tierform.simulation.prefetch`).
    """

    name: str
    resource: str
    occupancy_s: float
    tail_s: float = 0.0
    own: bool = False
    after: tuple[Edge, ...] = (Edge(BLOCK_INPUT),)
    fetch: str = ""
    fetch_s: float = 0.0
    freed_by: int | None = None
    pieces: int = 1


@dataclass(frozen=True, slots=True)
class Layer:
    """The steps of one layer; `output` is the step whose result the next layer takes."""

    name: str
    steps: tuple[ScheduledOperator, ...]
    output: int = -1


Run = Sequence[tuple[Layer, int]]


@dataclass(frozen=True)
class StageSchedule:
    """The length of one pass and, if asked for, its timeline; pieces and path are found when called for."""

    makespan_s: float
    slices: list[Slice] = field(default_factory=list)
    pieces: Callable[[], list[Piece]] = list
    critical: Callable[[], dict[str, float]] = dict


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
    flat = _Flat(waves, chunks)
    if not flat.alike:  # waves of other structure wait for each other
        parts = [
            schedule_stage([wave], (number,), chunks, record=record)
            for wave, number in zip(waves, micro_batches, strict=True)
        ]
        return _one_after_the_other(parts)
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
        slices(flat, best[1], micro_batches),
        partial(pieces, flat, best[1]),
        partial(critical_path, flat, best[1]),
    )


def _one_after_the_other(parts: Sequence[StageSchedule]) -> StageSchedule:
    """Schedules that follow each other."""
    found: list[Slice] = []
    starts: list[tuple[float, int]] = []
    clock_s, micro = 0.0, 0
    for part in parts:
        starts.append((clock_s, micro))
        found += [replace(item, **_later(item, clock_s, micro)) for item in part.slices]
        clock_s += part.makespan_s
        micro = 1 + max((item.micro_batch for item in found), default=-1)
    return StageSchedule(clock_s, found, partial(_pieces_of, parts, starts), partial(_critical_of, parts))


def _pieces_of(parts: Sequence[StageSchedule], starts: Sequence[tuple[float, int]]) -> list[Piece]:
    found: list[Piece] = []
    for part, (clock_s, micro) in zip(parts, starts, strict=True):
        shift = len(found)
        found += [
            replace(item, **_later(item, clock_s, micro), after=tuple(number + shift for number in item.after))
            for item in part.pieces()
        ]
    return found


def _critical_of(parts: Sequence[StageSchedule]) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.critical().items():
            found[name] = found.get(name, 0.0) + seconds
    return found


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


class _Flat:
    """The waves as flat arrays: steps, transfers and fetches of every kind of layer, and a key of their structure."""

    def __init__(self, waves: Sequence[Run], chunks: int) -> None:
        self.chunks = chunks
        self.shared: dict[str, int] = {}
        self.names: list[tuple[str, str, bool]] = []
        kinds: list[int] = []
        tables: list[_Kind] = []
        for number, (layer, count) in enumerate(waves[0]):
            kinds += [number] * count
            tables.append(_Kind(layer, self.shared))
        times = [table.times for table in tables]
        tails = [table.tails for table in tables]
        self.alike = True
        for wave in waves[1:]:
            others = [
                _Kind(_like(layer, first), self.shared) for (layer, _), (first, _) in zip(wave, waves[0], strict=True)
            ]
            self.alike &= [other.structure for other in others] == [table.structure for table in tables]
            if not self.alike:
                return
            times += [table.times for table in others]
            tails += [table.tails for table in others]
        self.kinds = tuple(kinds)
        self.tables = tables
        once = np.concatenate([np.array(table.once, dtype=np.bool_) for table in tables])
        all_once = np.concatenate([once] * len(waves))
        whole = np.concatenate([np.asarray(item, dtype=np.float64) for item in times])
        self.time: Times = np.where(all_once, whole, whole / chunks)
        self.tail: Times = np.concatenate([np.asarray(item, dtype=np.float64) for item in tails])
        self.steps = len(once)
        most = max(len(table.times) for table in tables)
        self.resources = len(self.shared) + len(kinds) * most
        self.key = (self.kinds, chunks, len(self.shared), tuple(table.structure for table in tables))


def _like(layer: Layer, first: Layer) -> Layer:
    """A layer of a smaller micro-batch with the steps of a larger one: what it does not need takes no time."""
    own = {step.name: step for step in layer.steps}
    if list(own) == [step.name for step in first.steps]:
        return layer
    steps = []
    for step in first.steps:
        known = own.get(step.name)
        if known is None:
            edges = tuple(replace(edge, head_s=0.0, transfer_s=0.0) for edge in step.after)
            steps.append(replace(step, occupancy_s=0.0, tail_s=0.0, fetch_s=0.0, after=edges))
        else:
            steps.append(replace(known, after=_edges_like(known, step, layer, first)))
    return Layer(layer.name, tuple(steps), first.output)


def _edges_like(known: ScheduledOperator, step: ScheduledOperator, layer: Layer, first: Layer) -> tuple[Edge, ...]:
    """The edges of the larger layer's step with the times of the smaller one's, where it has them."""

    def giver(edge: Edge, of: Layer) -> str:
        return "" if edge.source < 0 else of.steps[edge.source].name

    times = {(giver(edge, layer), edge.path): edge for edge in known.after}
    found = []
    for edge in step.after:
        same = times.get((giver(edge, first), edge.path))
        head_s, transfer_s = (same.head_s, same.transfer_s) if same else (0.0, 0.0)
        found.append(replace(edge, head_s=head_s, transfer_s=transfer_s))
    return tuple(found)


class _Kind:
    """One kind of layer: its steps with the transfers and fetches that they need as steps of their own."""

    __slots__ = ("edges", "names", "once", "output", "own", "resource", "shown", "structure", "tails", "times")

    def __init__(self, layer: Layer, shared: dict[str, int]) -> None:
        self.times: list[float] = []
        self.tails: list[float] = []
        self.once: list[bool] = []
        self.own: list[bool] = []
        self.resource: list[int] = []
        self.edges: list[tuple[tuple[int, bool], ...]] = []
        self.names: list[tuple[str, str]] = []
        self.shown: list[int] = []
        place: list[int] = []
        sent: dict[tuple[int, str], int] = {}
        for step in layer.steps:
            edges: list[tuple[int, bool]] = []
            for edge in step.after or (Edge(BLOCK_INPUT),):
                source = place[edge.source] if edge.source >= 0 else edge.source
                if edge.path:
                    key = (edge.source, edge.path)
                    if key not in sent:
                        sent[key] = self._add(
                            edge.path, edge.own, edge.transfer_s, edge.head_s, ((source, False),), shared
                        )
                    source = sent[key]
                edges.append((source, edge.whole))
            waits = tuple(dict.fromkeys(edges))
            needed = waits
            if step.fetch:
                giver = waits[0][0]
                before = ((BEFORE_INPUT, False),) if giver < 0 else tuple((e, False) for e, _ in self.edges[giver])
                before = _before(step.freed_by, place, giver, before)
                first_s = step.fetch_s / step.pieces
                fetch = last = self._add(step.fetch, False, first_s, 0.0, before, shared, once=True)
                if step.pieces > 1:
                    rest_s = step.fetch_s - first_s
                    last = self._add(step.fetch, False, rest_s, 0.0, ((fetch, False),), shared, once=True)
                needed = (*waits, (fetch, False))
            at = self._add(step.resource, step.own, step.occupancy_s, step.tail_s, needed, shared)
            self.names[-1] = (step.resource, step.name)
            self.shown.append(at)
            if step.fetch and step.pieces > 1:  # no time of its own: the last piece is worked on when it is there
                piece_s = step.occupancy_s / step.pieces + step.tail_s
                end = self._add(step.fetch, False, 0.0, piece_s, ((last, False),), shared, once=True)
                at = self._add(step.resource, step.own, 0.0, 0.0, ((at, False), (end, False)), shared)
            place.append(at)
        self.output = place[layer.output % len(place)]
        self.structure = (tuple(self.resource), tuple(self.once), tuple(self.own), tuple(self.edges), self.output)

    def _add(
        self,
        resource: str,
        own: bool,
        time_s: float,
        tail_s: float,
        edges: tuple[tuple[int, bool], ...],
        shared: dict[str, int],
        once: bool = False,
    ) -> int:
        self.times.append(time_s)
        self.tails.append(tail_s)
        self.once.append(once)
        self.own.append(own)
        self.resource.append(-1 if own else shared.setdefault(resource, len(shared)))
        self.edges.append(edges)
        self.names.append((resource, ""))
        return len(self.times) - 1

    def levels(self, weight: int, chunks: int, heavy: Sequence[bool]) -> list[int]:
        """Virtual time of each step's first chunk after the layer's start."""
        levels: list[int] = []
        for edges in self.edges:
            level = 0
            for source, whole in edges:
                given = levels[source] + (weight if heavy[source] else 1) if source >= 0 else 0
                level = max(level, given + (weight * (chunks - 1) if whole else 0))
            levels.append(level)
        return levels


def _before(
    freed_by: int | None, place: list[int], giver: int, before: tuple[tuple[int, bool], ...]
) -> tuple[tuple[int, bool], ...]:
    """What a fetch waits for: the end of the step that frees its room, where that comes before what is usual."""
    if freed_by is None:
        return before
    if freed_by < 0:
        return ((PREVIOUS_INPUT if freed_by == LAYER_START else BEFORE_INPUT, False),)
    return ((place[freed_by], True),) if place[freed_by] < giver else before


_orders: OrderedDict[object, Events] = OrderedDict()


def _events(flat: _Flat, micro_batches: tuple[int, ...], weight: int, spacing: int) -> Events:
    """The events of a structure in one service order; remembered, since it depends on no duration."""
    key = (flat.key, micro_batches, weight, spacing)
    found = _orders.get(key)
    if found is not None:
        _orders.move_to_end(key)
        return found
    chunks, levels, leave = flat.chunks, [], []
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
    step_at = np.cumsum([0, *(len(table.times) for table in flat.tables)])
    structure = Structure(
        kinds=np.array(flat.kinds, dtype=np.int64),
        start=np.array(start, dtype=np.int64),
        step_at=step_at.astype(np.int64),
        step_level=np.array(levels, dtype=np.int64),
        step_once=np.array([once for table in flat.tables for once in table.once], dtype=np.int64),
        step_shared=np.array([number for table in flat.tables for number in table.resource], dtype=np.int64),
        edge_at=np.cumsum([0, *(len(group) for group in edges)]).astype(np.int64),
        edge_source=np.array([source for source, _ in flat_edges], dtype=np.int64),
        edge_whole=np.array([whole for _, whole in flat_edges], dtype=np.int64),
        output=np.array([table.output for table in flat.tables], dtype=np.int64),
        wave_of=np.repeat(np.arange(len(micro_batches)), micro_batches).astype(np.int64),
    )
    found = order_events(structure, chunks, weight, spacing, len(flat.shared), flat.steps)
    _orders[key] = found
    if len(_orders) > _REMEMBERED:
        _orders.popitem(last=False)
    return found
