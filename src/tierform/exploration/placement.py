"""Which tile stands where, so that bytes travel few hops: the quadratic assignment problem, by robust tabu search.

Cost = sum over ordered pairs of flow[i, j] * distance[place of i, place of j].  All changes by swapping two tiles are
kept in a table, which a swap mends in constant time a pair (Taillard, Parallel Computing 17, 1991): a step looks at
every pair for the price of reading it.  A swap that was undone lately is forbidden for a random time unless it gives
the best cost so far; one that was not made for long is forced.  Starts anew from a disturbed best when nothing comes.

Limits: tiles of one `group` change places among themselves only.  The optimum is not proven, and is said to be so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.exploration.compiled_draws import below, compiled, start_draws, uniform

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """A placement: the place of each tile, its cost, and the steps that were made."""

    place: Ints
    cost: float
    steps: int


@compiled
def cost_of(flow: Floats, distance: Floats, place: Ints) -> float:
    """Sum of flow times distance."""
    total = 0.0
    for one in range(place.size):
        for other in range(place.size):
            total += flow[one, other] * distance[place[one], place[other]]
    return total


@compiled
def _swap_change(flow: Floats, distance: Floats, place: Ints, one: int, other: int) -> float:
    here, there = place[one], place[other]
    change = (flow[one, one] - flow[other, other]) * (distance[there, there] - distance[here, here])
    change += (flow[one, other] - flow[other, one]) * (distance[there, here] - distance[here, there])
    for third in range(place.size):
        if third != one and third != other:
            at = place[third]
            change += (flow[third, one] - flow[third, other]) * (distance[at, there] - distance[at, here])
            change += (flow[one, third] - flow[other, third]) * (distance[there, at] - distance[here, at])
    return float(change)


@compiled
def _mended(
    flow: Floats, distance: Floats, place: Ints, before: float, one: int, other: int, first: int, second: int
) -> float:  # fmt: skip
    """The change by swapping (one, other) after (first, second), four other tiles, was swapped."""
    here, there, a, b = place[one], place[other], place[first], place[second]
    entering = flow[first, one] - flow[first, other] + flow[second, other] - flow[second, one]
    leaving = flow[one, first] - flow[other, first] + flow[other, second] - flow[one, second]
    change = before + entering * (distance[b, here] - distance[b, there] + distance[a, there] - distance[a, here])
    change += leaving * (distance[here, b] - distance[there, b] + distance[there, a] - distance[here, a])
    return float(change)


@compiled
def tabu(flow: Floats, distance: Floats, group: Ints, place: Ints, steps: int, target: float, seed: int) -> int:
    """Search from `place`, which is left at the best found; the steps made until `target` was reached."""
    start_draws(seed)
    n = place.size
    now = place.copy()
    cost = cost_of(flow, distance, now)
    best = cost
    change = np.zeros((n, n))
    until = np.zeros((n, n), np.int64)
    span, patience = max(n, 8), 4 * n * n + 1000
    last = 0
    for one in range(n):
        for other in range(one + 1, n):
            change[one, other] = _swap_change(flow, distance, now, one, other)
        for at in range(n):
            until[one, at] = -(n * one + at)
    for step in range(1, steps + 1):
        if best <= target:
            return step
        first, second, least, forced = -1, -1, np.inf, False
        for one in range(n):
            for other in range(one + 1, n):
                if group[one] != group[other]:
                    continue
                allowed = until[one, now[other]] < step or until[other, now[one]] < step
                old = until[one, now[other]] < step - patience and until[other, now[one]] < step - patience
                aspired = old or cost + change[one, other] < best - 1e-9 * abs(best)
                better = change[one, other] < least
                if (
                    (aspired and not forced)
                    or (aspired and better)
                    or (not aspired and not forced and allowed and better)
                ):
                    first, second, least = one, other, change[one, other]
                    forced = forced or aspired
        if first < 0:
            continue
        cost += change[first, second]
        for end, gone in ((first, now[first]), (second, now[second])):
            until[end, gone] = step + int(uniform() ** 3 * 8 * span) + 1
        now[first], now[second] = now[second], now[first]
        if cost < best - 1e-9 * abs(best):
            best = cost
            place[:] = now
            last = step
        for one in range(n):
            for other in range(one + 1, n):
                if one != first and one != second and other != first and other != second:
                    change[one, other] = _mended(flow, distance, now, change[one, other], one, other, first, second)
                else:
                    change[one, other] = _swap_change(flow, distance, now, one, other)
        if step - last > 50 * n * n:
            # A stir of the best: a few random swaps within the groups.
            last = step
            now[:] = place
            for _ in range(2 + below(max(n // 4, 1))):
                one, other = below(n), below(n)
                if group[one] == group[other]:
                    now[one], now[other] = now[other], now[one]
            cost = cost_of(flow, distance, now)
            for one in range(n):
                for other in range(one + 1, n):
                    change[one, other] = _swap_change(flow, distance, now, one, other)
    return steps


def assign(
    flow: Floats, distance: Floats, *, group: Ints | None = None, steps: int = 0, target: float = -np.inf, seed: int = 0
) -> Assignment:
    """The best placement found; `flow` is (tiles, tiles), `distance` (places, places) of at least as many places.

    `steps` 0 is a number that takes about a second.  With `target` the search ends when it reaches that cost.
    """
    tiles, places = len(flow), len(distance)
    if flow.shape != (tiles, tiles) or distance.shape != (places, places):
        fail("flow and distance must be square", key="flow", value=(flow.shape, distance.shape))
    if tiles > places:
        fail("there are more tiles than places", key="flow", value=tiles, fix=f"There are {places} places.")
    if group is not None and len(group) != tiles:
        fail("one group for each tile is needed", key="group", value=len(group))
    # Empty places hold tiles without flow, which may go anywhere that a tile of the first group may.
    whole = np.zeros((places, places))
    whole[:tiles, :tiles] = flow
    groups = np.zeros(places, np.int64)
    if group is not None:
        groups[:tiles] = group
    place: Ints = np.arange(places)
    rng = np.random.default_rng(seed)
    for one in np.unique(groups):
        members = np.flatnonzero(groups == one)
        place[members] = rng.permutation(place[members])
    number = steps or max(2_000, 400_000_000 // (places * places * 2))
    made = tabu(whole, np.ascontiguousarray(distance, dtype=np.float64), groups, place, number, target, seed)
    return Assignment(place[:tiles].copy(), float(cost_of(whole, distance.astype(np.float64), place)), int(made))


def manhattan(columns: int, rows: int) -> Floats:
    """(places, places) hops on a grid whose places are numbered along its rows."""
    place = np.stack([np.arange(columns * rows) % columns, np.arange(columns * rows) // columns], axis=1)
    hops: Floats = np.abs(place[:, None] - place[None]).sum(axis=2).astype(np.float64)
    return hops
