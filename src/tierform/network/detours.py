"""How much of the traffic UGAL sends around: its own rule applied to the mean load of each port.

A packet that enters compares, for its minimal way and for the way by a random router, hops times the flits that the
buffer behind the port holds as far as credits tell (between groups of a dragonfly one and two hops), and goes around
where the minimal way is worse by more than a threshold.  A flit counts from when it is sent until its credit is back:
through the router behind the link and over the link twice, so a port with load rho (flits a cycle) counts rho times
that many on average, and their number is taken as Poisson's, ports as independent.  The loads follow from who goes
around, so both are found together.  Nothing is fitted.

Source of the rule: Singh, Load-Balanced Routing in Interconnection Networks (Stanford, 2005), as in BookSim2.
Limits: waiting in the buffer is not counted, so it holds below saturation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tierform.network.cycle.route_choices import GROUP_THRESHOLD, UGAL_THRESHOLD
from tierform.network.loads import table_loads
from tierform.network.parameters import RouterParameters
from tierform.network.routing import Routing
from tierform.network.topology import FloatArray, Groups, IntArray, Lines

# Rounds until loads and shares agree, half of each round's change taken, and the change that counts as none.
ROUNDS, ENOUGH = 40, 1e-5


@dataclass(frozen=True, eq=False)
class Choice:
    """What UGAL compares at one router: hops of the minimal and the other way, and which routers are drawn."""

    minimal: IntArray  # (goals,) hops by which the minimal way's port counts, 0: always minimal
    around: IntArray  # (goals, ways) hops by which the other way's port counts, 0: not gone around
    chance: FloatArray  # (goals,) of each router that may be drawn


def detours(
    routing: Routing, router: RouterParameters, between: FloatArray, rate: float
) -> tuple[FloatArray, FloatArray]:
    """(routers, routers) traffic to the routers where packets end or turn, and traffic on from where they turn.

    `between` is the (routers, routers) traffic in units of `rate` flits a cycle.
    """
    topology = routing.topology
    everyone = np.arange(topology.routers, dtype=np.int32)
    table = routing.next_links(everyone)
    threshold = UGAL_THRESHOLD if isinstance(topology.structure, Lines) else GROUP_THRESHOLD
    loop = router.pipeline_cycles + router.credit_delay + 2 * topology.link_latency_cycles
    room = router.virtual_channels * router.buffer_flits
    choices = [_choice(routing, here) for here in range(topology.routers)]
    first: FloatArray = between.astype(float)
    second: FloatArray = np.zeros_like(first)
    for _ in range(ROUNDS):
        load = table_loads(routing, first + second, everyone)[0]
        held, more = _held(rate * load * loop, room)
        new_first, new_second = np.zeros_like(first), np.zeros_like(second)
        for here, choice in enumerate(choices):
            leaves = choice.chance[:, None] * _worse(held, more, table[here], choice, threshold)
            around = between[here][:, None] * leaves
            new_first[here] += between[here] - around.sum(axis=1) + around.sum(axis=0)
            # By way of its own goal a packet has arrived.
            np.fill_diagonal(around, 0.0)
            new_second += around.T
        change = max(float(abs(new_first - first).max()), float(abs(new_second - second).max()))
        first, second = (first + new_first) / 2, (second + new_second) / 2
        if change < ENOUGH * between.max():
            break
    return first, second


def _choice(routing: Routing, here: int) -> Choice:
    topology, structure = routing.topology, routing.topology.structure
    count = topology.routers
    everyone = np.arange(count)
    if isinstance(structure, Lines):
        place = structure.coordinates
        # A way is drawn anywhere on the axes where source and goal differ.
        same = place[everyone] == place[here]
        drawn = (same[None, :, :] | ~same[:, None, :]).all(axis=2)
        apart = _apart(place)
        around = apart[here][None, :] + apart.T
        minimal = apart[here]
    else:
        assert isinstance(structure, Groups)
        group = structure.group
        outside = group != group[here]
        drawn = np.ones((count, count), bool)
        around = np.where(outside, 2, 0)[None, :] + np.zeros((count, 1), np.int64)
        minimal = outside.astype(np.int64)
    around = np.where((everyone == here)[None, :] | ~drawn | (minimal == 0)[:, None], 0, around)
    return Choice(minimal, around.astype(np.int8), 1.0 / drawn.sum(axis=1))


def _apart(place: IntArray) -> IntArray:
    """(routers, routers) in how many coordinates two routers differ."""
    found: IntArray = (place[:, None, :] != place[None, :, :]).sum(axis=2)
    return found


def _worse(held: FloatArray, more: FloatArray, ports: IntArray, choice: Choice, threshold: int) -> FloatArray:
    """(goals, ways) chance that the minimal way's port is worse by more than the threshold."""
    found = np.zeros(choice.around.shape)
    used = np.unique(ports[ports >= 0])
    place = np.searchsorted(used, ports)
    flits = np.arange(held.shape[1])
    for least in np.unique(choice.minimal[choice.minimal > 0]):
        for most in np.unique(choice.around[choice.around > 0]):
            # More than (most * n + threshold) / least flits where the other port holds n.
            limit = np.minimum((most * flits + threshold) // least, held.shape[1] - 1)
            table = more[used][:, limit] @ held[used].T
            chosen = (choice.minimal == least)[:, None] & (choice.around == most)
            goals, ways = np.nonzero(chosen)
            different = ports[goals] != ports[ways]  # one port is never worse than itself
            found[goals, ways] = np.where(different, table[place[goals], place[ways]], 0.0)
    return found


def _held(mean: FloatArray, room: int) -> tuple[FloatArray, FloatArray]:
    """(links, flits) chance of so many flits, and of more, in Poisson's distribution cut off at `room`."""
    number = np.arange(room + 1)
    safe = np.maximum(mean, 1e-300)[:, None]
    chance = np.exp(number * np.log(safe) - safe - _log_factorials(room)[None, :])
    more = np.maximum(1.0 - np.cumsum(chance, axis=1), 0.0)
    chance[:, -1] += more[:, -1]
    more[:, -1] = 0.0
    return chance, more


@lru_cache(maxsize=8)
def _log_factorials(most: int) -> FloatArray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
