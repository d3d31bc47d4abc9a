"""Pipeline groups of chips: where the layers are cut, and the schedule of the groups.

The layers are cut by time: consecutive parts whose slowest one is as fast as can be, forward and backward together
(binary search over the bottleneck; the parts are filled greedily).  A group is one station of a line: its layers take
as long as they would alone.  On a chip that is a pipeline itself the next micro-batch may enter when the layers' own
schedule would let it; any other runs one micro-batch after the other (Megatron-LM does not start a micro-batch while
the collectives of the one before are under way).
Micro-batches pass the stations and the links between them in order; training runs all forward passes, then all
backward passes, whose idle time equals that of one-forward-one-backward (Narayanan et al., SC 2021).

Interleaved, the layers are cut into m parts for each of p groups, and part i is in group i modulo p.  A group's parts
take turns, each for p micro-batches; the pipeline is full after p - 1 parts, so it idles an m-th as long, and every
micro-batch is sent m p - 1 times.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import fsum

from tierform.errors import fail
from tierform.simulation.schedule import StageSchedule, schedule_stage
from tierform.simulation.schedule_layers import Layer

Run = list[tuple[Layer, int]]
Bounds = tuple[int, ...]
_SETTLED = 8  # rounds after which every further one takes as long as the last


def cut_by_time(seconds: Sequence[tuple[float, int, bool]], groups: int) -> Bounds:
    """Layers (counted over all runs) at which each group ends.

    `seconds` holds, run by run, the time of one layer, how many there are, and whether it is a layer of the model
    (embedding and head are not: they stay beside their neighbours).  TierformError when there are fewer layers.
    """
    items = [(time, whole) for time, count, whole in seconds for _ in range(count)]
    layers = sum(whole for _, whole in items)
    if groups > layers:
        fail(f"{layers} layers cannot be cut into {groups} pipeline groups", key="pipeline", value=groups)
    low, high = 0.0, fsum(time for time, _ in items)
    best = _fill(items, groups, high)
    assert best is not None
    for _ in range(60):
        middle = (low + high) / 2
        found = _fill(items, groups, middle)
        if found is None:
            low = middle
        else:
            best, high = found, middle
    return best


def _fill(items: list[tuple[float, bool]], groups: int, limit: float) -> Bounds | None:
    """Groups filled from the front, none above `limit` seconds and none without a layer; None where they do not fit."""
    ends: list[int] = []
    held, layers = 0.0, 0
    left = sum(whole for _, whole in items)
    for place, (time, whole) in enumerate(items):
        # Those that follow need a layer each.
        short = whole and left <= groups - 1 - len(ends) and layers > 0
        if layers > 0 and (held + time > limit * (1 + 1e-12) or short) and len(ends) < groups - 1:
            ends.append(place)
            held, layers = 0.0, 0
        held += time
        layers += whole
        left -= whole
        if held > limit * (1 + 1e-12) and len(ends) >= groups - 1:
            return None
        if time > limit * (1 + 1e-12):
            return None
    ends.append(len(items))
    return tuple(ends) if len(ends) == groups else None


def parts_of_run(run: Run, bounds: Bounds, *, reverse: bool = False) -> list[Run]:
    """The layers of each group, first group first; `reverse` for a run that goes from the last layer to the first."""
    total = sum(count for _, count in run)
    edges = [total - end for end in reversed((0, *bounds))] if reverse else [0, *bounds]
    return [_between(run, first, last) for first, last in pairwise(edges)]


def _between(run: Run, first: int, last: int) -> Run:
    found, start = [], 0
    for layer, count in run:
        inside = min(last, start + count) - max(first, start)
        if inside > 0:
            found.append((layer, inside))
        start += count
    return found


def schedule_groups(
    waves: Sequence[Sequence[Run]],
    micro_batches: Sequence[int],
    chunks: int,
    send: tuple[float, float],
    *,
    overlap: bool = True,
) -> StageSchedule:
    """The makespan of a stage whose layers are cut into groups on chips of their own.

    `waves` holds for each wave the runs of each group, in the order in which micro-batches pass them; `send` is the
    time that a result holds the link to the next group, and its latency; `overlap` lets micro-batches overlap inside a
    group.
    """
    latency, period = _stations(waves, chunks, overlap)
    stations = len(waves[0])
    free = [0.0] * (2 * stations)
    makespan = 0.0
    for wave, number in enumerate(micro_batches):
        slowest = max(*period[wave], send[0])
        # In a line of stations equal jobs settle into the slowest one's period at once: the rest is a multiple of it.
        for index in range(min(number, 2)):
            time = 0.0
            for station in range(stations):
                begin = max(time, free[2 * station])
                free[2 * station] = begin + period[wave][station]
                time = begin + latency[wave][station]
                if station + 1 < stations:
                    begin = max(time, free[2 * station + 1])
                    free[2 * station + 1] = begin + send[0]
                    time = begin + send[0] + send[1]
            makespan = max(makespan, time)
            if index == 1 and number > 2:
                free = [value + (number - 2) * slowest for value in free]
                makespan += (number - 2) * slowest
    return StageSchedule(makespan)


def _stations(
    waves: Sequence[Sequence[Run]], chunks: int, overlap: bool
) -> tuple[list[list[float]], list[list[float]]]:
    """For each wave: how long each part takes, and after how long its next micro-batch may enter."""
    latency: list[list[float]] = []
    period: list[list[float]] = []
    for groups in waves:
        alone = [schedule_stage([run], (1,), chunks).makespan_s if run else 0.0 for run in groups]
        latency.append(alone)
        if not overlap:
            period.append(alone)
            continue
        both = [schedule_stage([run], (2,), chunks).makespan_s if run else 0.0 for run in groups]
        period.append([two - one for two, one in zip(both, alone, strict=True)])
    return latency, period


def schedule_interleaved(
    waves: Sequence[Sequence[Run]],
    micro_batches: Sequence[int],
    chunks: int,
    send: tuple[float, float],
    groups: int,
    *,
    overlap: bool = True,
) -> StageSchedule:
    """The makespan of a stage whose parts, more than groups, lie on the groups in turn.

    As :func:`schedule_groups`, with the runs of each part; micro-batches are a multiple of the groups.
    """
    latency, period = _stations(waves, chunks, overlap)
    parts, total = len(waves[0]), sum(micro_batches)
    ends = list(accumulate(micro_batches))
    free, link = [0.0] * groups, [0.0] * groups
    makespan, first, alike = 0.0, 0, 0
    while first < total:
        before, arrived = makespan, [0.0] * groups
        kinds = [bisect_right(ends, first + index) for index in range(groups)]
        for part in range(0, parts, groups):
            for index, wave in enumerate(kinds):
                for group in range(groups):
                    begin = max(arrived[index], free[group])
                    free[group] = begin + period[wave][part + group]
                    done = begin + latency[wave][part + group]
                    if part + group + 1 == parts:
                        makespan = max(makespan, done)
                        continue
                    begin = max(done, link[group])
                    link[group] = begin + send[0]
                    arrived[index] = begin + send[0] + send[1]
        first += groups
        alike = alike + 1 if kinds[0] == kinds[-1] else 0
        more = (ends[kinds[0]] - first) // groups if alike == _SETTLED else 0
        if more > 0:
            free = [value + more * (makespan - before) for value in free]
            link = [value + more * (makespan - before) for value in link]
            makespan += more * (makespan - before)
            first += more * groups
            alike = 0
    return StageSchedule(makespan)


def side_by_side(parts: Sequence[Run], chunks: int) -> StageSchedule:
    """The schedule of a stage whose groups work at the same time and wait for nobody (the update)."""
    return max((schedule_stage([part], (1,), chunks) for part in parts if part), key=lambda made: made.makespan_s)
