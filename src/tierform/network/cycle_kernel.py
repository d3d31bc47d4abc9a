# mypy: disable-error-code="untyped-decorator"
"""The rules of the cycle-level router: random numbers, allocators and routing, as compiled functions.

Arbitration and routing follow the input-queued virtual-channel router of Dally and Towles (chapters 16 to 19); details
such as which pointer moves when are those observed on BookSim2.  State is in two arrays: words `m` and
counters `c` (see :mod:`tierform.network.cycle_state` for the records).  This module imports Numba.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tierform.network.cycle_state import (
    AT_AXIS_PORT,
    AT_BEST,
    AT_GRANTED,
    AT_LAYER_OF,
    AT_OUT,
    AT_PACKET,
    AT_PLACE,
    AT_SCRATCH,
    AT_SHAPE,
    AXES,
    C_FIRST_ROUTE,
    C_PORT,
    C_ROUTER,
    C_ROUTES,
    C_VC,
    COMMIT,
    I_AXIS,
    I_CYCLIC,
    LAYERS,
    MODE,
    O_CYCLIC,
    O_OWN,
    OUT_SIZE,
    P_DIRECTION,
    P_GOAL,
    P_HOME,
    P_PART,
    P_RECORD,
    P_STAGE,
    P_VIA,
    R_NUMBER,
    RANDOM,
    ROUTERS,
    VCS,
    W_SIZE,
    W_USED,
)

WARMING, RUNNING, DRAINING = range(3)
IDLE, ROUTING, ALLOCATING, ACTIVE = range(4)
# Routing modes.
TABLE, XY_YX, ADAPTIVE_XY_YX, VALIANT, TORUS, TORUS_BALANCED, MINIMAL_ADAPTIVE, VALIANT_TORUS, GRID = range(9)
# Traffic kinds.
PERMUTATION, UNIFORM, SHARED_WEIGHTS, MATRIX, FLOWS = range(5)
ISLIP, INPUT_FIRST, OUTPUT_FIRST = range(3)
# What a candidate is: an escape (or the only way), a channel shared with packets that it must not wait for, so taken
# only with room in it, or an escape for when nothing is shared.
ESCAPE, SHARED, LAST_ESCAPE = range(3)
# A request is (input, output, priority or channel).
REQUEST = 3

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def random_word(c: Any) -> Any:
    """The next 64 random bits (splitmix64)."""
    state = np.uint64(c[RANDOM]) + np.uint64(0x9E3779B97F4A7C15)
    c[RANDOM] = np.int64(state)
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
def allocate(
    m: Any, kind: int, iterations: int, requests: int, ranked: bool, inputs: int, outputs: int, sides: int,
    grant: int, grant_step: int, accept: int, accept_step: int,
) -> None:  # fmt: skip
    """Match inputs to outputs; sets the granted word of each request that wins.

    `grant` and `accept` are the addresses of the first output's and input's round-robin pointers.  iSLIP (McKeown
    1999): outputs grant, inputs accept, pointers move in the first iteration only, priorities are ignored.  Separable,
    input or output first: each side arbitrates once; pointers move past final winners.
    """
    first = m[AT_SCRATCH]
    granted = m[AT_GRANTED]
    out_best = m[AT_BEST]
    out_pick = out_best + sides
    in_best = out_pick + sides
    in_pick = in_best + sides
    last = first + requests * REQUEST
    for k in range(requests):
        m[U(granted + k)] = 0
    for r in range(first, last, REQUEST):
        m[U(in_pick + m[U(r)])] = -1
        m[U(out_pick + m[U(r + 1)])] = -1
    if kind == ISLIP:
        for step in range(iterations):
            for r in range(first, last, REQUEST):
                i, o = m[U(r)], m[U(r + 1)]
                if m[U(out_pick + o)] >= 0 and m[U(in_pick + m[U(out_pick + o)])] != o:
                    m[U(out_pick + o)] = -1
                m[U(in_best + i)] = -1
                m[U(out_best + o)] = -1
            for r in range(first, last, REQUEST):
                i, o = m[U(r)], m[U(r + 1)]
                if m[U(in_pick + i)] >= 0 or (m[U(out_pick + o)] >= 0 and m[U(out_best + o)] < 0):
                    continue
                far = i - m[U(grant + o * grant_step)]
                if far < 0:
                    far += inputs
                if m[U(out_best + o)] < 0 or far < m[U(out_best + o)]:
                    m[U(out_best + o)] = far
                    m[U(out_pick + o)] = i
            for r in range(first, last, REQUEST):
                i, o = m[U(r)], m[U(r + 1)]
                if m[U(out_pick + o)] == i and m[U(in_pick + i)] < 0:
                    far = o - m[U(accept + i * accept_step)]
                    if far < 0:
                        far += outputs
                    if m[U(in_best + i)] < 0 or far < m[U(in_best + i)]:
                        m[U(in_best + i)] = far
            gained = False
            for k in range(requests):
                r = first + k * REQUEST
                i, o = m[U(r)], m[U(r + 1)]
                if m[U(out_pick + o)] == i and m[U(in_pick + i)] < 0:
                    far = o - m[U(accept + i * accept_step)]
                    if far < 0:
                        far += outputs
                    if far == m[U(in_best + i)]:
                        m[U(granted + k)] = 1
                        gained = True
                        m[U(in_pick + i)] = o
                        if step == 0:
                            m[U(grant + o * grant_step)] = i + 1 if i + 1 < inputs else 0
                            m[U(accept + i * accept_step)] = o + 1 if o + 1 < outputs else 0
            if not gained:
                break
        return
    # Separable: the first side keeps its best request, the second chooses among those kept.
    for side in range(2):
        by_input = (kind == INPUT_FIRST) == (side == 0)
        for k in range(requests):
            r = first + k * REQUEST
            i, o = m[U(r)], m[U(r + 1)]
            if side == 1 and m[U(granted + k)] == 0:
                continue
            rank = m[U(r + 2)] if ranked else 0
            if by_input:
                far = o - m[U(accept + i * accept_step)]
                far = (far + outputs if far < 0 else far) - rank * 1048576
                if m[U(in_pick + i)] < 0 or far < m[U(in_best + i)]:
                    m[U(in_best + i)] = far
                    m[U(in_pick + i)] = o
            else:
                far = i - m[U(grant + o * grant_step)]
                far = far + inputs if far < 0 else far
                if m[U(out_pick + o)] < 0 or far < m[U(out_best + o)]:
                    m[U(out_best + o)] = far
                    m[U(out_pick + o)] = i
        for k in range(requests):
            r = first + k * REQUEST
            i, o = m[U(r)], m[U(r + 1)]
            kept = m[U(in_pick + i)] == o if by_input else m[U(out_pick + o)] == i
            m[U(granted + k)] = 1 if kept and (side == 0 or m[U(granted + k)] == 1) else 0
    for k in range(requests):
        if m[U(granted + k)]:
            r = first + k * REQUEST
            i, o = m[U(r)], m[U(r + 1)]
            m[U(grant + o * grant_step)] = i + 1 if i + 1 < inputs else 0
            m[U(accept + i * accept_step)] = o + 1 if o + 1 < outputs else 0


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
def set_route(m: Any, channel: int, number: int, port: int, low: int, high: int, priority: int) -> None:
    """Write candidate `number` of a channel."""
    at = channel + C_FIRST_ROUTE + 4 * number
    m[U(at)] = port
    m[U(at + 1)] = low
    m[U(at + 2)] = high
    m[U(at + 3)] = priority


@njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)
def route(m: Any, c: Any, table: Any, channel: int, packet: int) -> None:
    """Write the output ports and ranges of virtual channels that the packet at the head of `channel` may take."""
    top = m[VCS] - 1
    at = m[AT_PACKET] + packet * P_RECORD
    home = m[U(at + P_HOME)]
    router = m[U(m[U(channel + C_ROUTER)] + R_NUMBER)]
    mode = m[MODE]
    m[U(channel + C_ROUTES)] = 1
    if mode == TABLE:
        if router == home:
            set_route(m, channel, 0, m[U(at + P_GOAL)], 0, top, 0)
        else:
            port = m[AT_OUT] + table[U(0), U(router), U(home)] * m[OUT_SIZE]
            layers = m[LAYERS]
            if layers == 1 or m[U(port + O_CYCLIC)] == 0:
                set_route(m, channel, 0, port, 0, top, 0)
            else:
                # The channels that all layers share, if one has room, and the escape of the destination's own layer.
                # A packet of several flits takes the escape only when it must, and then stays in it: what holds an
                # escape waits for escapes alone.  A packet of one flit holds nothing behind it and may come back.
                layer = m[U(m[AT_LAYER_OF] + home)]
                escaping = m[U(m[U(channel + C_PORT)] + I_CYCLIC)] != 0 and m[U(channel + C_VC)] < layers
                if top < layers or (escaping and m[COMMIT] != 0):
                    set_route(m, channel, 0, port, layer, layer, ESCAPE)
                else:
                    set_route(m, channel, 0, port, layers, top, SHARED)
                    set_route(m, channel, 1, port, layer, layer, LAST_ESCAPE if m[COMMIT] != 0 else ESCAPE)
                    m[U(channel + C_ROUTES)] = 2
        return
    if mode == GRID and router != home:
        # Dimension order from the coordinates: on a large mesh they stay in the cache, a table does not.
        axes = m[AXES]
        axis = 0
        place, goal = m[AT_PLACE] + router * axes, m[AT_PLACE] + home * axes
        while m[U(place + axis)] == m[U(goal + axis)]:
            axis += 1
        step = 2 * axis + (0 if m[U(place + axis)] < m[U(goal + axis)] else 1)
        set_route(m, channel, 0, m[U(m[AT_AXIS_PORT] + step * m[ROUTERS] + router)], 0, top, 0)
        return
    route_choice(m, c, table, channel, at, router, home, top)


@njit(cache=True, error_model="numpy", _nrt=False)
def route_choice(m: Any, c: Any, table: Any, channel: int, at: int, router: int, home: int, top: int) -> None:
    """Routing with choices: by chance, by load, or by the ring's dateline."""
    half = m[VCS] // 2
    mode = m[MODE]
    out, out_size = m[AT_OUT], m[OUT_SIZE]
    entering = m[U(m[U(channel + C_PORT)] + I_AXIS)] == -2
    if mode == VALIANT:
        if entering:
            m[U(at + P_PART)] = 0
            m[U(at + P_VIA)] = below(c, m[ROUTERS])
        if m[U(at + P_PART)] == 0 and router == m[U(at + P_VIA)]:
            m[U(at + P_PART)] = 1
        if m[U(at + P_PART)] == 0:
            port = out + table[0, router, m[U(at + P_VIA)]] * out_size
            set_route(m, channel, 0, port, 0, top - half, 0)
            return
        if router != home:
            set_route(m, channel, 0, out + table[U(0), U(router), U(home)] * out_size, half, top, 0)
            return
    if mode != VALIANT_TORUS and router == home:
        set_route(m, channel, 0, m[U(at + P_GOAL)], 0, top, 0)
        return
    if mode in (XY_YX, ADAPTIVE_XY_YX):
        if entering:
            part = 2
            if mode == ADAPTIVE_XY_YX:
                used = 0
                for v in range(m[VCS]):
                    used += m[U(m[U(out + table[U(0), U(router), U(home)] * out_size + O_OWN)] + v * W_SIZE + W_USED)]
                    used -= m[U(m[U(out + table[1, router, home] * out_size + O_OWN)] + v * W_SIZE + W_USED)]
                part = 0 if used < 0 else 1 if used > 0 else 2
            m[U(at + P_PART)] = below(c, 2) if part == 2 else part
        part = m[U(at + P_PART)]
        port = out + table[part, router, home] * out_size
        set_route(m, channel, 0, port, half if part else 0, top if part else top - half, 0)
        return
    axes = m[AXES]
    place, goal = m[AT_PLACE] + router * axes, m[AT_PLACE] + home * axes
    if mode == MINIMAL_ADAPTIVE:
        # The lowest channel is the escape, in dimension order; a packet in it stays in it.
        set_route(m, channel, 0, out + table[U(0), U(router), U(home)] * out_size, 0, 0, 0)
        if not entering and m[U(channel + C_VC)] == 0:
            return
        number = 1
        for axis in range(axes):
            if m[U(place + axis)] != m[U(goal + axis)]:
                step = 0 if m[U(place + axis)] < m[U(goal + axis)] else 1
                port = m[U(m[AT_AXIS_PORT] + (2 * axis + step) * m[ROUTERS] + router)]
                set_route(m, channel, number, port, 1, top, SHARED)
                number += 1
        m[U(channel + C_ROUTES)] = number
        return
    # Rings: a class of virtual channels per side of the dateline, and per phase for Valiant.
    aim = home
    if mode == VALIANT_TORUS:
        if entering:
            m[U(at + P_STAGE)] = 0
            m[U(at + P_VIA)] = below(c, m[ROUTERS])
        if m[U(at + P_STAGE)] == 0 and router == m[U(at + P_VIA)]:
            m[U(at + P_STAGE)] = 1
            entering = True
        if m[U(at + P_STAGE)] == 0:
            aim = m[U(at + P_VIA)]
        if router == aim:
            set_route(m, channel, 0, m[U(at + P_GOAL)], 0, top, 0)
            return
    goal = m[AT_PLACE] + aim * axes
    axis = 0
    while m[U(place + axis)] == m[U(goal + axis)]:
        axis += 1
    if entering or m[U(m[U(channel + C_PORT)] + I_AXIS)] != axis:
        size = m[U(m[AT_SHAPE] + axis)]
        direction, part = ring_turn(c, size, m[U(place + axis)], m[U(goal + axis)], mode == TORUS_BALANCED)
        m[U(at + P_DIRECTION)] = direction
        m[U(at + P_PART)] = part
    low, high = 0, top
    if m[U(at + P_PART)] == 0:
        high -= half
    else:
        low += half
    if mode == VALIANT_TORUS:
        if m[U(at + P_STAGE)] == 0:
            high -= half // 2
        else:
            low += half // 2
    set_route(
        m, channel, 0, m[U(m[AT_AXIS_PORT] + (2 * axis + m[U(at + P_DIRECTION)]) * m[ROUTERS] + router)], low, high, 0
    )
