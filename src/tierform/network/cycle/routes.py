# mypy: disable-error-code="untyped-decorator, no-any-return"
"""What route computation is made of: ports by table and by coordinates, turns on rings, loads, candidates."""

from __future__ import annotations

import numpy as np

from tierform.arrays import Ints, Shorts, Words
from tierform.jit import compiled, inlined
from tierform.network.cycle import state as s
from tierform.network.cycle.draws import below
from tierform.network.cycle.modes import ESCAPE, LAST_ESCAPE, SHARED

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64


@compiled
def ring_turn(c: Ints, size: int, here: int, there: int, balanced: bool) -> tuple[int, int]:
    """Direction (0 forwards, 1 backwards) and virtual-channel class for a packet that enters a ring."""
    twice = size - 2 * ((there - here + size) % size)
    direction = 0 if twice > 0 or (twice == 0 and below(c, 2) == 1) else 1
    if balanced:
        half = (size - 1) // 2
        if (direction == 0 and here > there) or (direction == 1 and here < there):
            return direction, 1
        if (direction == 0 and here <= half < there) or (direction == 1 and there <= half < here):
            return direction, 0
        return direction, below(c, 2)
    return direction, (1 if here > there else 0)


@inlined
def port_to(m: Words, table: Shorts, part: int, router: int, home: int) -> int:
    """The output port of `router` that leads to router `home`, by a routing table."""
    return m[U(m[s.AT_FIRST_OUT] + router)] + table[U(part), U(router), U(home)] * m[s.OUT_SIZE]


@inlined
def port_by_place(m: Words, router: int, home: int) -> int:
    """The output port towards another router in dimension order, from coordinates.

    They stay in the cache, where a large network's table does not.
    """
    axes = m[s.AXES]
    axis = 0
    place, goal = m[s.AT_PLACE] + router * axes, m[s.AT_PLACE] + home * axes
    while m[U(place + axis)] == m[U(goal + axis)]:
        axis += 1
    step = 2 * axis + (0 if m[U(place + axis)] < m[U(goal + axis)] else 1)
    return m[U(m[s.AT_AXIS_PORT] + step * m[s.ALL_ROUTERS] + router)]


@inlined
def set_route(m: Words, channel: int, number: int, port: int, low: int, high: int, priority: int) -> None:
    """Write candidate `number` of a channel."""
    at = channel + s.C_ROUTE - s.ROUTE_SIZE * number
    m[U(at)] = port
    m[U(at + 1)] = low
    m[U(at + 2)] = high
    m[U(at + 3)] = priority


@compiled
def set_half(m: Words, channel: int, port: int, part: int) -> None:
    """The lower (0) or upper half of the virtual channels of a port.

    Of an odd number the one in the middle is shared by both halves, and is taken only with room in it.  A packet of
    several flits that is in a half stays in halves: what holds such a channel waits for such channels alone.
    """
    vcs = np.int64(m[s.VCS])
    half = vcs // 2
    low = vcs - half if part else np.int64(0)
    if vcs == 2 * half:
        set_route(m, channel, 0, port, low, low + half - 1, ESCAPE)
        return
    entering = m[U(m[U(channel + s.C_PORT)] + s.I_AXIS)] == -2
    if m[s.COMMIT] != 0 and not entering and m[U(channel + s.C_VC)] != half:
        set_route(m, channel, 0, port, low, low + half - 1, ESCAPE)
        return
    set_route(m, channel, 0, port, half, half, SHARED)
    set_route(m, channel, 1, port, low, low + half - 1, LAST_ESCAPE if m[s.COMMIT] != 0 else ESCAPE)
    m[U(channel + s.C_ROUTES)] = 2


@compiled
def used_behind(m: Words, port: int) -> np.int64:
    """How many flits the buffer behind an output port holds, as far as its credits tell."""
    used = np.int64(0)
    first = m[U(port + s.O_OWN)]
    for own in range(first, first + m[s.VCS] * s.W_SIZE, s.W_SIZE):
        used += m[U(own + s.W_USED)]
    return used


@compiled
def any_router(m: Words, c: Ints, router: int) -> int:
    """A random router of the subnet in which `router` is."""
    return router - router % m[s.ROUTERS] + below(c, m[s.ROUTERS])


@compiled
def axis_port(m: Words, axis: int, direction: int, router: int) -> int:
    """The output port of `router` along an axis, forwards (0) or backwards (1)."""
    return m[U(m[s.AT_AXIS_PORT] + (2 * axis + direction) * m[s.ALL_ROUTERS] + router)]
