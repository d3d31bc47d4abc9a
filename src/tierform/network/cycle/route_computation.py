# mypy: disable-error-code="untyped-decorator"
"""What both kinds of router share: random numbers and route computation, as compiled functions.

The router is the input-queued virtual-channel router of Dally and Towles (chapters 16 to 19); details such as which
pointer moves when are those observed on BookSim2.  State is in two arrays: words `m` and
counters `c` (see :mod:`tierform.network.cycle.state` for the records).  This module imports Numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tierform.network.cycle import state as s
from tierform.network.cycle.modes import (
    ADAPTIVE_XY_YX,
    ESCAPE,
    GRID,
    LAST_ESCAPE,
    MINIMAL_ADAPTIVE,
    SHARED,
    TABLE,
    TORUS_BALANCED,
    VALIANT,
    VALIANT_TORUS,
    XY_YX,
)

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def random_word(c: Any) -> Any:
    """The next 64 random bits (splitmix64)."""
    state = np.uint64(c[s.RANDOM]) + np.uint64(0x9E3779B97F4A7C15)
    c[s.RANDOM] = np.int64(state)
    word = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def fraction(c: Any) -> Any:
    """A random number in [0, 1)."""
    return np.float64(random_word(c) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def below(c: Any, bound: int) -> Any:
    """A random integer from 0 to bound - 1."""
    return np.int64(((random_word(c) >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@njit(cache=True, error_model="numpy", _nrt=False)
def geometric(c: Any, inverse_log: float) -> Any:
    """Cycles to the next success of a Bernoulli trial per cycle; `inverse_log` is 1 / log(1 - rate), 0 for rate 1."""
    return np.int64(1) + np.int64(np.log(1.0 - fraction(c)) * inverse_log)


@njit(cache=True, error_model="numpy", _nrt=False)
def ring_turn(c: Any, size: int, here: int, there: int, balanced: bool) -> Any:
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


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def port_to(m: Any, table: Any, part: int, router: int, home: int) -> Any:
    """The output port of `router` that leads to router `home`, by a routing table."""
    return m[U(m[s.AT_FIRST_OUT] + router)] + table[U(part), U(router), U(home)] * m[s.OUT_SIZE]


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def port_by_place(m: Any, router: int, home: int) -> Any:
    """The output port towards another router in dimension order, from coordinates.

    They stay in the cache, where a large network's table does not.
    """
    axes = m[s.AXES]
    axis = 0
    place, goal = m[s.AT_PLACE] + router * axes, m[s.AT_PLACE] + home * axes
    while m[U(place + axis)] == m[U(goal + axis)]:
        axis += 1
    step = 2 * axis + (0 if m[U(place + axis)] < m[U(goal + axis)] else 1)
    return m[U(m[s.AT_AXIS_PORT] + step * m[s.ROUTERS] + router)]


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def set_route(m: Any, channel: int, number: int, port: int, low: int, high: int, priority: int) -> None:
    """Write candidate `number` of a channel."""
    at = channel + s.C_ROUTE - s.ROUTE_SIZE * number
    m[U(at)] = port
    m[U(at + 1)] = low
    m[U(at + 2)] = high
    m[U(at + 3)] = priority


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def route(m: Any, c: Any, table: Any, channel: int, packet: int) -> None:
    """Write the output ports and ranges of virtual channels that the packet at the head of `channel` may take."""
    top = m[s.VCS] - 1
    at = m[s.AT_PACKET] + packet * s.P_RECORD
    tree = m[U(at + s.P_TREE)]
    if tree != 0:
        m[U(channel + s.C_ROUTES)] = 1
        set_route(m, channel, 0, m[U(tree + 1 + 2 * m[U(channel + s.C_BRANCH)])], 0, top, 0)
        return
    m[U(at + s.P_HOPS)] += 1
    home = m[U(at + s.P_HOME)]
    router = m[U(channel + s.C_NUMBER)]
    mode = m[s.MODE]
    m[U(channel + s.C_ROUTES)] = 1
    if mode == TABLE:
        if router == home:
            set_route(m, channel, 0, m[U(at + s.P_GOAL)], 0, top, 0)
        else:
            port = port_to(m, table, 0, router, home)
            layers = m[s.LAYERS]
            if layers == 1 or m[U(port + s.O_CYCLIC)] == 0:
                set_route(m, channel, 0, port, 0, top, 0)
            else:
                # The channels that all layers share, if one has room, and the escape of the destination's own layer.
                # A packet of several flits takes the escape only when it must, and then stays in it: what holds an
                # escape waits for escapes alone.  A packet of one flit holds nothing behind it and may come back.
                layer = m[U(m[s.AT_LAYER_OF] + home)]
                escaping = m[U(m[U(channel + s.C_PORT)] + s.I_CYCLIC)] != 0 and m[U(channel + s.C_VC)] < layers
                if top < layers or (escaping and m[s.COMMIT] != 0):
                    set_route(m, channel, 0, port, layer, layer, ESCAPE)
                else:
                    set_route(m, channel, 0, port, layers, top, SHARED)
                    set_route(m, channel, 1, port, layer, layer, LAST_ESCAPE if m[s.COMMIT] != 0 else ESCAPE)
                    m[U(channel + s.C_ROUTES)] = 2
        return
    if mode == GRID and router != home:
        set_route(m, channel, 0, port_by_place(m, router, home), 0, top, 0)
        return
    route_choice(m, c, table, channel, at, router, home, top)


@njit(cache=True, error_model="numpy", _nrt=False)
def route_choice(m: Any, c: Any, table: Any, channel: int, at: int, router: int, home: int, top: int) -> None:
    """Routing with choices: by chance, by load, or by the ring's dateline."""
    half = m[s.VCS] // 2
    mode = m[s.MODE]
    entering = m[U(m[U(channel + s.C_PORT)] + s.I_AXIS)] == -2
    if mode == VALIANT:
        if entering:
            m[U(at + s.P_PART)] = 0
            m[U(at + s.P_VIA)] = below(c, m[s.ROUTERS])
        if m[U(at + s.P_PART)] == 0 and router == m[U(at + s.P_VIA)]:
            m[U(at + s.P_PART)] = 1
        if m[U(at + s.P_PART)] == 0:
            port = port_to(m, table, 0, router, m[U(at + s.P_VIA)])
            set_route(m, channel, 0, port, 0, top - half, 0)
            return
        if router != home:
            set_route(m, channel, 0, port_to(m, table, 0, router, home), half, top, 0)
            return
    if mode != VALIANT_TORUS and router == home:
        set_route(m, channel, 0, m[U(at + s.P_GOAL)], 0, top, 0)
        return
    if mode in (XY_YX, ADAPTIVE_XY_YX):
        if entering:
            part = 2
            if mode == ADAPTIVE_XY_YX:
                used = 0
                for v in range(m[s.VCS]):
                    used += m[U(m[U(port_to(m, table, 0, router, home) + s.O_OWN)] + v * s.W_SIZE + s.W_USED)]
                    used -= m[U(m[U(port_to(m, table, 1, router, home) + s.O_OWN)] + v * s.W_SIZE + s.W_USED)]
                part = 0 if used < 0 else 1 if used > 0 else 2
            m[U(at + s.P_PART)] = below(c, 2) if part == 2 else part
        part = m[U(at + s.P_PART)]
        port = port_to(m, table, part, router, home)
        set_route(m, channel, 0, port, half if part else 0, top if part else top - half, 0)
        return
    axes = m[s.AXES]
    place, goal = m[s.AT_PLACE] + router * axes, m[s.AT_PLACE] + home * axes
    if mode == MINIMAL_ADAPTIVE:
        # The lowest channel is the escape, in dimension order; a packet in it stays in it.
        set_route(m, channel, 0, port_to(m, table, 0, router, home), 0, 0, 0)
        if not entering and m[U(channel + s.C_VC)] == 0:
            return
        number = 1
        for axis in range(axes):
            if m[U(place + axis)] != m[U(goal + axis)]:
                step = 0 if m[U(place + axis)] < m[U(goal + axis)] else 1
                port = m[U(m[s.AT_AXIS_PORT] + (2 * axis + step) * m[s.ROUTERS] + router)]
                set_route(m, channel, number, port, 1, top, SHARED)
                number += 1
        m[U(channel + s.C_ROUTES)] = number
        return
    # Rings: a class of virtual channels per side of the dateline, and per phase for Valiant.
    aim = home
    if mode == VALIANT_TORUS:
        if entering:
            m[U(at + s.P_STAGE)] = 0
            m[U(at + s.P_VIA)] = below(c, m[s.ROUTERS])
        if m[U(at + s.P_STAGE)] == 0 and router == m[U(at + s.P_VIA)]:
            m[U(at + s.P_STAGE)] = 1
            entering = True
        if m[U(at + s.P_STAGE)] == 0:
            aim = m[U(at + s.P_VIA)]
        if router == aim:
            set_route(m, channel, 0, m[U(at + s.P_GOAL)], 0, top, 0)
            return
    goal = m[s.AT_PLACE] + aim * axes
    axis = 0
    while m[U(place + axis)] == m[U(goal + axis)]:
        axis += 1
    if entering or m[U(m[U(channel + s.C_PORT)] + s.I_AXIS)] != axis:
        size = m[U(m[s.AT_SHAPE] + axis)]
        direction, part = ring_turn(c, size, m[U(place + axis)], m[U(goal + axis)], mode == TORUS_BALANCED)
        m[U(at + s.P_DIRECTION)] = direction
        m[U(at + s.P_PART)] = part
    low, high = 0, top
    if m[U(at + s.P_PART)] == 0:
        high -= half
    else:
        low += half
    if mode == VALIANT_TORUS:
        if m[U(at + s.P_STAGE)] == 0:
            high -= half // 2
        else:
            low += half // 2
    set_route(
        m,
        channel,
        0,
        m[U(m[s.AT_AXIS_PORT] + (2 * axis + m[U(at + s.P_DIRECTION)]) * m[s.ROUTERS] + router)],
        low,
        high,
        0,
    )
