"""Routes that cannot deadlock, changed one table entry at a time: compiled.

The state is a routing table (the channel that each router takes towards each destination), the bytes that pass through
each entry, the load of each channel, and the graph of which channel waits for which.  Changing one entry moves bytes
from one way to another and adds a few dependencies; a topological order of the channels is repaired around each new
one (Pearce and Kelly, J. Exp. Algorithmics 11, 2006), and a change that would close a cycle is refused.  So every
state on the way is free of deadlock (Dally and Seitz 1987), and a step costs what it touches.

The objective is a weighted sum of latency and energy, linear in the loads (`weight` of a channel), and of a smooth
peak: the 16th-power mean of the loads, which falls wherever a busy channel is relieved.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tierform.exploration.compiled_draws import compiled

MAX_PORTS = 8
# What one more pair of channels that wait for each other costs in the objective: entries without traffic keep to turns
# that others use, and leave room for those with traffic.
TURN = 3e-5
IntVector = NDArray[np.int32]
IntMatrix = NDArray[np.int32]
Floats = NDArray[np.float64]


class RouteState(NamedTuple):
    """All arrays of a state: n routers, m channels (a channel without ends has source -1)."""

    source: IntVector  # (m,) router that drives the channel, -1 where the channel is not built
    target: IntVector  # (m,)
    weight: Floats  # (m,) objective for a byte on the channel: latency and energy
    relative: Floats  # (m,) load of a byte in units of the reference's busiest channel
    outs: IntMatrix  # (n, MAX_PORTS) channels that leave a router, -1 where the port is free
    ins: IntMatrix  # (n, MAX_PORTS)
    out_port: IntVector  # (m,) the channel's port at its source
    waits: IntMatrix  # (m, MAX_PORTS) entries that go from the channel to that port of its target
    order: IntVector  # (m,) place of each channel in a topological order of the waiting
    next_channel: IntMatrix  # (n, n) channel from a router to a destination, -1 at the destination
    passing: Floats  # (n, n) bytes that pass a router on the way to a destination
    distance: Floats  # (n, n) weight of the way from a router to a destination
    load: Floats  # (m,) bytes on a channel
    totals: Floats  # (2,) linear objective, sum of the 16th powers of the relative loads


def empty_state(routers: int, channels: int) -> RouteState:
    """A state of this size with nothing built."""
    return RouteState(
        source=np.full(channels, -1, np.int32),
        target=np.full(channels, -1, np.int32),
        weight=np.zeros(channels),
        relative=np.zeros(channels),
        outs=np.full((routers, MAX_PORTS), -1, np.int32),
        ins=np.full((routers, MAX_PORTS), -1, np.int32),
        out_port=np.full(channels, -1, np.int32),
        waits=np.zeros((channels, MAX_PORTS), np.int32),
        order=np.arange(channels, dtype=np.int32),
        next_channel=np.full((routers, routers), -1, np.int32),
        passing=np.zeros((routers, routers)),
        distance=np.zeros((routers, routers)),
        load=np.zeros(channels),
        totals=np.zeros(2),
    )


@compiled
def power16(x: float) -> float:
    """The 16th power."""
    y = x * x
    y *= y
    y *= y
    return y * y


@compiled
def smooth_peak(powers: float) -> float:
    """The 16th root of a sum of 16th powers."""
    return float(np.sqrt(np.sqrt(np.sqrt(np.sqrt(max(powers, 0.0))))))


@compiled
def copy_state(s: RouteState, to: RouteState) -> None:
    """Copy every array of one state into another."""
    to.source[:] = s.source
    to.target[:] = s.target
    to.weight[:] = s.weight
    to.relative[:] = s.relative
    to.outs[:] = s.outs
    to.ins[:] = s.ins
    to.out_port[:] = s.out_port
    to.waits[:] = s.waits
    to.order[:] = s.order
    to.next_channel[:] = s.next_channel
    to.passing[:] = s.passing
    to.distance[:] = s.distance
    to.load[:] = s.load
    to.totals[:] = s.totals


@compiled
def build_channel(s: RouteState, channel: int, source: int, target: int) -> None:
    """Put a channel between two routers, at their first free ports."""
    s.source[channel] = source
    s.target[channel] = target
    port = 0
    while s.outs[source, port] >= 0:
        port += 1
    s.outs[source, port] = channel
    s.out_port[channel] = port
    s.waits[channel, :] = 0
    port = 0
    while s.ins[target, port] >= 0:
        port += 1
    s.ins[target, port] = channel


@compiled
def precede(s: RouteState, first: int, second: int) -> bool:
    """Repair the order so that `first` stands before `second`; False where that would close a cycle."""
    high, low = s.order[first], s.order[second]
    if high < low:
        return True
    channels = s.order.size
    ahead = np.empty(channels, np.int32)
    seen = np.zeros(channels, np.bool_)
    ahead[0] = second
    seen[second] = True
    count, at = 1, 0
    while at < count:
        here = ahead[at]
        at += 1
        router = s.target[here]
        for port in range(MAX_PORTS):
            if s.waits[here, port] > 0:
                there = s.outs[router, port]
                if there == first:
                    return False
                if s.order[there] < high and not seen[there]:
                    seen[there] = True
                    ahead[count] = there
                    count += 1
    behind = np.empty(channels, np.int32)
    behind[0] = first
    seen[first] = True
    before, at = 1, 0
    while at < before:
        here = behind[at]
        at += 1
        router, port = s.source[here], s.out_port[here]
        for side in range(MAX_PORTS):
            there = s.ins[router, side]
            if there >= 0 and s.waits[there, port] > 0 and s.order[there] > low and not seen[there]:
                seen[there] = True
                behind[before] = there
                before += 1
    # Those behind come first, each group in its old order, in the places that both held.
    total = count + before
    places = np.empty(total, np.int32)
    moved = np.empty(total, np.int32)
    keys = np.empty(before, np.int32)
    for index in range(before):
        keys[index] = s.order[behind[index]]
        places[index] = keys[index]
    ranks = np.argsort(keys)
    for index in range(before):
        moved[index] = behind[ranks[index]]
    later = np.empty(count, np.int32)
    for index in range(count):
        later[index] = s.order[ahead[index]]
        places[before + index] = later[index]
    ranks = np.argsort(later)
    for index in range(count):
        moved[before + index] = ahead[ranks[index]]
    places.sort()
    for index in range(total):
        s.order[moved[index]] = places[index]
    return True


@compiled
def carry(s: RouteState, router: int, destination: int, amount: float) -> None:
    """Add bytes on the way from a router to a destination, without the router's own entry of `passing`."""
    here = router
    while here != destination:
        channel = s.next_channel[here, destination]
        s.totals[1] -= power16(s.load[channel] * s.relative[channel])
        s.load[channel] += amount
        s.totals[1] += power16(s.load[channel] * s.relative[channel])
        here = s.target[channel]
        s.passing[here, destination] += amount


@compiled
def shift_distance(s: RouteState, router: int, destination: int, change: float) -> None:
    """Change the distance of a router and of all routers whose way leads through it."""
    stack = np.empty(s.outs.shape[0], np.int32)
    stack[0] = router
    depth = 1
    while depth > 0:
        depth -= 1
        here = stack[depth]
        s.distance[here, destination] += change
        for port in range(MAX_PORTS):
            channel = s.ins[here, port]
            if channel >= 0 and s.next_channel[s.source[channel], destination] == channel:
                stack[depth] = s.source[channel]
                depth += 1


@compiled
def wait_for(s: RouteState, first: int, second: int) -> bool:
    """Count one more entry that goes from one channel to the next; False where that would close a cycle."""
    port = s.out_port[second]
    if s.waits[first, port] == 0 and not precede(s, first, second):
        return False
    s.waits[first, port] += 1
    return True


@compiled
def _dependencies(s: RouteState, router: int, destination: int, old: int, new: int) -> bool:
    """Move the waiting of an entry from its old channel to the new one, or leave all as it was."""
    done = 0
    entering = np.empty(MAX_PORTS, np.int32)
    fits = True
    for port in range(MAX_PORTS):
        channel = s.ins[router, port]
        if channel >= 0 and s.next_channel[s.source[channel], destination] == channel:
            s.waits[channel, s.out_port[old]] -= 1
            entering[done] = channel
            done += 1
    after_old, after_new = s.target[old], s.target[new]
    if after_old != destination:
        s.waits[old, s.out_port[s.next_channel[after_old, destination]]] -= 1
    added = 0
    for index in range(done):
        if not wait_for(s, entering[index], new):
            fits = False
            break
        added += 1
    if fits and after_new != destination:
        fits = wait_for(s, new, s.next_channel[after_new, destination])
    if fits:
        return True
    for index in range(added):
        s.waits[entering[index], s.out_port[new]] -= 1
    # What was taken away stood before: putting it back cannot close a cycle, but the order may have moved.
    for index in range(done):
        wait_for(s, entering[index], old)
    if after_old != destination:
        wait_for(s, old, s.next_channel[after_old, destination])
    return False


@compiled
def _turns(s: RouteState, router: int, destination: int, old: int, new: int) -> int:
    """How many more pairs of channels wait for each other when an entry takes the new channel."""
    more = 0
    for port in range(MAX_PORTS):
        channel = s.ins[router, port]
        if channel >= 0 and s.next_channel[s.source[channel], destination] == channel:
            more -= s.waits[channel, s.out_port[old]] == 1
            more += s.waits[channel, s.out_port[new]] == 0
    after = s.target[old]
    if after != destination:
        more -= s.waits[old, s.out_port[s.next_channel[after, destination]]] == 1
    after = s.target[new]
    if after != destination:
        more += s.waits[new, s.out_port[s.next_channel[after, destination]]] == 0
    return more


@compiled
def reroute(s: RouteState, router: int, destination: int, new: int, peak_weight: float, most: float) -> float:
    """Send what passes a router towards a destination over another channel; the change of the objective.

    A change above `most` and what cannot be made at all (a loop, a cycle of waiting) gives infinity, and the state is
    as before.
    """
    old = s.next_channel[router, destination]
    here = s.target[new]
    while here != destination:
        if here == router:
            return np.inf
        here = s.target[s.next_channel[here, destination]]
    bytes_here = s.passing[router, destination]
    way = s.distance[s.target[new], destination] + s.weight[new]
    change = way - s.distance[router, destination]
    linear = bytes_here * change
    before = s.totals[1]
    turns = _turns(s, router, destination, old, new)
    linear += TURN * turns
    if bytes_here != 0.0:
        if linear - peak_weight * smooth_peak(before) > most:
            return np.inf
        carry(s, router, destination, -bytes_here)
        s.next_channel[router, destination] = new
        carry(s, router, destination, bytes_here)
        s.next_channel[router, destination] = old
    gain = linear + peak_weight * (smooth_peak(s.totals[1]) - smooth_peak(before))
    if gain <= most and _dependencies(s, router, destination, old, new):
        s.next_channel[router, destination] = new
        s.totals[0] += linear
        shift_distance(s, router, destination, change)
        return float(gain)
    if bytes_here != 0.0:
        s.next_channel[router, destination] = new
        carry(s, router, destination, -bytes_here)
        s.next_channel[router, destination] = old
        carry(s, router, destination, bytes_here)
        s.totals[1] = before
    return np.inf


@compiled
def settle(s: RouteState, traffic: Floats) -> None:
    """Loads, passing bytes, distances and totals from the table alone; `traffic` is (routers, routers) bytes."""
    routers = traffic.shape[0]
    s.load[:] = 0.0
    s.passing[:] = 0.0
    s.totals[:] = 0.0
    for destination in range(routers):
        for router in range(routers):
            if router == destination:
                s.distance[router, destination] = 0.0
                continue
            amount = traffic[router, destination]
            way, here = 0.0, router
            s.passing[router, destination] += amount
            while here != destination:
                channel = s.next_channel[here, destination]
                s.load[channel] += amount
                way += s.weight[channel]
                here = s.target[channel]
                s.passing[here, destination] += amount
            s.distance[router, destination] = way
    for channel in range(s.load.size):
        s.totals[0] += s.load[channel] * s.weight[channel]
        s.totals[1] += power16(s.load[channel] * s.relative[channel])


@compiled
def order_channels(s: RouteState) -> bool:
    """Count the waiting of the whole table and sort the channels; False where it has a cycle."""
    routers, channels = s.outs.shape[0], s.order.size
    s.waits[:] = 0
    for destination in range(routers):
        for router in range(routers):
            channel = s.next_channel[router, destination]
            if channel >= 0 and s.target[channel] != destination:
                following = s.next_channel[s.target[channel], destination]
                s.waits[channel, s.out_port[following]] += 1
    entering = np.zeros(channels, np.int32)
    for channel in range(channels):
        for port in range(MAX_PORTS):
            if s.waits[channel, port] > 0:
                entering[s.outs[s.target[channel], port]] += 1
    ready = np.empty(channels, np.int32)
    count, at = 0, 0
    for channel in range(channels):
        if entering[channel] == 0:
            ready[count] = channel
            count += 1
    while at < count:
        here = ready[at]
        s.order[here] = at
        at += 1
        for port in range(MAX_PORTS):
            if s.waits[here, port] > 0:
                there = s.outs[s.target[here], port]
                entering[there] -= 1
                if entering[there] == 0:
                    ready[count] = there
                    count += 1
    return count == channels
