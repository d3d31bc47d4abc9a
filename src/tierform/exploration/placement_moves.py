"""Annealing of places on a network with fixed routes: linear cost, peak load and heat, mended swap by swap.  Compiled.

A swap of two tiles changes the flows of those two alone; their old routes give up the difference and their new routes
take it.  The hottest tile follows from influence columns (kelvin at every place for a watt at one).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tierform.exploration.compiled_draws import below, compiled, start_draws, uniform

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Fixed(NamedTuple):
    """What does not change: flows between tiles, and per pair of places the cost and the channels of the route."""

    flow: Floats  # (n, n) bytes from tile to tile
    cost: Floats  # (n, n) linear cost of a byte from place to place
    first: Ints  # (n * n + 1,) where the route of a pair starts in `channels`
    channels: NDArray[np.int32]
    relative: Floats  # (m,) load of a byte in units of the reference's peak
    group: Ints  # (n,) tiles of one group may change places
    power: Floats  # (n,) watts of each tile
    influence: Floats  # (n, n) kelvin at a place for a watt at another


class Weights(NamedTuple):
    """Weights of the peak load and of the hottest place's kelvin beside the linear cost, and how to anneal."""

    peak: float
    heat: float
    steps: int
    warm: float
    cold: float
    seed: int


@compiled
def _carry(load: Floats, fixed: Fixed, pair: int, amount: float) -> None:
    for index in range(fixed.first[pair], fixed.first[pair + 1]):
        load[fixed.channels[index]] += amount


@compiled
def _most(values: Floats, relative: Floats) -> float:
    most = 0.0
    for index in range(values.size):
        most = max(most, values[index] * relative[index])
    return most


@compiled
def loads_at(fixed: Fixed, at: Ints) -> Floats:
    """(m,) bytes on each channel with tiles at these places."""
    n = at.size
    load = np.zeros(fixed.relative.size)
    for one in range(n):
        for other in range(n):
            if one != other and fixed.flow[one, other] != 0.0:
                _carry(load, fixed, at[one] * n + at[other], fixed.flow[one, other])
    return load


@compiled
def swap_loads(fixed: Fixed, at: Ints, one: int, other: int, load: Floats) -> None:
    """Change `load` as if two tiles had changed places (`at` as before the swap)."""
    n = at.size
    here, there = at[one], at[other]
    more = fixed.flow[one, other] - fixed.flow[other, one]
    if more != 0.0:
        _carry(load, fixed, here * n + there, -more)
        _carry(load, fixed, there * n + here, more)
    for third in range(n):
        if third in (one, other):
            continue
        place = at[third]
        more = fixed.flow[one, third] - fixed.flow[other, third]
        if more != 0.0:
            _carry(load, fixed, there * n + place, more)
            _carry(load, fixed, here * n + place, -more)
        more = fixed.flow[third, one] - fixed.flow[third, other]
        if more != 0.0:
            _carry(load, fixed, place * n + there, more)
            _carry(load, fixed, place * n + here, -more)


@compiled
def swap_cost(fixed: Fixed, at: Ints, one: int, other: int) -> float:
    """The change of the linear cost by a swap."""
    flow, cost = fixed.flow, fixed.cost
    here, there = at[one], at[other]
    change = (flow[one, other] - flow[other, one]) * (cost[there, here] - cost[here, there])
    for third in range(at.size):
        if third != one and third != other:
            place = at[third]
            change += (flow[one, third] - flow[other, third]) * (cost[there, place] - cost[here, place])
            change += (flow[third, one] - flow[third, other]) * (cost[place, there] - cost[place, here])
    return float(change)


@compiled
def anneal_places(fixed: Fixed, weights: Weights, at: Ints) -> float:
    """Anneal from `at`, which is left at the best; the best objective less that of the start."""
    start_draws(weights.seed)
    n = at.size
    now, load = at.copy(), loads_at(fixed, at)
    trial, rise, warmed = load.copy(), np.zeros(n), np.zeros(n)
    ones = np.ones(n)
    for tile in range(n):
        for place in range(n):
            rise[place] += fixed.influence[place, at[tile]] * fixed.power[tile]
    peak, hottest = _most(load, fixed.relative), _most(rise, ones)
    value, best = 0.0, 0.0
    for step in range(weights.steps):
        one, other = below(n), below(n)
        if one == other or fixed.group[one] != fixed.group[other]:
            continue
        heat = weights.warm * (weights.cold / weights.warm) ** (step / weights.steps)
        most = -heat * np.log(uniform())
        linear = swap_cost(fixed, now, one, other)
        if linear - weights.peak * peak - weights.heat * hottest > most:
            continue
        trial[:] = load
        swap_loads(fixed, now, one, other, trial)
        new_peak, new_hottest = _most(trial, fixed.relative), hottest
        if weights.heat != 0.0:
            more, here, there = fixed.power[one] - fixed.power[other], now[one], now[other]
            for place in range(n):
                warmed[place] = rise[place] + more * (fixed.influence[place, there] - fixed.influence[place, here])
            new_hottest = _most(warmed, ones)
        change = linear + weights.peak * (new_peak - peak) + weights.heat * (new_hottest - hottest)
        if change > most:
            continue
        load[:] = trial
        if weights.heat != 0.0:
            rise[:] = warmed
        peak, hottest = new_peak, new_hottest
        now[one], now[other] = now[other], now[one]
        value += change
        if value < best - 1e-12:
            best = value
            at[:] = now
    return best


@compiled
def route_lists(next_link: NDArray[np.int32], target: NDArray[np.int32]) -> tuple[Ints, NDArray[np.int32]]:
    """The channels of every route, one after the other, and where each starts."""
    n = next_link.shape[0]
    first = np.zeros(n * n + 1, np.int64)
    total = 0
    for one in range(n):
        for other in range(n):
            here = one
            while here != other:
                here = target[next_link[here, other]]
                total += 1
            first[one * n + other + 1] = total
    channels = np.empty(total, np.int32)
    at = 0
    for one in range(n):
        for other in range(n):
            here = one
            while here != other:
                channels[at] = next_link[here, other]
                here = target[channels[at]]
                at += 1
    return first, channels


@compiled
def ordered_table(
    order: NDArray[np.int32], source: NDArray[np.int32], target: NDArray[np.int32], weight: Floats, routers: int
) -> NDArray[np.int32]:
    """A table in which every route takes channels in the reverse of `order`, short ones where it can.

    Such a table cannot deadlock.  -1 where a destination cannot be reached in that order.
    """
    table = np.full((routers, routers), -1, np.int32)
    far, behind = np.zeros(routers), np.zeros(routers, np.int32)
    for goal in range(routers):
        chosen = table[:, goal]
        behind[:] = 0
        far[goal] = 0.0
        for index in range(order.size):
            channel = order[index]
            here, there = source[channel], target[channel]
            if here == goal or (there != goal and chosen[there] < 0):
                continue
            way = far[there] + weight[channel]
            if chosen[here] < 0 or (behind[here] == 0 and way < far[here]):
                if chosen[here] >= 0:
                    behind[target[chosen[here]]] -= 1
                chosen[here] = channel
                far[here] = way
                behind[there] += 1
    return table
