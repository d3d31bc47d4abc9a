"""Links and places for the shortest ways alone: compiled, the first half of a search of links.

Ways are the shortest of the links (Floyd 1962), whatever may wait for what: with two classes of virtual channels nearly
all of them can be taken without deadlock (:mod:`~tierform.exploration.ordered_search` finds how).  The objective is
linear in the bytes; no load of a link is looked at here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tierform.exploration.compiled_draws import below, compiled, start_draws, uniform
from tierform.exploration.route_state import IntVector

Singles = NDArray[np.float32]
Flags = NDArray[np.bool_]
FAR = np.float32(1e12)


class Plane(NamedTuple):
    """What may be built: (n, n) tables of planar links, beside the links that stay."""

    weight: Singles  # objective for a byte on a planar link
    length: Singles  # of a planar link in m, FAR where none may be
    other: Singles  # weight of the links that stay, FAR where there is none
    total_m: float
    most_ports: int
    most_channels: int


class Links(NamedTuple):
    """What is built."""

    joined: Flags  # (n, n) planar links
    ports: IntVector  # (n,) channels that leave a router
    tile: IntVector  # (n,) the tile at each router


class Steps(NamedTuple):
    """How long and how warm; `swaps` are tried between two moves of links."""

    rounds: int
    warm: float
    cold: float
    swaps: int
    seed: int


@compiled
def shortest_ways(plane: Plane, links: Links, far: Singles, through: Singles) -> None:
    """The weight of the shortest way between any two routers; `through` is room for one row."""
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


@compiled
def _sum(far: Singles, traffic: Singles, tile: IntVector) -> float:
    total, n = 0.0, far.shape[0]
    for i in range(n):
        bytes_of = traffic[tile[i]]
        for j in range(n):
            total += far[i, j] * bytes_of[tile[j]]
    return total


@compiled
def _set(plane: Plane, links: Links, one: int, other: int, built: bool) -> float:
    """Build a planar link or take it away; the change of the wire."""
    links.joined[one, other] = links.joined[other, one] = built
    step = 1 if built else -1
    links.ports[one] += step
    links.ports[other] += step
    return float(step * plane.length[one, other])


@compiled
def _take(plane: Plane, links: Links, end: int) -> tuple[int, float]:
    """Take a random planar link of a router away: its other end (-1: it has none) and the change of the wire."""
    pick, seen = -1, 0
    for router in range(links.joined.shape[0]):
        if links.joined[end, router]:
            seen += 1
            if below(seen) == 0:
                pick = router
    return pick, _set(plane, links, end, pick, False) if pick >= 0 else 0.0


@compiled
def _change(plane: Plane, links: Links, used: float) -> float:
    """Take one or two links away and put up to three elsewhere.  The wire."""
    n = links.joined.shape[0]
    near = below(n)
    for _ in range(1 + below(2)):
        end = below(n)
        other, freed = _take(plane, links, end)
        if other >= 0:
            used += freed
            near = end if uniform() < 0.5 else other
    for _ in range(1 + below(3)):
        for _ in range(20):
            one, other = near if uniform() < 0.5 else below(n), below(n)
            if one == other or links.joined[one, other] or plane.length[one, other] >= FAR:
                continue
            room = links.ports[one] < plane.most_ports and links.ports[other] < plane.most_ports
            room = room and links.ports.sum() + 2 <= plane.most_channels
            if room and used + plane.length[one, other] <= plane.total_m * (1 + 1e-6):
                used += _set(plane, links, one, other, True)
                break
    return used


@compiled
def _copy(links: Links, to: Links) -> None:
    to.joined[:] = links.joined
    to.ports[:] = links.ports
    to.tile[:] = links.tile


@compiled
def _swap(far: Singles, traffic: Singles, links: Links, kind: IntVector, heat: float) -> float:
    """Two tiles of one kind change places where that is worth it (or warm enough); the change of the objective."""
    one, other = below(far.shape[0]), below(far.shape[0])
    mine, its = links.tile[one], links.tile[other]
    if one == other or kind[mine] != kind[its]:
        return 0.0
    change = 0.0
    for third in range(far.shape[0]):
        if third not in (one, other):
            there = links.tile[third]
            # Ways and bytes are the same in both directions: each pair stands twice in the sum.
            change += 2 * (far[one, third] - far[other, third]) * (traffic[its, there] - traffic[mine, there])
    if change > -heat * np.log(uniform()):
        return 0.0
    links.tile[one], links.tile[other] = its, mine
    return float(change)


@compiled
def anneal_shortest(plane: Plane, links: Links, best: Links, traffic: Singles, kind: IntVector, how: Steps) -> float:
    """Anneal from `links`; the best is left in `best` and its objective returned.

    `traffic` is (tiles, tiles) bytes, half of both directions together: the same as its transpose.
    """
    start_draws(how.seed)
    n = links.joined.shape[0]
    far, before = np.zeros((n, n), np.float32), np.zeros((n, n), np.float32)
    through = np.zeros(n, np.float32)
    kept = Links(links.joined.copy(), links.ports.copy(), links.tile.copy())
    used = 0.0
    for one in range(n):
        for other in range(one):
            if links.joined[one, other]:
                used += plane.length[one, other]
    shortest_ways(plane, links, far, through)
    now = _sum(far, traffic, links.tile)
    least = now
    _copy(links, best)
    for step in range(how.rounds):
        heat = how.warm * (how.cold / how.warm) ** (step / how.rounds)
        _copy(links, kept)
        before[:] = far
        wire = _change(plane, links, used)
        shortest_ways(plane, links, far, through)
        after = _sum(far, traffic, links.tile)
        if after - now <= -heat * np.log(uniform()):
            now, used = after, wire
        else:
            _copy(kept, links)
            far[:] = before
        for _ in range(how.swaps):
            now += _swap(far, traffic, links, kind, heat)
        if now < least - 1e-9:
            least = now
            _copy(links, best)
    return least


__all__ = ["FAR", "Links", "Plane", "Steps", "anneal_shortest", "shortest_ways"]
