# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Route computation with choices: by chance, by load, by the dateline of a ring, by way of another router.

Each function writes the candidates of the packet at the head of a channel.  A packet's own record holds what was drawn
for it: the part (order, phase, side of a dateline), the direction on a ring, the router that it goes by.
"""

from __future__ import annotations

import numpy as np

from tierform.arrays import Ints, Shorts, Words
from tierform.jit import compiled
from tierform.network.cycle import state as s
from tierform.network.cycle.draws import below
from tierform.network.cycle.modes import (
    ADAPTIVE_XY_YX,
    BY_NODE,
    ESCAPE,
    GROUPS,
    GROUPS_UGAL,
    MINIMAL_ADAPTIVE,
    MINIMAL_ADAPTIVE_TORUS,
    PLANAR_ADAPTIVE,
    ROMM,
    SHARED,
    SPREAD,
    SPREAD_ANY,
    SPREAD_LESS_LOADED,
    TORUS_BALANCED,
    UGAL,
    VALIANT,
    VALIANT_TORUS,
    XY_YX,
)
from tierform.network.cycle.routes import any_router, axis_port, port_to, ring_turn, set_half, set_route, used_behind

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64
# Credits by which the minimal way must be worse before UGAL leaves it: BookSim2's, on flattened butterflies and between
# groups.
UGAL_THRESHOLD, GROUP_THRESHOLD = 2, 30


@compiled
def route_choice(m: Words, c: Ints, table: Shorts, channel: int, at: int, router: int, home: int, top: int) -> None:
    """Routing by any mode but a plain table; `top` is the last virtual channel."""
    mode = m[s.MODE]
    entering = m[U(m[U(channel + s.C_PORT)] + s.I_AXIS)] == -2
    goal = m[U(at + s.P_GOAL)]
    if mode in (GROUPS, GROUPS_UGAL):
        between_groups(m, c, table, channel, at, router, home, entering)
    elif mode == UGAL:
        globally_adaptive(m, c, table, channel, at, router, home, top, entering)
    elif mode in (VALIANT, ROMM):
        by_way(m, c, table, channel, at, router, home, top, entering)
    elif mode == VALIANT_TORUS:
        on_rings(m, c, channel, at, router, home, top, entering)
    elif router == home:
        set_route(m, channel, 0, goal, 0, top, ESCAPE)
    elif mode == BY_NODE:
        set_route(m, channel, 0, port_to(m, table, m[U(goal + s.O_CYCLIC)], router, home), 0, top, ESCAPE)
    elif mode in (SPREAD, SPREAD_LESS_LOADED, SPREAD_ANY):
        spread(m, c, table, channel, router, home, top)
    elif mode in (XY_YX, ADAPTIVE_XY_YX):
        one_of_two_orders(m, c, table, channel, at, router, home, top, entering)
    elif mode == MINIMAL_ADAPTIVE:
        minimal_directions(m, table, channel, router, home, entering)
    elif mode == PLANAR_ADAPTIVE:
        adaptive_plane(m, channel, router, home, top)
    elif mode == MINIMAL_ADAPTIVE_TORUS:
        minimal_on_rings(m, c, channel, at, router, home, entering)
    else:
        on_rings(m, c, channel, at, router, home, top, entering)


@compiled
def spread(m: Words, c: Ints, table: Shorts, channel: int, router: int, home: int, top: int) -> None:
    """One of several links: any, the less loaded of two drawn, or (below zero: not) all of them."""
    port, number = port_to(m, table, 0, router, home), np.int64(table[1, router, home])
    size = m[s.OUT_SIZE]
    if number > 1 and m[s.MODE] == SPREAD_ANY:
        for choice in range(number):
            set_route(m, channel, choice, port + choice * size, 0, top, ESCAPE)
        m[U(channel + s.C_ROUTES)] = number
        return
    number = abs(number)
    if number > 1:
        first = port + below(c, number) * size
        if m[s.MODE] == SPREAD_LESS_LOADED:
            second = port + below(c, number) * size
            if used_behind(m, first) > used_behind(m, second):
                first = second
        port = first
    set_route(m, channel, 0, port, 0, top, ESCAPE)


@compiled
def one_of_two_orders(
    m: Words, c: Ints, table: Shorts, channel: int, at: int, router: int, home: int, top: int, entering: bool
) -> None:
    """Dimension order or the reverse, drawn or by load where the packet enters, each with half of the channels."""
    if entering:
        part = np.int64(2)
        if m[s.MODE] == ADAPTIVE_XY_YX:
            first = used_behind(m, port_to(m, table, 0, router, home))
            second = used_behind(m, port_to(m, table, 1, router, home))
            part = np.int64(0 if first < second else 1 if first > second else 2)
        m[U(at + s.P_PART)] = below(c, 2) if part == 2 else part
    part = m[U(at + s.P_PART)]
    set_half(m, channel, port_to(m, table, part, router, home), part)


@compiled
def place_between(m: Words, c: Ints, router: int, home: int, whole_line: bool) -> np.int64:
    """A random router between two: on each axis from one to the other, or anywhere where they differ (`whole_line`)."""
    axes = m[s.AXES]
    here, there = m[s.AT_PLACE] + router * axes, m[s.AT_PLACE] + home * axes
    found, stride = np.int64(router - router % m[s.ROUTERS]), np.int64(1)
    for axis in range(axes):
        a, b = np.int64(m[U(here + axis)]), np.int64(m[U(there + axis)])
        low, number = min(a, b), abs(a - b) + 1
        size = np.int64(m[U(m[s.AT_SHAPE] + axis)])
        if whole_line and number > 1:
            low, number = np.int64(0), size
        found += stride * (low + (below(c, number) if number > 1 else np.int64(0)))
        stride *= size
    return found


@compiled
def by_way(
    m: Words, c: Ints, table: Shorts, channel: int, at: int, router: int, home: int, top: int, entering: bool
) -> None:
    """Valiant and ROMM: first to a router drawn where the packet enters, then home, each with half of the channels."""
    if entering:
        m[U(at + s.P_PART)] = 0
        if m[s.MODE] == ROMM:
            m[U(at + s.P_VIA)] = place_between(m, c, router, home, False)
        else:
            m[U(at + s.P_VIA)] = any_router(m, c, router)
    if router == m[U(at + s.P_VIA)] or (router == home and m[s.STOP_AT_HOME]):
        m[U(at + s.P_PART)] = 1
    if m[U(at + s.P_PART)] == 0:
        set_half(m, channel, port_to(m, table, 0, router, m[U(at + s.P_VIA)]), 0)
    elif router != home:
        set_half(m, channel, port_to(m, table, 0, router, home), 1)
    else:
        set_route(m, channel, 0, m[U(at + s.P_GOAL)], 0, top, ESCAPE)


@compiled
def lines_apart(m: Words, router: int, home: int) -> np.int64:
    """In how many coordinates two routers differ."""
    axes = m[s.AXES]
    here, there = m[s.AT_PLACE] + router * axes, m[s.AT_PLACE] + home * axes
    apart = np.int64(0)
    for axis in range(axes):
        apart += np.int64(m[U(here + axis)] != m[U(there + axis)])
    return apart


@compiled
def globally_adaptive(
    m: Words, c: Ints, table: Shorts, channel: int, at: int, router: int, home: int, top: int, entering: bool
) -> None:
    """UGAL on a flattened butterfly: by way of a random router if hops times load of the minimal way are much more.

    Part 1 is the way to that router, with the lower half of the channels, part 2 the way home.
    """
    if entering and router != home:
        via = place_between(m, c, router, home, True)
        part = np.int64(2)
        if via != router:
            direct = lines_apart(m, router, home) * used_behind(m, port_to(m, table, 0, router, home))
            hops = lines_apart(m, router, via) + lines_apart(m, via, home)
            around = hops * used_behind(m, port_to(m, table, 0, router, via))
            if direct > around + UGAL_THRESHOLD:
                part = np.int64(1)
        m[U(at + s.P_PART)], m[U(at + s.P_VIA)] = part, via
    elif entering:
        m[U(at + s.P_PART)] = 2
    if m[U(at + s.P_PART)] == 1 and router == m[U(at + s.P_VIA)]:
        m[U(at + s.P_PART)] = 2
    if m[U(at + s.P_PART)] == 1:
        set_half(m, channel, port_to(m, table, 0, router, m[U(at + s.P_VIA)]), 0)
    elif router != home:
        set_half(m, channel, port_to(m, table, 0, router, home), 1)
    else:
        set_route(m, channel, 0, m[U(at + s.P_GOAL)], 0, top, ESCAPE)


@compiled
def between_groups(
    m: Words, c: Ints, table: Shorts, channel: int, at: int, router: int, home: int, entering: bool
) -> None:
    """Dragonflies: the part is the virtual channel, one higher from the link between groups on.

    UGAL starts in part 0 by way of a random router, or in part 1 minimally; in its own group a packet starts in the
    last part.
    """
    adaptive = m[s.MODE] == GROUPS_UGAL
    last = 2 if adaptive else 1
    size = m[s.GROUP_SIZE]
    if entering:
        part = np.int64(0)
        if adaptive:
            part = np.int64(1)
            if router // size == home // size:
                part = np.int64(2)
            else:
                via = any_router(m, c, router)
                m[U(at + s.P_VIA)] = via
                if via // size != router // size:
                    direct = used_behind(m, port_to(m, table, 0, router, home))
                    around = used_behind(m, port_to(m, table, 0, router, via))
                    if direct > 2 * around + GROUP_THRESHOLD:
                        part = np.int64(0)
        m[U(at + s.P_PART)] = part
    if adaptive and m[U(at + s.P_PART)] == 0 and router == m[U(at + s.P_VIA)]:
        m[U(at + s.P_PART)] = 1
    aim = m[U(at + s.P_VIA)] if adaptive and m[U(at + s.P_PART)] == 0 else home
    port = m[U(at + s.P_GOAL)]
    if router != aim:
        port = port_to(m, table, 0, router, aim)
        if m[U(port + s.O_CYCLIC)] and (not adaptive or m[U(at + s.P_PART)] == 1):
            m[U(at + s.P_PART)] = last
    part = np.int64(m[U(at + s.P_PART)])
    set_route(m, channel, 0, port, part, part, ESCAPE)


@compiled
def minimal_directions(m: Words, table: Shorts, channel: int, router: int, home: int, entering: bool) -> None:
    """All minimal directions of a mesh; the lowest channel is the escape, in dimension order, and is not left again."""
    axes = m[s.AXES]
    place, goal = m[s.AT_PLACE] + router * axes, m[s.AT_PLACE] + home * axes
    set_route(m, channel, 0, port_to(m, table, 0, router, home), 0, 0, ESCAPE)
    if not entering and m[U(channel + s.C_VC)] == 0:
        return
    number = 1
    for axis in range(axes):
        if m[U(place + axis)] != m[U(goal + axis)]:
            step = 0 if m[U(place + axis)] < m[U(goal + axis)] else 1
            port = axis_port(m, axis, step, router)
            set_route(m, channel, number, port, m[s.ADAPTIVE_LOW], m[s.ADAPTIVE_HIGH], SHARED)
            number += 1
    m[U(channel + s.C_ROUTES)] = number


@compiled
def adaptive_plane(m: Words, channel: int, router: int, home: int, top: int) -> None:
    """Planar adaptive routing (Chien and Kim, ISCA 1992): the first axis that differs, and the one after it.

    A third of the channels belongs to the first axis of a plane, a third each to the second one while the first
    increases or decreases.  A packet does not turn back.
    """
    axes, third = m[s.AXES], m[s.VCS] // 3
    place, goal = m[s.AT_PLACE] + router * axes, m[s.AT_PLACE] + home * axes
    axis = 0
    while m[U(place + axis)] == m[U(goal + axis)]:
        axis += 1
    down = 0 if m[U(place + axis)] < m[U(goal + axis)] else 1
    set_route(m, channel, 0, axis_port(m, axis, down, router), 2 * third, top, ESCAPE)
    after = axis + 1
    if after < axes and m[U(place + after)] != m[U(goal + after)]:
        step = 0 if m[U(place + after)] < m[U(goal + after)] else 1
        port = axis_port(m, after, step, router)
        if port != m[U(m[U(channel + s.C_PORT)] + s.I_BACK)]:
            set_route(m, channel, 1, port, down * third, (down + 1) * third - 1, ESCAPE)
            m[U(channel + s.C_ROUTES)] = 2


@compiled
def on_rings(m: Words, c: Ints, channel: int, at: int, router: int, home: int, top: int, entering: bool) -> None:
    """Dimension order on rings: half of the channels per side of the dateline, half of those per phase (Valiant)."""
    mode, axes, half = m[s.MODE], m[s.AXES], m[s.VCS] // 2
    aim = home
    if mode == VALIANT_TORUS:
        if entering:
            m[U(at + s.P_STAGE)] = 0
            m[U(at + s.P_VIA)] = any_router(m, c, router)
        if m[U(at + s.P_STAGE)] == 0 and router == m[U(at + s.P_VIA)]:
            m[U(at + s.P_STAGE)] = 1
            entering = True
        if m[U(at + s.P_STAGE)] == 0:
            aim = m[U(at + s.P_VIA)]
        if router == aim:
            set_route(m, channel, 0, m[U(at + s.P_GOAL)], 0, top, ESCAPE)
            return
    place, goal = m[s.AT_PLACE] + router * axes, m[s.AT_PLACE] + aim * axes
    axis = 0
    while m[U(place + axis)] == m[U(goal + axis)]:
        axis += 1
    if entering or m[U(m[U(channel + s.C_PORT)] + s.I_AXIS)] != axis:
        size = m[U(m[s.AT_SHAPE] + axis)]
        direction, part = ring_turn(c, size, m[U(place + axis)], m[U(goal + axis)], mode == TORUS_BALANCED)
        m[U(at + s.P_DIRECTION)] = direction
        m[U(at + s.P_PART)] = part
    part, port = m[U(at + s.P_PART)], axis_port(m, axis, m[U(at + s.P_DIRECTION)], router)
    if mode != VALIANT_TORUS:
        set_half(m, channel, port, part)
        return
    low, high = np.int64(0), np.int64(top)
    if part == 0:
        high -= half
    else:
        low += top + 1 - half
    quarter = (high - low + 1) // 2
    if m[U(at + s.P_STAGE)] == 0:
        high -= quarter
    else:
        low = high + 1 - quarter
    set_route(m, channel, 0, port, low, high, ESCAPE)


@compiled
def minimal_on_rings(m: Words, c: Ints, channel: int, at: int, router: int, home: int, entering: bool) -> None:
    """All minimal directions of a torus; channels 0 and 1 are the escape, in dimension order with a dateline."""
    axes = m[s.AXES]
    place, goal = m[s.AT_PLACE] + router * axes, m[s.AT_PLACE] + home * axes
    escaped = not entering and m[U(channel + s.C_VC)] < 2
    axis = 0
    while m[U(place + axis)] == m[U(goal + axis)]:
        axis += 1
    size = m[U(m[s.AT_SHAPE] + axis)]
    if not escaped or m[U(m[U(channel + s.C_PORT)] + s.I_AXIS)] != axis:
        direction, part = ring_turn(c, size, m[U(place + axis)], m[U(goal + axis)], False)
        m[U(at + s.P_DIRECTION)] = direction
        m[U(at + s.P_PART)] = part
    vc = m[U(at + s.P_PART)]
    set_route(m, channel, 0, axis_port(m, axis, m[U(at + s.P_DIRECTION)], router), vc, vc, ESCAPE)
    if escaped:
        return
    number = 1
    for axis in range(axes):
        a, b = m[U(place + axis)], m[U(goal + axis)]
        if a != b:
            size = m[U(m[s.AT_SHAPE] + axis)]
            step = 0 if size > 2 * ((b - a + size) % size) else 1
            port = axis_port(m, axis, step, router)
            set_route(m, channel, number, port, m[s.ADAPTIVE_LOW], m[s.ADAPTIVE_HIGH], SHARED)
            number += 1
    m[U(channel + s.C_ROUTES)] = number
