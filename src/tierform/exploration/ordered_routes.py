"""Links, routes and places from an order of the channels: compiled.

Every route takes channels of falling rank, so no set of routes can deadlock (Dally and Seitz 1987), whatever links
there are.  For one order the ways to a destination are found in one pass over the channels, from the last ones on: a
router takes a channel where that is shorter and nobody waits behind it yet.  A move (a link put elsewhere, a rank
changed, two tiles exchanged) touches only destinations whose ways it breaks or shortens; the others stay as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tierform.exploration.compiled_draws import compiled
from tierform.exploration.route_state import Floats, IntMatrix, IntVector, power16, smooth_peak

Flags = NDArray[np.bool_]
# Why a destination is grown anew: its ways are broken, or a channel would shorten them.
Marks = NDArray[np.int8]
BROKEN, SHORTER = 1, 2


class Ordered(NamedTuple):
    """n routers, m channels (source -1: not built), v virtual ones: number c of class k is c + k m.

    Rows of (n, ...) arrays are destinations.
    """

    source: IntVector  # (m,)
    target: IntVector  # (m,)
    weight: Floats  # (m,) objective for a byte on the channel
    relative: Floats  # (m,) load of a byte in units of the reference's busiest channel
    order: IntVector  # (v,) virtual channel of each rank; a route's ranks fall
    rank: IntVector  # (v,)
    chosen: IntMatrix  # (n, n) virtual channel that a router takes towards the destination
    far: Floats  # (n, n) weight of a router's way to the destination
    traffic: Floats  # (n, n) bytes from a router to the destination
    load_of: Floats  # (n, m) bytes towards the destination on each channel
    load: Floats  # (m,)
    linear_of: Floats  # (n,) bytes times weight of their ways
    tile: IntVector  # (n,) the tile at each router


class LinkSet(NamedTuple):
    """The links as they are: length of each, ports of each router, which routers are joined."""

    length: Floats
    ports: IntVector
    joined: Flags


class Budget(NamedTuple):
    """What links may be: planar ones, and vertical ones where they are searched."""

    links: IntMatrix  # (links, 2) the two channels of each
    upright: Flags  # (links,) whether it is a pillar
    posts: IntMatrix  # (places, 2) the routers between which a pillar may stand
    wire: Floats  # (n, n) length of a planar link in m, infinity where none may be
    weight: Floats  # (n, n) objective for a byte on such a link
    total_m: float
    most_ports: int
    natural: Floats  # (classes, n, n) place of a channel in the order of a turn model: where a new one begins


class Scratch(NamedTuple):
    """Room for one pass: alive virtual channels by rank, and what a destination's pass needs."""

    line: IntVector
    channel: IntVector
    start: IntVector
    end: IntVector
    cost: Floats
    behind: IntVector
    at: IntVector
    event: IntVector
    through: Floats


def empty_ordered(routers: int, channels: int, classes: int) -> Ordered:
    """A state of this size with nothing built."""
    return Ordered(
        source=np.full(channels, -1, np.int32),
        target=np.full(channels, -1, np.int32),
        weight=np.zeros(channels),
        relative=np.zeros(channels),
        order=np.arange(channels * classes, dtype=np.int32),
        rank=np.arange(channels * classes, dtype=np.int32),
        chosen=np.full((routers, routers), -1, np.int32),
        far=np.zeros((routers, routers)),
        traffic=np.zeros((routers, routers)),
        load_of=np.zeros((routers, channels)),
        load=np.zeros(channels),
        linear_of=np.zeros(routers),
        tile=np.arange(routers, dtype=np.int32),
    )


@compiled
def scratch(routers: int, channels: int) -> Scratch:
    """Empty room; `channels` are virtual ones."""
    return Scratch(
        np.zeros(channels, np.int32),
        np.zeros(channels, np.int32),
        np.zeros(channels, np.int32),
        np.zeros(channels, np.int32),
        np.zeros(channels),
        np.zeros(routers, np.int32),
        np.zeros(routers, np.int32),
        np.zeros(channels, np.int32),
        np.zeros(routers),
    )


@compiled
def line_up(s: Ordered, room: Scratch) -> int:
    """The built virtual channels by rank; how many."""
    count, channels = 0, s.source.size
    for rank in range(s.order.size):
        channel = s.order[rank] % channels
        if s.source[channel] >= 0:
            room.line[count] = s.order[rank]
            room.channel[count] = channel
            room.start[count] = s.source[channel]
            room.end[count] = s.target[channel]
            room.cost[count] = s.weight[channel]
            count += 1
    return count


@compiled
def grow(s: Ordered, room: Scratch, count: int, goal: int) -> bool:
    """The ways of all routers to a destination, and their loads; False where one has no way."""
    routers, channels = s.far.shape[0], s.source.size
    far, chosen, traffic, loads = s.far[goal], s.chosen[goal], s.traffic[goal], s.load_of[goal]
    for router in range(routers):
        far[router] = np.inf
        chosen[router] = -1
        room.behind[router] = 0
        room.through[router] = traffic[router]
    far[goal] = 0.0
    # The destination itself takes no channel.
    room.behind[goal] = 1
    events = 0
    for index in range(count):
        router = room.start[index]
        if room.behind[router] != 0:
            continue
        way = far[room.end[index]] + room.cost[index]
        if way < far[router]:
            if chosen[router] >= 0:
                room.behind[s.target[chosen[router] % channels]] -= 1
            chosen[router] = room.line[index]
            far[router] = way
            room.behind[room.end[index]] += 1
            room.at[router] = index
            room.event[events] = index
            events += 1
    linear = 0.0
    for router in range(routers):
        if far[router] == np.inf:
            return False
        linear += far[router] * traffic[router]
    s.linear_of[goal] = linear
    for channel in range(loads.size):
        s.load[channel] -= loads[channel]
        loads[channel] = 0.0
    for event in range(events - 1, -1, -1):
        index = room.event[event]
        router = room.start[index]
        if room.at[router] == index and room.through[router] != 0.0:
            loads[room.channel[index]] = room.through[router]
            s.load[room.channel[index]] += room.through[router]
            room.through[room.end[index]] += room.through[router]
    return True


@compiled
def sum_loads(s: Ordered) -> None:
    """Loads from those of every destination, free of what rounding left."""
    s.load[:] = 0.0
    for goal in range(s.far.shape[0]):
        for channel in range(s.load.size):
            s.load[channel] += s.load_of[goal, channel]


@compiled
def powers_of(s: Ordered) -> float:
    """The sum of the 16th powers of the relative loads."""
    powers = 0.0
    for channel in range(s.load.size):
        powers += power16(s.load[channel] * s.relative[channel])
    return powers


@compiled
def value_of(s: Ordered, peak_weight: float) -> float:
    """Latency and energy, and the smooth peak."""
    powers, linear = powers_of(s), 0.0
    for goal in range(s.linear_of.size):
        linear += s.linear_of[goal]
    return float(linear + peak_weight * smooth_peak(powers))


@compiled
def shift(s: Ordered, channel: int, to: int) -> None:
    """Give a virtual channel another rank; those between move by one."""
    at = s.rank[channel]
    step = 1 if to > at else -1
    while at != to:
        s.order[at] = s.order[at + step]
        s.rank[s.order[at]] = at
        at += step
    s.order[to] = channel
    s.rank[channel] = to
