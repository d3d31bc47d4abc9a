"""When everything happens: list scheduling of layers, micro-batches and token chunks on resources.

A stage is a run of layers; each layer is a list of steps in a valid order.  Micro-batches follow each other through the
layers as a wave: at tick t, layer l works on micro-batch t - l.  In that order every chunk of a step is put into the
first gap of its resource that is long enough, so the schedule needs no look-ahead and cannot deadlock.  A step that
works token by token starts when its first chunk of tokens is there.  A resource of a single layer (crossbars with its
weights) serves the C chunks of a step one after the other, as one vector:

    finish[c] = max(ready[c], finish[c - 1]) + occupancy / C.

Once a tick repeats the one before, shifted in time, the run of equal ticks is skipped: the state is moved on by whole
periods, which gives the same times as going through them.  Stages follow each other with a barrier.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
BLOCK_INPUT = -1
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Edge:
    """What a step waits for: the step `source` of its layer (or BLOCK_INPUT).

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
class Step:
    """One operator of a layer on a resource.

    `own` gives every layer a resource of its own (weights in its own crossbars).  `occupancy_s` is for all chunks,
    `tail_s` what the result needs beyond that.  `fetch_s` of the resource `fetch` (memory) is spent first, prefetched
    from the moment at which the step before it starts.
    """

    name: str
    resource: str
    occupancy_s: float
    tail_s: float = 0.0
    own: bool = False
    after: tuple[Edge, ...] = (Edge(BLOCK_INPUT),)
    fetch: str = ""
    fetch_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Layer:
    """The steps of one layer; `output` is the step whose result the next layer takes."""

    name: str
    steps: tuple[Step, ...]
    output: int = -1


@dataclass(frozen=True, slots=True)
class Slice:
    """One bar of the timeline; `repeats` > 1 stands for that many equal ticks that were skipped."""

    resource: str
    name: str
    layer: int
    micro_batch: int
    start_s: float
    end_s: float
    repeats: int = 1


@dataclass(frozen=True)
class StageSchedule:
    """The length of one pass and, if asked for, its timeline."""

    makespan_s: float
    slices: list[Slice] = field(default_factory=list)
    ticks_run: int = 0


class _Calendar:
    """The busy intervals of a shared resource, in order, touching ones merged."""

    __slots__ = ("ends", "starts")

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []

    def reserve(self, ready: float, length: float) -> float:
        """Take the first gap of `length` that begins at `ready` or later; the time at which it ends.

        A gap that is too short by rounding alone is long enough.
        """
        starts, ends = self.starts, self.ends
        slack = ROUNDING * length
        index = bisect_right(ends, ready + slack)
        begin = ready
        while index < len(starts) and starts[index] < begin + length - slack:
            begin = max(begin, ends[index])
            index += 1
        end = begin + length
        joins_left = index > 0 and begin - ends[index - 1] <= slack
        joins_right = index < len(starts) and starts[index] - end <= slack
        if joins_left and joins_right:
            ends[index - 1] = ends[index]
            del starts[index], ends[index]
        elif joins_left:
            ends[index - 1] = end
        elif joins_right:
            starts[index] = begin
        else:
            starts.insert(index, begin)
            ends.insert(index, end)
        return end

    def forget(self, before: float) -> None:
        """Drop intervals that end before a time that no later request precedes."""
        index = bisect_right(self.ends, before)
        if index:
            del self.starts[:index], self.ends[:index]


class _Run:
    """The state of a stage while it is scheduled."""

    def __init__(self, micro_batches: int, chunks: int, record: bool) -> None:
        self.chunks = chunks
        self.ramp = np.arange(chunks, dtype=np.float64)
        self.calendars: dict[str, _Calendar] = {}
        self.own_free: dict[tuple[int, str], float] = {}
        self.out: list[Times] = [np.zeros(chunks) for _ in range(micro_batches)]
        self.end = 0.0
        self.slices: list[Slice] | None = [] if record else None

    def share(self, name: str, ready: Times, occupancy_s: float) -> Times:
        """Finish times of the chunks on a resource that all layers share."""
        if occupancy_s <= 0.0:
            return ready
        calendar = self.calendars.get(name)
        if calendar is None:
            calendar = self.calendars[name] = _Calendar()
        each = occupancy_s / self.chunks
        first = float(ready[0])
        if self.chunks > 1 and float(ready[-1]) == first:  # all there at once: one block of work
            end = calendar.reserve(first, occupancy_s)
            return (end - occupancy_s) + (self.ramp + 1.0) * each
        finish = np.empty(self.chunks)
        last = 0.0
        for chunk, time in enumerate(ready.tolist()):
            last = calendar.reserve(max(time, last), each)
            finish[chunk] = last
        return finish

    def alone(self, key: tuple[int, str], ready: Times, occupancy_s: float) -> Times:
        """Finish times of the chunks on a layer's own resource, served in order."""
        free_s = self.own_free.get(key, 0.0)
        each = occupancy_s / self.chunks
        offset = self.ramp * each
        begin = ready - offset
        begin[0] = max(float(begin[0]), free_s)
        finish: Times = np.maximum.accumulate(begin) + offset + each
        self.own_free[key] = float(finish[-1])
        return finish

    def layer(self, layer: Layer, index: int, micro_batch: int) -> None:
        """Put one layer of one micro-batch on its resources."""
        entry = self.out[micro_batch]
        done: list[Times] = []
        arrived: dict[tuple[int, str], Times] = {}
        before = float(entry[0])
        for number, step in enumerate(layer.steps):
            ready: Times | None = None
            for edge in step.after:
                given = self._edge(edge, index, entry if edge.source == BLOCK_INPUT else done[edge.source], arrived)
                if edge.whole:
                    given = np.full(self.chunks, given[-1])
                ready = given if ready is None else np.maximum(ready, given)
            if ready is None:
                ready = entry
            if step.fetch:
                there = self.share(step.fetch, np.full(self.chunks, before), step.fetch_s)
                ready = np.maximum(ready, there[-1])
            if step.own:
                finish = self.alone((index, str(number)), ready, step.occupancy_s)
            else:
                finish = self.share(step.resource, ready, step.occupancy_s)
            before = float(finish[0]) - step.occupancy_s / self.chunks
            result = finish + step.tail_s if step.tail_s else finish
            done.append(result)
            self.end = max(self.end, float(result[-1]))
            if self.slices is not None:
                self.slices.append(Slice(step.resource, step.name, index, micro_batch, before, float(finish[-1])))
        if done:
            self.out[micro_batch] = done[layer.output]

    def _edge(self, edge: Edge, index: int, given: Times, arrived: dict[tuple[int, str], Times]) -> Times:
        if not edge.path:
            return given
        key = (edge.source, edge.path)
        if key not in arrived:
            if edge.own:
                finish = self.alone((index, edge.path), given, edge.transfer_s)
            else:
                finish = self.share(edge.path, given, edge.transfer_s)
            arrived[key] = finish + edge.head_s
        return arrived[key]

    def state(self, active: Sequence[tuple[int, int]]) -> tuple[float, Times]:
        """A base time and everything that decides the future, relative to it."""
        base = min(float(self.out[micro][0]) for _, micro in active)
        rank = {layer: position for position, (layer, _) in enumerate(active)}
        own = sorted((rank[layer], name, free) for (layer, name), free in self.own_free.items() if layer in rank)
        rest = [free for _, _, free in own]
        for name in sorted(self.calendars):
            calendar = self.calendars[name]
            calendar.forget(base)
            rest += calendar.starts
            rest += calendar.ends
        parts = [self.out[micro] - base for _, micro in active]
        return base, np.concatenate([*parts, np.maximum(np.array(rest) - base, 0.0)])

    def shift(self, layers: int, seconds: float) -> None:
        """Move the state on by whole periods."""
        for calendar in self.calendars.values():
            calendar.starts = [time + seconds for time in calendar.starts]
            calendar.ends = [time + seconds for time in calendar.ends]
        self.own_free = {(layer + layers, name): free + seconds for (layer, name), free in self.own_free.items()}
        self.end += seconds


def schedule_stage(
    runs: Sequence[tuple[Layer, int]],
    micro_batches: int = 1,
    chunks: int = 1,
    *,
    record: bool = False,
    exact: bool = False,
) -> StageSchedule:
    """Schedule a stage: `runs` of equal layers with their counts.  `exact` goes through every tick (for checking)."""
    total = sum(count for _, count in runs)
    run = _Run(micro_batches, chunks, record)
    kinds: list[int] = [kind for kind, (_, count) in enumerate(runs) for _ in range(count)]
    run_end = []  # last layer index of the run that a layer belongs to
    end = -1
    for _, count in runs:
        end += count
        run_end += [end] * count
    tick, ticks_run = 0, 0
    before: tuple[float, Times] | None = None
    pattern: tuple[int, ...] = ()
    while tick < total + micro_batches - 1:
        newest, oldest = min(tick, total - 1), max(0, tick - micro_batches + 1)
        active = [(layer, tick - layer) for layer in range(newest, oldest - 1, -1)]
        for layer, micro in active:
            run.layer(runs[kinds[layer]][0], layer, micro)
        ticks_run += 1
        now_pattern = tuple(kinds[layer] for layer, _ in active)
        room = 0
        if not exact and tick >= micro_batches - 1 and len(set(now_pattern)) == 1 and newest == tick:
            room = run_end[newest] - newest  # ticks ahead in which the same layers do the same
            state = run.state(active)
            if before is not None and pattern == now_pattern and len(state[1]) == len(before[1]) and room > 0:
                period = state[0] - before[0]
                if period > 0 and float(np.abs(state[1] - before[1]).max()) <= 1e-9 * period:
                    _skip(run, room, period, active)
                    tick += room
                    before = None
                    tick += 1
                    continue
            before, pattern = state, now_pattern
        else:
            before = None
        if oldest > 0 and active:
            gone = [key for key in run.own_free if key[0] < oldest]
            for key in gone:
                del run.own_free[key]
        tick += 1
    return StageSchedule(run.end, run.slices or [], ticks_run)


def _skip(run: _Run, ticks: int, period_s: float, active: Sequence[tuple[int, int]]) -> None:
    if run.slices is not None:
        newest = active[0][0]
        shown = [item for item in run.slices if item.layer == newest and item.micro_batch == active[0][1]]
        run.slices += [
            Slice(
                s.resource,
                f"{s.name} (x{ticks})",
                s.layer + 1,
                s.micro_batch,
                s.start_s + period_s,
                s.end_s + ticks * period_s,
                ticks,
            )
            for s in shown
        ]
    run.shift(ticks, ticks * period_s)
    for _, micro in active:
        run.out[micro] = run.out[micro] + ticks * period_s
