"""Routes and places annealed for the time of the transfers one by one: compiled.

A transfer's bytes take as long as they need at its own busiest link, or at the ports of its tiles.  A network that is
balanced over all transfers together may still send all of one transfer over one narrow link.  A transfer is a list of
bundles: an amount that goes from a tile to one or more tiles at once (a multicast loads a shared link once).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tierform.exploration.compiled_draws import below, compiled, start_draws, uniform
from tierform.exploration.route_moves import swap_tiles
from tierform.exploration.route_state import MAX_PORTS, Floats, IntVector, RouteState, copy_state, reroute, settle

Longs = NDArray[np.int64]


class Transfers(NamedTuple):
    """Transfers and their bundles, one after the other, by tiles."""

    bytes: Floats  # (transfers,) bytes of the whole task
    port: Floats  # (transfers,) seconds of a byte at the ports
    first: Longs  # (transfers + 1,) where each one's bundles start
    amount: Floats  # (bundles,) share of the transfer's bytes
    source: IntVector  # (bundles,) tile
    goal_first: Longs  # (bundles + 1,) where each one's goals start
    goal: IntVector  # tiles


@compiled
def transfer_s(t: Transfers, one: int, s: RouteState, at: IntVector, slow: Floats, load: Floats, stamp: Longs) -> float:
    """Seconds of a byte of a transfer at its busiest link or ports; `slow` is s a byte of each channel."""
    load[:] = 0.0
    most = t.port[one]
    for bundle in range(t.first[one], t.first[one + 1]):
        amount = t.amount[bundle]
        for index in range(t.goal_first[bundle], t.goal_first[bundle + 1]):
            here, goal = at[t.source[bundle]], at[t.goal[index]]
            while here != goal:
                channel = s.next_channel[here, goal]
                if stamp[channel] != bundle:
                    stamp[channel] = bundle
                    load[channel] += amount
                    most = max(most, load[channel] * slow[channel])
                here = s.target[channel]
    return float(most)


@compiled
def _crosses(t: Transfers, one: int, s: RouteState, at: IntVector, router: int, goal: int) -> bool:
    """Whether a transfer has a way to a router `goal` through another."""
    for bundle in range(t.first[one], t.first[one + 1]):
        for index in range(t.goal_first[bundle], t.goal_first[bundle + 1]):
            if at[t.goal[index]] == goal:
                here = at[t.source[bundle]]
                while here != goal:
                    if here == router:
                        return True
                    here = s.target[s.next_channel[here, goal]]
    return False


@compiled
def total_s(t: Transfers, s: RouteState, at: IntVector, slow: Floats, each: Floats) -> float:
    """Seconds of all transfers, one after the other; those of a byte of each are left in `each`."""
    load, stamp = np.zeros(s.load.size), np.full(s.load.size, -1, np.int64)
    total = 0.0
    for one in range(t.bytes.size):
        each[one] = transfer_s(t, one, s, at, slow, load, stamp)
        total += each[one] * t.bytes[one]
    return total


@compiled
def anneal_transfers(
    s: RouteState,
    best: RouteState,
    t: Transfers,
    slow: Floats,
    traffic: Floats,
    group: IntVector,
    at: IntVector,
    best_at: IntVector,
    how: Floats,
    seed: int,
) -> float:
    """Anneal routes and places from `s`; the best is left in `best` and `best_at`.  Its objective.

    `how` is (rounds, share of place moves, warm, cold, weight of latency and energy).
    """
    start_draws(seed)
    routers, tiles, count = s.outs.shape[0], traffic.shape[0], t.bytes.size
    rounds, warm, cold, linear = int(how[0]), how[2], how[3], how[4]
    load, stamp = np.zeros(s.load.size), np.full(s.load.size, -1, np.int64)
    each, trial = np.zeros(count), np.zeros(count)
    seconds = total_s(t, s, at, slow, each)
    whole = seconds
    now = 1.0 + linear * s.totals[0]
    least = now
    copy_state(s, best)
    best_at[:] = at
    for step in range(rounds):
        most = now - warm * (cold / warm) ** (step / rounds) * np.log(uniform())
        place = uniform() < how[1]
        one, other, old = below(routers), below(routers), -1
        if place:
            one, other = below(tiles), below(tiles)
            if one == other or group[one] != group[other]:
                continue
            swap_tiles(s, traffic, at, one, other)
        else:
            channel = s.outs[one, below(MAX_PORTS)]
            if one == other or channel < 0 or channel == s.next_channel[one, other]:
                continue
            old = s.next_channel[one, other]
            for index in range(count):
                trial[index] = 1.0 if _crosses(t, index, s, at, one, other) else 0.0
            if reroute(s, one, other, channel, 0.0, np.inf) == np.inf:
                continue
        after = seconds
        for index in range(count):
            touched = trial[index] != 0.0
            if place:
                touched = False
                for bundle in range(t.first[index], t.first[index + 1]):
                    touched = touched or t.source[bundle] == one or t.source[bundle] == other
                    for goal in range(t.goal_first[bundle], t.goal_first[bundle + 1]):
                        touched = touched or t.goal[goal] == one or t.goal[goal] == other
                    if touched:
                        break
            trial[index] = each[index]
            if touched:
                trial[index] = transfer_s(t, index, s, at, slow, load, stamp)
                stamp[:] = -1
                after += (trial[index] - each[index]) * t.bytes[index]
        value = after / whole + linear * s.totals[0]
        if value <= most:
            now, seconds = value, after
            each[:] = trial
            if now < least - 1e-12:
                least = now
                copy_state(s, best)
                best_at[:] = at
        elif place:
            swap_tiles(s, traffic, at, one, other)
        else:
            reroute(s, one, other, old, 0.0, np.inf)
        if step % 4096 == 4095:
            moved = np.zeros((routers, routers))
            for source in range(tiles):
                for goal in range(tiles):
                    moved[at[source], at[goal]] = traffic[source, goal]
            settle(s, moved)
            now = seconds / whole + linear * s.totals[0]
    return float(least)
