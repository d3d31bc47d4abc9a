"""Annealing of links, ranks and places on :mod:`tierform.exploration.ordered_routes`: compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tierform.exploration.compiled_draws import below, compiled, start_draws, uniform
from tierform.exploration.ordered_moves import relink, rerank, upset
from tierform.exploration.ordered_routes import (
    BROKEN,
    SHORTER,
    Budget,
    LinkSet,
    Marks,
    Ordered,
    Scratch,
    grow,
    line_up,
    powers_of,
    scratch,
    sum_loads,
    value_of,
)
from tierform.exploration.route_state import MAX_PORTS, IntMatrix, IntVector, power16, smooth_peak

# By so much the peak may make good what latency and energy lose in one move; beyond it a move is given up early.
SLACK = 3e-3


class Schedule(NamedTuple):
    """How long, how warm and with which moves."""

    rounds: int
    warm: float
    cold: float
    peak_weight: float
    link_share: float
    place_share: float
    diverts: int  # entries tried between two other moves
    seed: int


@compiled
def _along(s: Ordered, goal: int, router: int, amount: float) -> None:
    """Add bytes on a router's way to a destination."""
    channels = s.source.size
    while router != goal:
        channel = s.chosen[goal, router] % channels
        s.load_of[goal, channel] += amount
        s.load[channel] += amount
        router = s.target[channel]


@compiled
def _add(s: Ordered, goal: int, router: int, amount: float) -> float:
    """As `_along`; the change of the sum of 16th powers."""
    change = 0.0
    channels = s.source.size
    while router != goal:
        channel = s.chosen[goal, router] % channels
        change -= power16(s.load[channel] * s.relative[channel])
        s.load_of[goal, channel] += amount
        s.load[channel] += amount
        change += power16(s.load[channel] * s.relative[channel])
        router = s.target[channel]
    return change


@compiled
def divert(
    s: Ordered, entering: IntMatrix, goal: int, virtual: int, powers: float, peak_weight: float, most: float
) -> float:
    """Send what passes a channel's source towards a destination over a virtual one, where the ranks allow.

    The new sum of 16th powers, or -1 where the objective would change by more than `most` and nothing was done.
    """
    channels = s.source.size
    channel = virtual % channels
    router, after = s.source[channel], s.target[channel]
    if router < 0 or router == goal:
        return -1.0
    old = s.chosen[goal, router]
    if old == virtual or (after != goal and s.rank[s.chosen[goal, after]] > s.rank[virtual]):
        return -1.0
    amount = s.load_of[goal, old % channels]
    way = s.far[goal, after] + s.weight[channel]
    change = way - s.far[goal, router]
    peak = smooth_peak(powers)
    if amount == 0.0 or amount * change - 0.2 * peak_weight * peak > most:
        return -1.0
    for port in range(entering.shape[1]):
        other = entering[router, port]
        if other < 0 or s.source[other] == goal:
            continue
        before = s.chosen[goal, s.source[other]]
        if before % channels == other and s.rank[before] < s.rank[virtual]:
            return -1.0
    after_powers = powers + _add(s, goal, router, -amount)
    s.chosen[goal, router] = virtual
    after_powers += _add(s, goal, router, amount)
    if amount * change + peak_weight * (smooth_peak(after_powers) - peak) > most:
        _along(s, goal, router, -amount)
        s.chosen[goal, router] = old
        _along(s, goal, router, amount)
        return -1.0
    s.linear_of[goal] += amount * change
    if change != 0.0:
        for start in range(s.far.shape[0]):
            here = start
            while here != goal and here != router:
                here = s.target[s.chosen[goal, here] % channels]
            if here == router:
                s.far[goal, start] += change
    return after_powers


@compiled
def _enter(s: Ordered, entering: IntMatrix) -> None:
    """The channels that enter each router."""
    entering[:] = -1
    for channel in range(s.source.size):
        if s.source[channel] >= 0:
            router, port = s.target[channel], 0
            while entering[router, port] >= 0:
                port += 1
            entering[router, port] = channel


@compiled
def exchange(s: Ordered, one: int, other: int) -> None:
    """The tiles of two routers change places; links and routes stay."""
    routers = s.far.shape[0]
    for goal in range(routers):
        if goal in (one, other):
            continue
        more = s.traffic[goal, other] - s.traffic[goal, one]
        if more != 0.0:
            _along(s, goal, one, more)
            _along(s, goal, other, -more)
            s.linear_of[goal] += more * (s.far[goal, one] - s.far[goal, other])
        s.traffic[goal, one], s.traffic[goal, other] = s.traffic[goal, other], s.traffic[goal, one]
    for router in range(routers):
        # Towards the two themselves: what went to the one goes to the other.
        mine, its = s.traffic[one, router], s.traffic[other, router]
        if router not in (one, other) and mine != its:
            _along(s, one, router, its - mine)
            _along(s, other, router, mine - its)
            s.linear_of[one] += (its - mine) * s.far[one, router]
            s.linear_of[other] += (mine - its) * s.far[other, router]
            s.traffic[one, router], s.traffic[other, router] = its, mine
    go, back = s.traffic[other, one], s.traffic[one, other]
    if go != back:
        _along(s, other, one, back - go)
        _along(s, one, other, go - back)
        s.linear_of[other] += (back - go) * s.far[other, one]
        s.linear_of[one] += (go - back) * s.far[one, other]
        s.traffic[other, one], s.traffic[one, other] = back, go
    s.tile[one], s.tile[other] = s.tile[other], s.tile[one]


@compiled
def _keep(s: Ordered, to: Ordered) -> None:
    """What a state is found again from."""
    to.source[:] = s.source
    to.target[:] = s.target
    to.weight[:] = s.weight
    to.order[:] = s.order
    to.rank[:] = s.rank
    to.chosen[:] = s.chosen
    to.tile[:] = s.tile


@compiled
def _regrow(s: Ordered, old: Ordered, room: Scratch, touched: Marks, most: float) -> bool:
    """Grow the marked destinations anew and keep what they were in `old`; False where they lose more than `most`.

    Those that gain come first, so that a move that only loses is given up early; the marks of those that were not
    grown are taken away.
    """
    count = line_up(s, room)
    change, fits = 0.0, True
    for wanted in (SHORTER, BROKEN):
        for goal in range(touched.size):
            if touched[goal] != wanted:
                continue
            if not fits or (wanted == BROKEN and change > most):
                fits = False
                touched[goal] = 0
                continue
            old.chosen[goal] = s.chosen[goal]
            old.far[goal] = s.far[goal]
            old.load_of[goal] = s.load_of[goal]
            old.linear_of[goal] = s.linear_of[goal]
            fits = grow(s, room, count, goal)
            change += s.linear_of[goal] - old.linear_of[goal]
    return fits


@compiled
def anneal_ordered(s: Ordered, best: Ordered, budget: Budget, how: Schedule, kind: IntVector, wires: LinkSet) -> float:
    """Anneal from `s`, whose ways are settled; the best state found is kept in `best`, its objective returned.

    `kind` is that of each tile: tiles of one kind may change places.
    """
    start_draws(how.seed)
    routers, channels = s.far.shape[0], s.order.size
    room = scratch(routers, channels)
    moved, entering = np.zeros(2 * channels // s.source.size, np.int32), np.zeros(channels, np.int32)
    touched = np.zeros(routers, np.int8)
    old = Ordered(
        s.source.copy(),
        s.target.copy(),
        s.weight.copy(),
        s.relative,
        s.order.copy(),
        s.rank.copy(),
        s.chosen.copy(),
        s.far.copy(),
        s.traffic,
        s.load_of.copy(),
        s.load.copy(),
        s.linear_of.copy(),
        s.tile.copy(),
    )
    length, ports, joined = wires.length.copy(), wires.ports.copy(), wires.joined.copy()
    now = value_of(s, how.peak_weight)
    least = now
    _keep(s, best)
    inward = np.full((routers, MAX_PORTS), -1, np.int32)
    _enter(s, inward)
    for step in range(how.rounds):
        heat = how.warm * (how.cold / how.warm) ** (step / how.rounds)
        powers, diverted = powers_of(s), False
        for _ in range(how.diverts):
            after = divert(
                s, inward, below(routers), below(channels), powers, how.peak_weight, -heat * np.log(uniform())
            )
            if after >= 0.0:
                powers, diverted = after, True
        if diverted:
            now = value_of(s, how.peak_weight)
        most = now - heat * np.log(uniform())
        draw = uniform()
        if draw < how.place_share:
            one, other = below(routers), below(routers)
            if one != other and kind[s.tile[one]] == kind[s.tile[other]]:
                exchange(s, one, other)
                after = value_of(s, how.peak_weight)
                if after <= most:
                    now = after
                else:
                    exchange(s, one, other)
        else:
            draw = (draw - how.place_share) / (1 - how.place_share)
            links = draw < how.link_share
            touched[:] = 0
            old.load[:] = s.load
            number = relink(s, wires, budget, moved, touched) if links else rerank(s, moved)
            if number >= 0:
                for index in range(number):
                    upset(s, moved[index], entering, touched)
                grown = _regrow(s, old, room, touched, most - now + SLACK)
                after = value_of(s, how.peak_weight) if grown else np.inf
            else:
                after = np.inf
            if after <= most:
                now = after
                old.order[:] = s.order
                old.rank[:] = s.rank
                if links:
                    old.source[:], old.target[:], old.weight[:] = s.source, s.target, s.weight
                    length[:], ports[:] = wires.length, wires.ports
                    joined[:] = wires.joined
                    _enter(s, inward)
            else:
                s.order[:] = old.order
                s.rank[:] = old.rank
                if links:
                    s.source[:], s.target[:], s.weight[:] = old.source, old.target, old.weight
                    wires.length[:], wires.ports[:] = length, ports
                    wires.joined[:] = joined
                if number >= 0:
                    s.load[:] = old.load
                    for goal in range(routers):
                        if touched[goal] != 0:
                            s.chosen[goal] = old.chosen[goal]
                            s.far[goal] = old.far[goal]
                            s.load_of[goal] = old.load_of[goal]
                            s.linear_of[goal] = old.linear_of[goal]
        if step % 1024 == 1023:
            sum_loads(s)
            now = value_of(s, how.peak_weight)
        if now < least - 1e-12:
            least = now
            _keep(s, best)
    return least


__all__ = ["Schedule", "anneal_ordered", "exchange"]
