"""Moves of links and of ranks on :mod:`tierform.exploration.ordered_routes`: compiled."""

from __future__ import annotations

import numpy as np

from tierform.exploration.compiled_draws import below, compiled, uniform
from tierform.exploration.ordered_routes import BROKEN, SHORTER, Budget, LinkSet, Marks, Ordered, shift
from tierform.exploration.route_state import Floats, IntVector

# A new channel takes the place of its turn model, or one right behind what follows it, or any.
NATURAL, FOLLOWS = 0.9, 0.96


@compiled
def _users(s: Ordered, channel: int, touched: Marks) -> None:
    """Mark the destinations with a way over a channel."""
    source, channels = s.source[channel], s.source.size
    for goal in range(touched.size):
        if s.chosen[goal, source] % channels == channel:
            touched[goal] = BROKEN


@compiled
def upset(s: Ordered, virtual: int, entering: IntVector, touched: Marks) -> None:
    """Mark destinations whose ways a virtual channel's new rank breaks, or which it would shorten."""
    channels = s.source.size
    channel, rank = virtual % channels, s.rank[virtual]
    source, target = s.source[channel], s.target[channel]
    count = 0
    for other in range(channels):
        if s.source[other] >= 0 and s.target[other] == source:
            entering[count] = other
            count += 1
    for goal in range(touched.size):
        if touched[goal] != 0 or goal == source:
            continue
        used = s.chosen[goal, source] == virtual
        if not used and s.far[goal, target] + s.weight[channel] >= s.far[goal, source] * (1 - 1e-12):
            continue
        fits = goal == target or s.rank[s.chosen[goal, target]] < rank
        for index in range(count):
            other = s.chosen[goal, s.source[entering[index]]]
            if other >= 0 and other % channels == entering[index] and s.rank[other] < rank:
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
    wires.length[link] = 0.0 if budget.upright[link] else budget.wire[one, other]
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
def _new_rank(s: Ordered, virtual: int, natural: Floats) -> None:
    """A rank for a new virtual channel: its turn model's, right behind what follows it on some way, or any."""
    draw, to, channels = uniform(), below(s.order.size), s.source.size
    channel, kind = virtual % channels, virtual // channels
    if draw < NATURAL:
        mine, ahead = natural[kind, s.source[channel], s.target[channel]], 0
        for other in range(channels):
            built = s.source[other] >= 0 and other != channel
            ahead += built and natural[kind, s.source[other], s.target[other]] < mine
        at = 0
        while at < s.order.size - 1 and ahead > 0:
            other = s.order[at]
            ahead -= other // channels == kind and s.source[other % channels] >= 0 and other != virtual
            at += 1
        to = at - 1 if s.rank[virtual] < at else at
    elif draw < FOLLOWS:
        following = s.chosen[below(s.far.shape[0]), s.target[channel]]
        if following >= 0:
            to = s.rank[following] + (1 if s.rank[virtual] > s.rank[following] else 0)
    shift(s, virtual, to)


@compiled
def _post(wires: LinkSet, budget: Budget) -> tuple[int, int]:
    """A random place for a pillar where none stands; -1 where every place drawn is taken."""
    for _ in range(40):
        post = below(budget.posts.shape[0])
        low, high = budget.posts[post, 0], budget.posts[post, 1]
        if not wires.joined[low, high]:
            return low, high
    return -1, -1


@compiled
def relink(s: Ordered, wires: LinkSet, budget: Budget, moved: IntVector, touched: Marks) -> int:
    """Put a random link elsewhere, or take it away; how many channels are new, or -1 where it cannot be.

    A planar link goes to any two routers of a die, and others make room where the wire would not suffice; a pillar
    goes to any place for one.  There are as many of each in `budget.links` as there may be.
    """
    routers = s.far.shape[0]
    link = below(budget.links.shape[0])
    go, back = budget.links[link, 0], budget.links[link, 1]
    one, other = s.source[go], s.target[go]
    if one >= 0:
        _unbuild(s, wires, budget, link, touched)
        if uniform() < 0.03:
            return 0
    if budget.upright[link]:
        new, far = _post(wires, budget)
    else:
        new = below(routers)
        if one >= 0 and uniform() < 0.6:
            new = one if uniform() < 0.5 else other
        far, tries = below(routers), 0
        while new == far or budget.wire[new, far] == np.inf or wires.joined[new, far]:
            far = below(routers)
            tries += 1
            if tries > 40:
                return -1
    if new < 0:
        return -1
    for end in (new, far):
        if wires.ports[end] >= budget.most_ports and not _make_room(s, wires, budget, link, end, touched):
            return -1
    used = 0.0 if budget.upright[link] else budget.wire[new, far]
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
    number = 0
    for virtual in range(0, s.order.size, s.source.size):
        for channel in (go, back):
            moved[number] = virtual + channel
            _new_rank(s, moved[number], budget.natural)
            number += 1
    return number


@compiled
def rerank(s: Ordered, moved: IntVector) -> int:
    """Give a virtual channel another rank: one that some destination would use if it could, or any."""
    virtual, channels = below(s.order.size), s.source.size
    channel = virtual % channels
    if s.source[channel] < 0:
        return -1
    source, target, rank = s.source[channel], s.target[channel], s.rank[virtual]
    to = below(s.order.size)
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
                virtual, to = following, rank
        else:
            to = rank - 1 - below(20)
    elif draw < 0.8:
        to = rank + below(41) - 20
    to = min(max(to, 0), s.order.size - 1)
    if to == s.rank[virtual]:
        return -1
    shift(s, virtual, to)
    moved[0] = virtual
    return 1
