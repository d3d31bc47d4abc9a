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

from tierform.exploration.compiled_draws import below, compiled, uniform
from tierform.exploration.route_state import Floats, IntMatrix, IntVector, power16, smooth_peak

Flags = NDArray[np.bool_]
# Why a destination is grown anew: its ways are broken, or a channel would shorten them.
Marks = NDArray[np.int8]
BROKEN, SHORTER = 1, 2


class Ordered(NamedTuple):
    """n routers, m channels (source -1: not built).  Rows of (n, ...) arrays are destinations."""

    source: IntVector  # (m,)
    target: IntVector  # (m,)
    weight: Floats  # (m,) objective for a byte on the channel
    relative: Floats  # (m,) load of a byte in units of the reference's busiest channel
    order: IntVector  # (m,) channel of each rank; a route's ranks fall
    rank: IntVector  # (m,)
    chosen: IntMatrix  # (n, n) channel that a router takes towards the destination
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
    """What planar links may be."""

    links: IntMatrix  # (links, 2) the two channels of each
    wire: Floats  # (n, n) length of a link in m, infinity where none may be
    weight: Floats  # (n, n) objective for a byte on such a link
    total_m: float
    most_ports: int


class Scratch(NamedTuple):
    """Room for one pass: alive channels by rank, and what a destination's pass needs."""

    line: IntVector
    start: IntVector
    end: IntVector
    cost: Floats
    behind: IntVector
    at: IntVector
    event: IntVector
    through: Floats


def empty_ordered(routers: int, channels: int) -> Ordered:
    """A state of this size with nothing built."""
    return Ordered(
        source=np.full(channels, -1, np.int32),
        target=np.full(channels, -1, np.int32),
        weight=np.zeros(channels),
        relative=np.zeros(channels),
        order=np.arange(channels, dtype=np.int32),
        rank=np.arange(channels, dtype=np.int32),
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
    """Empty room."""
    return Scratch(
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
    """The built channels by rank; how many."""
    count = 0
    for rank in range(s.order.size):
        channel = s.order[rank]
        if s.source[channel] >= 0:
            room.line[count] = channel
            room.start[count] = s.source[channel]
            room.end[count] = s.target[channel]
            room.cost[count] = s.weight[channel]
            count += 1
    return count


@compiled
def grow(s: Ordered, room: Scratch, count: int, goal: int) -> bool:
    """The ways of all routers to a destination, and their loads; False where one has no way."""
    routers = s.far.shape[0]
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
                room.behind[s.target[chosen[router]]] -= 1
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
            loads[room.line[index]] = room.through[router]
            s.load[room.line[index]] += room.through[router]
            room.through[room.end[index]] += room.through[router]
    return True


@compiled
def settle_ways(s: Ordered) -> None:
    """Distances, loads and sums from the ways as they are chosen."""
    routers = s.far.shape[0]
    s.load_of[:] = 0.0
    for goal in range(routers):
        s.far[goal, goal] = 0.0
        s.linear_of[goal] = 0.0
        for start in range(routers):
            way, here, amount = 0.0, start, s.traffic[goal, start]
            while here != goal:
                channel = s.chosen[goal, here]
                s.load_of[goal, channel] += amount
                way += s.weight[channel]
                here = s.target[channel]
            s.far[goal, start] = way
            s.linear_of[goal] += way * amount
    sum_loads(s)


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
    """Give a channel another rank; those between move by one."""
    at = s.rank[channel]
    step = 1 if to > at else -1
    while at != to:
        s.order[at] = s.order[at + step]
        s.rank[s.order[at]] = at
        at += step
    s.order[to] = channel
    s.rank[channel] = to


@compiled
def _users(s: Ordered, channel: int, touched: Marks) -> None:
    """Mark the destinations with a way over a channel."""
    source = s.source[channel]
    for goal in range(touched.size):
        if s.chosen[goal, source] == channel:
            touched[goal] = BROKEN


@compiled
def upset(s: Ordered, channel: int, entering: IntVector, touched: Marks) -> None:
    """Mark destinations whose ways a channel's new rank breaks, or which it would shorten."""
    source, target, rank = s.source[channel], s.target[channel], s.rank[channel]
    count = 0
    for other in range(s.source.size):
        if s.source[other] >= 0 and s.target[other] == source:
            entering[count] = other
            count += 1
    for goal in range(touched.size):
        if touched[goal] != 0 or goal == source:
            continue
        used = s.chosen[goal, source] == channel
        if not used and s.far[goal, target] + s.weight[channel] >= s.far[goal, source] * (1 - 1e-12):
            continue
        fits = goal == target or s.rank[s.chosen[goal, target]] < rank
        for index in range(count):
            other = entering[index]
            if s.chosen[goal, s.source[other]] == other and s.rank[other] < rank:
                fits = False
        if fits != used:
            touched[goal] = BROKEN if used else SHORTER


@compiled
def _unbuild(s: Ordered, wires: LinkSet, budget: Budget, link: int, touched: Marks) -> None:
    go, back = budget.links[link, 0], budget.links[link, 1]
    one, other = s.source[go], s.target[go]
    _users(s, go, touched)
    _users(s, back, touched)
    wires.ports[one] -= 1
    wires.ports[other] -= 1
    wires.joined[one, other] = wires.joined[other, one] = False
    wires.length[link] = 0.0
    s.source[go] = s.source[back] = -1


@compiled
def _build(s: Ordered, wires: LinkSet, budget: Budget, link: int, one: int, other: int) -> None:
    go, back = budget.links[link, 0], budget.links[link, 1]
    wires.ports[one] += 1
    wires.ports[other] += 1
    wires.joined[one, other] = wires.joined[other, one] = True
    s.source[go] = s.target[back] = one
    s.target[go] = s.source[back] = other
    wires.length[link] = budget.wire[one, other]
    s.weight[go] = s.weight[back] = budget.weight[one, other]


@compiled
def _make_room(s: Ordered, wires: LinkSet, budget: Budget, kept: int, router: int, touched: Marks) -> bool:
    """Take away one link of a router whose ports are full."""
    pick, seen = -1, 0
    for link in range(budget.links.shape[0]):
        go = budget.links[link, 0]
        if link != kept and s.source[go] >= 0 and router in (s.source[go], s.target[go]):
            seen += 1
            if below(seen) == 0:
                pick = link
    if pick < 0:
        return False
    _unbuild(s, wires, budget, pick, touched)
    return True


@compiled
def _new_rank(s: Ordered, channel: int) -> None:
    """A rank for a new channel: right behind what follows it on the way to some destination, or any."""
    goal = below(s.far.shape[0])
    following = s.chosen[goal, s.target[channel]]
    to = below(s.order.size)
    if following >= 0 and uniform() < 0.6:
        to = s.rank[following] + (1 if s.rank[channel] > s.rank[following] else 0)
    shift(s, channel, to)


@compiled
def relink(s: Ordered, wires: LinkSet, budget: Budget, moved: IntVector, touched: Marks) -> int:
    """Put a random planar link elsewhere, or take it away; how many channels are new, or -1 where it cannot be."""
    routers = s.far.shape[0]
    link = below(budget.links.shape[0])
    go, back = budget.links[link, 0], budget.links[link, 1]
    one, other = s.source[go], s.target[go]
    if one >= 0:
        _unbuild(s, wires, budget, link, touched)
        if uniform() < 0.03:
            return 0
    new = below(routers)
    if one >= 0 and uniform() < 0.6:
        new = one if uniform() < 0.5 else other
    far, tries = below(routers), 0
    while new == far or budget.wire[new, far] == np.inf or wires.joined[new, far]:
        far = below(routers)
        tries += 1
        if tries > 40:
            return -1
    for end in (new, far):
        if wires.ports[end] >= budget.most_ports and not _make_room(s, wires, budget, link, end, touched):
            return -1
    used = budget.wire[new, far]
    for index in range(budget.links.shape[0]):
        used += wires.length[index]
    tries = 0
    while used > budget.total_m * (1 + 1e-9):
        index = below(budget.links.shape[0])
        tries += 1
        if tries > 400:
            return -1
        if wires.length[index] > 0.0:
            used -= wires.length[index]
            _unbuild(s, wires, budget, index, touched)
    _build(s, wires, budget, link, new, far)
    if uniform() < 0.9:
        _new_rank(s, go)
        _new_rank(s, back)
    moved[0], moved[1] = go, back
    return 2


@compiled
def rerank(s: Ordered, moved: IntVector) -> int:
    """Give a channel another rank: one that some destination would use if it could, or any."""
    channels = s.order.size
    channel = below(channels)
    if s.source[channel] < 0:
        return -1
    source, target, rank = s.source[channel], s.target[channel], s.rank[channel]
    to = below(channels)
    draw = uniform()
    if draw < 0.6:
        goal, wanted = 0, False
        for _ in range(8):
            goal = below(s.far.shape[0])
            wanted = goal != source and s.far[goal, target] + s.weight[channel] < s.far[goal, source] * (1 - 1e-12)
            if wanted:
                break
        if not wanted or goal == target:
            return -1
        following = s.chosen[goal, target]
        if s.rank[following] > rank:
            if uniform() < 0.5:
                to = s.rank[following]
            else:
                channel, to = following, rank
        else:
            to = rank - 1 - below(20)
    elif draw < 0.8:
        to = rank + below(41) - 20
    to = min(max(to, 0), channels - 1)
    if to == s.rank[channel]:
        return -1
    shift(s, channel, to)
    moved[0] = channel
    return 1
