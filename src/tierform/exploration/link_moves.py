"""Annealing of links, routes and places together: compiled.

Three moves, each from one state without deadlock to another: an entry of the routing table takes another channel; a
planar link is put between other routers (what used it finds another way, what it shortens uses it) within the budget
of wire and ports; two tiles of one kind change places.  The state is :class:`~tierform.exploration.route_state.
RouteState`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tierform.exploration.compiled_draws import below, compiled, start_draws, uniform
from tierform.exploration.route_state import (
    MAX_PORTS,
    Floats,
    IntMatrix,
    IntVector,
    RouteState,
    build_channel,
    carry,
    copy_state,
    power16,
    reroute,
    smooth_peak,
    take_channel,
)


class LinkRules(NamedTuple):
    """What links may be: (routers, routers) tables, and the channels of each planar link."""

    pairs: IntMatrix  # (links, 2) the two channels of each planar link
    wire: Floats  # (routers, routers) length of a link in m, or infinity where none may be
    weight: Floats  # (routers, routers) objective for a byte on such a link
    budget_m: float  # wire of all planar links together
    most_ports: int  # channels that leave a router, without its own node


class Annealing(NamedTuple):
    """How long and how warm; `peak_weight` is that of the smooth peak in the objective."""

    rounds: int
    routes_a_round: int
    place_share: float
    link_share: float
    warm: float
    cold: float
    peak_weight: float
    seed: int


@compiled
def objective(s: RouteState, peak_weight: float) -> float:
    """Latency and energy, and the smooth peak."""
    return float(s.totals[0] + peak_weight * smooth_peak(s.totals[1]))


@compiled
def _release(s: RouteState, channel: int, peak_weight: float) -> bool:
    """Find another way for every entry that uses a channel; False where one has none."""
    router, routers = s.source[channel], s.outs.shape[0]
    for destination in range(routers):
        if s.next_channel[router, destination] != channel:
            continue
        tried = np.zeros(MAX_PORTS, np.bool_)
        done = False
        while not done:
            best, port_of_best = np.inf, -1
            for port in range(MAX_PORTS):
                other = s.outs[router, port]
                if other < 0 or other == channel or tried[port]:
                    continue
                way = s.distance[s.target[other], destination] + s.weight[other]
                if way < best:
                    best, port_of_best = way, port
            if port_of_best < 0:
                return False
            tried[port_of_best] = True
            other = s.outs[router, port_of_best]
            done = reroute(s, router, destination, other, peak_weight, 0.0, True) < np.inf
    return True


@compiled
def _welcome(s: RouteState, channel: int, peak_weight: float) -> None:
    """Use a new channel wherever that shortens a way and improves the objective, spreading to the routers before it."""
    routers = s.outs.shape[0]
    queue = np.empty(4 * routers, np.int32)
    for destination in range(routers):
        start = s.source[channel]
        if start == destination:
            continue
        way = s.distance[s.target[channel], destination] + s.weight[channel]
        if way >= s.distance[start, destination] * (1 - 1e-12):
            continue
        if reroute(s, start, destination, channel, peak_weight, 0.0, False) == np.inf:
            continue
        queue[0] = start
        at, count = 0, 1
        while at < count:
            here = queue[at]
            at += 1
            for port in range(MAX_PORTS):
                entering = s.ins[here, port]
                if entering < 0:
                    continue
                before = s.source[entering]
                if before == destination or s.next_channel[before, destination] == entering:
                    continue
                way = s.distance[here, destination] + s.weight[entering]
                if way >= s.distance[before, destination] * (1 - 1e-12) or count == queue.size:
                    continue
                if reroute(s, before, destination, entering, peak_weight, 0.0, False) < np.inf:
                    queue[count] = before
                    count += 1


@compiled
def swap_tiles(s: RouteState, traffic: Floats, at: IntVector, one: int, other: int) -> None:
    """Two tiles change places: the bytes of both move with them.  `traffic` is (tiles, tiles)."""
    here, there = at[one], at[other]
    tiles = traffic.shape[0]
    linear = 0.0
    for third in range(tiles):
        if third in (one, other):
            continue
        place = at[third]
        for way in range(2):
            if way == 0:
                more = traffic[other, third] - traffic[one, third]
                near, far, near2, far2 = here, place, there, place
            else:
                more = traffic[third, other] - traffic[third, one]
                near, far, near2, far2 = place, here, place, there
            if more != 0.0:
                s.passing[near, far] += more
                carry(s, near, far, more)
                s.passing[near2, far2] -= more
                carry(s, near2, far2, -more)
                linear += more * (s.distance[near, far] - s.distance[near2, far2])
    more = traffic[other, one] - traffic[one, other]
    if more != 0.0:
        s.passing[here, there] += more
        carry(s, here, there, more)
        s.passing[there, here] -= more
        carry(s, there, here, -more)
        linear += more * (s.distance[here, there] - s.distance[there, here])
    s.totals[0] += linear
    at[one], at[other] = there, here


@compiled
def _recount(s: RouteState) -> None:
    """The sums again, free of what rounding left."""
    s.totals[:] = 0.0
    for channel in range(s.load.size):
        s.totals[0] += s.load[channel] * s.weight[channel]
        s.totals[1] += power16(s.load[channel] * s.relative[channel])


@compiled
def _relink(
    s: RouteState, rules: LinkRules, length: Floats, ports: IntVector, joined: NDArray[np.bool_], peak_weight: float
) -> bool:
    """Put a random planar link elsewhere; False where the draw is not allowed (the state may be half changed)."""
    routers = s.outs.shape[0]
    link = below(rules.pairs.shape[0])
    go, back = rules.pairs[link, 0], rules.pairs[link, 1]
    one, other = s.source[go], s.target[go]
    new_one, new_other = -1, -1
    if one < 0 or uniform() > 0.1:
        new_one = one if uniform() < 0.5 else other
        if one < 0 or uniform() < 0.4:
            new_one = below(routers)
        new_other = below(routers)
        if new_one == new_other or joined[new_one, new_other]:
            return False
        used = rules.wire[new_one, new_other] - length[link]
        for index in range(length.size):
            used += length[index]
        if used > rules.budget_m * (1 + 1e-9):
            return False
        for end in (new_one, new_other):
            freed = 1 if end in (one, other) else 0
            if ports[end] - freed >= rules.most_ports:
                return False
    if one >= 0:
        for channel in (go, back):
            if not _release(s, channel, peak_weight):
                return False
        take_channel(s, go)
        take_channel(s, back)
        joined[one, other] = joined[other, one] = False
        ports[one] -= 1
        ports[other] -= 1
        length[link] = 0.0
    if new_one >= 0:
        joined[new_one, new_other] = joined[new_other, new_one] = True
        ports[new_one] += 1
        ports[new_other] += 1
        length[link] = rules.wire[new_one, new_other]
        s.weight[go] = s.weight[back] = rules.weight[new_one, new_other]
        build_channel(s, go, new_one, new_other)
        build_channel(s, back, new_other, new_one)
        _welcome(s, go, peak_weight)
        _welcome(s, back, peak_weight)
    return True


@compiled
def anneal_links(
    s: RouteState,
    kept: RouteState,
    best: RouteState,
    rules: LinkRules,
    how: Annealing,
    traffic: Floats,
    group: IntVector,
    at: IntVector,
    best_at: IntVector,
) -> float:
    """Anneal from the state `s`; the best state and places are left in `best` and `best_at`, its objective returned.

    `kept` is room for one more state.  `traffic` is (tiles, tiles), `at` the router of each tile.
    """
    start_draws(how.seed)
    routers, tiles, links = s.outs.shape[0], traffic.shape[0], rules.pairs.shape[0]
    peak_weight = how.peak_weight
    length = np.zeros(links)
    joined = np.zeros((routers, routers), np.bool_)
    ports = np.zeros(routers, np.int32)
    for channel in range(s.source.size):
        if s.source[channel] >= 0:
            joined[s.source[channel], s.target[channel]] = True
            ports[s.source[channel]] += 1
    for link in range(links):
        if s.source[rules.pairs[link, 0]] >= 0:
            length[link] = rules.wire[s.source[rules.pairs[link, 0]], s.target[rules.pairs[link, 0]]]
    kept_length, kept_joined, kept_ports = length.copy(), joined.copy(), ports.copy()
    now = objective(s, peak_weight)
    best_value = now
    copy_state(s, best)
    best_at[:] = at
    for step in range(how.rounds):
        heat = how.warm * (how.cold / how.warm) ** (step / how.rounds)
        for _ in range(how.routes_a_round):
            router, destination = below(routers), below(routers)
            if router == destination:
                continue
            channel = s.outs[router, below(MAX_PORTS)]
            if channel < 0 or channel == s.next_channel[router, destination]:
                continue
            change = reroute(s, router, destination, channel, peak_weight, -heat * np.log(uniform()), False)
            if change < np.inf:
                now += change
        draw = uniform()
        if draw < how.place_share:
            one, other = below(tiles), below(tiles)
            if one != other and group[one] == group[other]:
                swap_tiles(s, traffic, at, one, other)
                after = objective(s, peak_weight)
                if after - now <= -heat * np.log(uniform()):
                    now = after
                else:
                    swap_tiles(s, traffic, at, one, other)
        elif draw < how.place_share + how.link_share and links > 0:
            copy_state(s, kept)
            kept_length[:], kept_joined[:], kept_ports[:] = length, joined, ports
            made = _relink(s, rules, length, ports, joined, peak_weight)
            after = objective(s, peak_weight)
            if made and after - now <= -heat * np.log(uniform()):
                now = after
            else:
                copy_state(kept, s)
                length[:], joined[:], ports[:] = kept_length, kept_joined, kept_ports
        if step % 64 == 0:
            _recount(s)
            now = objective(s, peak_weight)
        if now < best_value - 1e-12:
            best_value = now
            copy_state(s, best)
            best_at[:] = at
    return best_value
