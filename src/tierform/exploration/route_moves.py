"""Annealing of routes on links that stay, and the exchange of two tiles: compiled.

A move gives an entry of the routing table another channel, from one state without deadlock to another.  The state is
:class:`~tierform.exploration.route_state.RouteState`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tierform.exploration.compiled_draws import below, compiled, start_draws, uniform
from tierform.exploration.route_state import (
    MAX_PORTS,
    Floats,
    IntVector,
    RouteState,
    carry,
    copy_state,
    power16,
    reroute,
    smooth_peak,
)


class Annealing(NamedTuple):
    """How long and how warm; `peak_weight` is that of the smooth peak in the objective."""

    rounds: int
    routes_a_round: int
    warm: float
    cold: float
    peak_weight: float
    seed: int


@compiled
def objective(s: RouteState, peak_weight: float) -> float:
    """Latency and energy, and the smooth peak."""
    return float(s.totals[0] + peak_weight * smooth_peak(s.totals[1]))


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
def anneal_routes(s: RouteState, best: RouteState, how: Annealing) -> float:
    """Anneal from the state `s`; the best state is left in `best` and its objective returned."""
    start_draws(how.seed)
    routers, peak_weight = s.outs.shape[0], how.peak_weight
    now = objective(s, peak_weight)
    best_value = now
    copy_state(s, best)
    for step in range(how.rounds):
        heat = how.warm * (how.cold / how.warm) ** (step / how.rounds)
        for _ in range(how.routes_a_round):
            router, destination = below(routers), below(routers)
            if router == destination:
                continue
            channel = s.outs[router, below(MAX_PORTS)]
            if channel < 0 or channel == s.next_channel[router, destination]:
                continue
            change = reroute(s, router, destination, channel, peak_weight, -heat * np.log(uniform()))
            if change < np.inf:
                now += change
        if step % 64 == 0:
            _recount(s)
            now = objective(s, peak_weight)
        if now < best_value - 1e-12:
            best_value = now
            copy_state(s, best)
    return best_value
