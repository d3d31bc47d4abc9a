"""Links and places for the shortest ways alone: compiled, the first half of a search of links.

Ways are the shortest of the links, whatever may wait for what: with two classes of virtual channels nearly all of them
can be taken without deadlock (:mod:`~tierform.exploration.ordered_search` finds how).  The objective is linear in the
bytes; no load of a link is looked at here.

The table of shortest ways is changed with every link: a link that goes touches only the pairs whose ways went over it
(they are settled anew from their neighbours), a link that comes only the rows that it shortens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tierform.exploration.compiled_draws import below, compiled, start_draws, uniform
from tierform.exploration.route_state import IntMatrix, IntVector

Singles = NDArray[np.float32]
Flags = NDArray[np.bool_]
FAR = np.float32(1e12)
# Ways of equal weight differ by rounding.
MORE = np.float32(1 + 1e-5)
# Where a pillar is missing, so often one is built before another planar link is.
RAISED = 0.5


class Plane(NamedTuple):
    """What may be built: (n, n) tables of planar links and pillars, beside the links that stay."""

    weight: Singles  # objective for a byte on such a link
    length: Singles  # of a planar link in m, nothing of a pillar, FAR where neither may be
    other: Singles  # weight of the links that stay, FAR where there is none
    posts: IntMatrix  # (places, 2) routers between which a pillar may stand; none where they stay
    total_m: float
    most_ports: int
    most_channels: int  # planar ones and those that stay
    most_pillars: int


class Links(NamedTuple):
    """What is built."""

    joined: Flags  # (n, n) planar links, and pillars where they do not stay
    ports: IntVector  # (n,) channels that leave a router
    tile: IntVector  # (n,) the tile at each router


class Steps(NamedTuple):
    """How long and how warm; `swaps` are tried between two moves of links."""

    rounds: int
    warm: float
    cold: float
    swaps: int
    seed: int


class Ways(NamedTuple):
    """The shortest ways of what is built, and room to change them."""

    far: Singles  # (n, n) weight of the way between two routers
    bytes: Singles  # (n, n) between two routers, half of both directions together
    next: IntMatrix  # (n, ports) routers that a link joins with this one
    cost: Singles  # (n, ports) weight of that link
    many: IntVector  # (n,) how many
    pairs: IntMatrix  # (n * n, 2) room for the pairs that a link served
    near: IntVector  # (n,) room for the routers that use a link from its one end
    beyond: IntVector  # (n,) and from the other
    row: Singles  # (n,) room for one row


@compiled
def shortest_ways(plane: Plane, links: Links, far: Singles, through: Singles) -> None:
    """The weight of the shortest way between any two routers (Floyd 1962); `through` is room for one row."""
    n = far.shape[0]
    for i in range(n):
        for j in range(n):
            far[i, j] = plane.weight[i, j] if links.joined[i, j] else plane.other[i, j]
        far[i, i] = 0.0
    for k in range(n):
        # Copied, and written without a condition, so that the compiler takes several at once.
        for j in range(n):
            through[j] = far[k, j]
        for i in range(n):
            first = far[i, k]
            if first < FAR and i != k:
                for j in range(n):
                    way, old = first + through[j], far[i, j]
                    far[i, j] = way if way < old else old


def begin_ways(plane: Plane, links: Links, traffic: Singles) -> Ways:
    """The ways of links, from nothing.

    `traffic` is (tiles, tiles) bytes, half of both directions together: the same as its transpose.
    """
    n = links.joined.shape[0]
    cost = np.where(links.joined, plane.weight, plane.other)
    np.fill_diagonal(cost, FAR)
    ports = max(int((cost < FAR).sum(axis=1).max()), plane.most_ports)
    ways = Ways(
        far=np.zeros((n, n), np.float32),
        bytes=np.ascontiguousarray(traffic[np.ix_(links.tile, links.tile)]),
        next=np.zeros((n, ports), np.int32),
        cost=np.zeros((n, ports), np.float32),
        many=np.zeros(n, np.int32),
        pairs=np.zeros((n * n, 2), np.int32),
        near=np.zeros(n, np.int32),
        beyond=np.zeros(n, np.int32),
        row=np.zeros(n, np.float32),
    )
    shortest_ways(plane, links, ways.far, ways.row)
    for i, j in np.argwhere(cost < FAR):
        _point(ways, i, j, cost[i, j])
    return ways


@compiled
def _point(ways: Ways, one: int, other: int, cost: float) -> None:
    ways.next[one, ways.many[one]] = other
    ways.cost[one, ways.many[one]] = cost
    ways.many[one] += 1


@compiled
def _part(ways: Ways, one: int, other: int) -> None:
    last = ways.many[one] - 1
    for port in range(last):
        if ways.next[one, port] == other:
            ways.next[one, port] = ways.next[one, last]
            ways.cost[one, port] = ways.cost[one, last]
    ways.many[one] = last


@compiled
def without(ways: Ways, one: int, other: int, cost: float) -> None:
    """The ways once a link between two routers is gone."""
    far, pairs, near, beyond, many = ways.far, ways.pairs, ways.near, ways.beyond, ways.many
    n, count = far.shape[0], 0
    _part(ways, one, other)
    _part(ways, other, one)
    mine = theirs = 0
    for i in range(n):
        if far[i, one] + cost <= far[i, other] * MORE:
            near[mine] = i
            mine += 1
        elif far[i, other] + cost <= far[i, one] * MORE:
            beyond[theirs] = i
            theirs += 1
    for index in range(mine):
        i = near[index]
        reached = far[i, one] + cost
        for place in range(theirs):
            j = beyond[place]
            if reached + far[other, j] <= far[i, j] * MORE:
                pairs[count, 0] = i
                pairs[count, 1] = j
                count += 1
    for index in range(count):
        i, j = pairs[index, 0], pairs[index, 1]
        far[i, j] = far[j, i] = FAR
    changed = True
    while changed:
        changed = False
        for index in range(count):
            i, j = pairs[index, 0], pairs[index, 1]
            old = least = far[i, j]
            for port in range(many[i]):
                way = ways.cost[i, port] + far[ways.next[i, port], j]
                least = way if way < least else least
            if least < old:
                far[i, j] = far[j, i] = least
                changed = True


@compiled
def with_link(ways: Ways, one: int, other: int, cost: float) -> None:
    """The ways once there is a link between two routers."""
    far, row = ways.far, ways.row
    n = far.shape[0]
    _point(ways, one, other, cost)
    _point(ways, other, one, cost)
    for _ in range(2):
        for j in range(n):
            row[j] = far[other, j]
        for i in range(n):
            reached = far[i, one] + np.float32(cost)
            if reached < far[i, other]:
                for j in range(n):
                    way, old = reached + row[j], far[i, j]
                    far[i, j] = way if way < old else old
        one, other = other, one


@compiled
def weigh(ways: Ways) -> float:
    """The objective: bytes times the weight of their ways."""
    n, row = ways.far.shape[0], ways.row
    row[:] = 0.0
    for i in range(n):
        for j in range(n):
            row[j] += ways.far[i, j] * ways.bytes[i, j]
    total = 0.0
    for j in range(n):
        total += row[j]
    return total


@compiled
def _set(plane: Plane, links: Links, ways: Ways, one: int, other: int, built: bool) -> float:
    """Build a link or take it away; the change of the wire."""
    links.joined[one, other] = links.joined[other, one] = built
    step = 1 if built else -1
    links.ports[one] += step
    links.ports[other] += step
    if built:
        with_link(ways, one, other, plane.weight[one, other])
    else:
        without(ways, one, other, plane.weight[one, other])
    return float(step * plane.length[one, other])


@compiled
def _take(plane: Plane, links: Links, ways: Ways, end: int) -> tuple[int, float]:
    """Take a random link of a router away: its other end (-1: it has none) and the change of the wire."""
    pick, seen = -1, 0
    for port in range(ways.many[end]):
        router = ways.next[end, port]
        if links.joined[end, router]:
            seen += 1
            if below(seen) == 0:
                pick = router
    return pick, _set(plane, links, ways, end, pick, False) if pick >= 0 else 0.0


@compiled
def _raise(plane: Plane, links: Links, ways: Ways) -> bool:
    """Build a pillar at a random place that is free; whether there was one with ports left."""
    for _ in range(20):
        post = below(plane.posts.shape[0])
        low, high = plane.posts[post, 0], plane.posts[post, 1]
        room = links.ports[low] < plane.most_ports and links.ports[high] < plane.most_ports
        if room and not links.joined[low, high]:
            _set(plane, links, ways, low, high, True)
            return True
    return False


@compiled
def standing(plane: Plane, links: Links) -> int:
    """How many pillars are built."""
    count = 0
    for post in range(plane.posts.shape[0]):
        count += links.joined[plane.posts[post, 0], plane.posts[post, 1]]
    return count


@compiled
def _change(plane: Plane, links: Links, ways: Ways, used: float) -> float:
    """Take one or two links away and put up to three elsewhere.  The wire."""
    n = links.joined.shape[0]
    pillars = standing(plane, links)
    near, channels = below(n), links.ports.sum() - 2 * pillars
    for _ in range(1 + below(2)):
        end = below(n)
        other, freed = _take(plane, links, ways, end)
        if other >= 0:
            used += freed
            if plane.length[end, other] == 0.0:
                pillars -= 1
            else:
                channels -= 2
            near = end if uniform() < 0.5 else other
    for _ in range(1 + below(3)):
        if pillars < plane.most_pillars and uniform() < RAISED:
            pillars += _raise(plane, links, ways)
            continue
        for _ in range(20):
            one, other = near if uniform() < 0.5 else below(n), below(n)
            if one == other or links.joined[one, other] or plane.length[one, other] >= FAR:
                continue
            if plane.length[one, other] == 0.0:
                continue
            room = links.ports[one] < plane.most_ports and links.ports[other] < plane.most_ports
            room = room and channels + 2 <= plane.most_channels
            if room and used + plane.length[one, other] <= plane.total_m * (1 + 1e-6):
                used += _set(plane, links, ways, one, other, True)
                channels += 2
                break
    return used


@compiled
def _copy(links: Links, to: Links) -> None:
    to.joined[:] = links.joined
    to.ports[:] = links.ports
    to.tile[:] = links.tile


@compiled
def _keep(table: Singles, to: Singles) -> None:
    # Row by row, which the compiler makes a copy of memory.
    for i in range(table.shape[0]):
        for j in range(table.shape[1]):
            to[i, j] = table[i, j]


@compiled
def _swap(ways: Ways, links: Links, kind: IntVector, heat: float) -> float:
    """Two tiles of one kind change places where that is worth it (or warm enough); the change of the objective."""
    far, carried = ways.far, ways.bytes
    n = far.shape[0]
    one, other = below(n), below(n)
    mine, its = links.tile[one], links.tile[other]
    if one == other or kind[mine] != kind[its]:
        return 0.0
    change = 0.0
    for third in range(n):
        # Ways and bytes are the same in both directions: each pair stands twice in the sum.
        if third not in (one, other):
            change += 2 * (far[one, third] - far[other, third]) * (carried[other, third] - carried[one, third])
    if change > -heat * np.log(uniform()):
        return 0.0
    links.tile[one], links.tile[other] = its, mine
    for third in range(n):
        if third not in (one, other):
            carried[one, third], carried[other, third] = carried[other, third], carried[one, third]
            carried[third, one], carried[third, other] = carried[third, other], carried[third, one]
    return float(change)


@compiled
def anneal_shortest(plane: Plane, links: Links, best: Links, ways: Ways, kind: IntVector, how: Steps) -> float:
    """Anneal from `links` with their ways; the best is left in `best` and its objective returned."""
    start_draws(how.seed)
    n = links.joined.shape[0]
    kept = Links(links.joined.copy(), links.ports.copy(), links.tile.copy())
    used = 0.0
    for one in range(n):
        for other in range(one):
            if links.joined[one, other]:
                used += plane.length[one, other]
    before, next_before = ways.far.copy(), ways.next.copy()
    cost_before, many_before = ways.cost.copy(), ways.many.copy()
    now = weigh(ways)
    least = now
    _copy(links, best)
    for step in range(how.rounds):
        heat = how.warm * (how.cold / how.warm) ** (step / how.rounds)
        wire = _change(plane, links, ways, used)
        after = weigh(ways)
        if after - now <= -heat * np.log(uniform()):
            now, used = after, wire
            kept.joined[:], kept.ports[:] = links.joined, links.ports
            next_before[:], cost_before[:], many_before[:] = ways.next, ways.cost, ways.many
            _keep(ways.far, before)
        else:
            links.joined[:], links.ports[:] = kept.joined, kept.ports
            _keep(before, ways.far)
            ways.next[:], ways.cost[:], ways.many[:] = next_before, cost_before, many_before
        for _ in range(how.swaps):
            now += _swap(ways, links, kind, heat)
        if now < least - 1e-9:
            least = now
            _copy(links, best)
    return least


__all__ = [
    "FAR",
    "Links",
    "Plane",
    "Steps",
    "Ways",
    "anneal_shortest",
    "begin_ways",
    "shortest_ways",
    "standing",
    "weigh",
    "with_link",
    "without",
]
