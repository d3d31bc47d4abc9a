# mypy: disable-error-code="untyped-decorator, no-any-return"
"""The bitmask router, fast: one iteration of iSLIP in one cycle each for virtual channels and switch, no speedup.

What is asked for stands in bit masks, one bit per input channel of the router: at each output port those that want the
switch and those that want a virtual channel.  Round-robin is then "the first bit from the pointer on".  Ports with a
mask that is not zero are in a list for the whole network, so each stage is one loop over what is really asked for,
without tests of idle routers and almost without branches that depend on chance: a wrongly predicted branch costs more
than the whole work of a stage.

Within a cycle: credits and flits that arrive, sources, grants of the switch, allocation of virtual channels, sending.
Requests that are made in a stage count from the next cycle on, as all routers work at once.  A routed packet asks for a
virtual channel as many cycles later as its router's routing takes, so routing itself may be done when it asks.

A channel asks for virtual channels of one output port only; routing that offers several ports takes the general
router, and so does everything that :mod:`tierform.network.cycle.bitmask` excludes.
"""

from __future__ import annotations

import numpy as np

from tierform.arrays import Ints, Shorts, Words
from tierform.jit import compiled, inlined
from tierform.network.cycle import state as s
from tierform.network.cycle.bits import fetch_ahead, first_from, lowest_bit
from tierform.network.cycle.delay_lines import credit_line, due, flit_line, note, post, request_line
from tierform.network.cycle.draws import below
from tierform.network.cycle.modes import (
    GRID,
    LAST_ESCAPE,
    SHARED,
    TABLE,
    TORUS_TABLE,
)
from tierform.network.cycle.route_computation import route
from tierform.network.cycle.routes import port_by_place, port_to, set_half

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64
ONE = np.int64(1)
# How many entries of a list ahead its records are fetched into the cache.
AHEAD = 6


@inlined
def want(m: Words, b: Ints, busy: int, port: int, local: int) -> None:
    """The channel `local` of a router has a flit for `port`, and there is room for it."""
    at = (port >> 1) + s.O_WANT
    before = b[U(at)]
    b[U(at)] = before | (ONE << local)
    count = m[U(busy)] + 1
    m[U(busy + count)] = port
    m[U(busy)] = count - np.int64(before != 0)


@compiled
def take_credits(m: Words, b: Ints, c: Ints, now: int) -> None:
    """Free the buffer places whose credits have come; a channel that waited for one wants the switch again."""
    slot, busy = due(credit_line(m), now), m[s.AT_BUSY]
    signs = np.int64(0)
    for k in range(slot + 1, slot + 1 + m[U(slot)]):
        fetch_ahead(m, m[U(k + AHEAD)])
        own = m[U(k)]
        used = m[U(own + s.W_USED)]
        m[U(own + s.W_USED)] = used - 1
        signs |= used - 1
        if used == m[U(own + s.W_SLOTS)]:
            channel = m[U(own + s.W_OWNER)]
            if channel > s.TAIL_SENT and m[U(channel + s.C_FILL)] > 0:
                want(m, b, busy, m[U(own + s.W_PORT)], m[U(channel + s.C_LOCAL)])
    m[U(slot)] = 0
    if signs < 0:
        c[s.ERROR] = 2


@compiled
def take_flits(m: Words, b: Ints, now: int) -> None:
    """Count the flits that arrive at routers: the first in its channel asks for a virtual channel or for the switch."""
    slot, busy = due(flit_line(m, m[s.AT_FLITS]), now), m[s.AT_BUSY]
    asks, packets = request_line(m), m[s.AT_PACKET]
    for k in range(slot + 1, slot + 1 + m[U(slot)]):
        fetch_ahead(m, m[U(k + AHEAD)])
        channel = m[U(k)]
        fill = m[U(channel + s.C_FILL)]
        m[U(channel + s.C_FILL)] = fill + 1
        if fill == 0:
            word = m[U(channel + s.C_FLITS + m[U(channel + s.C_HEAD)])]
            if word & 2:
                fetch_ahead(m, packets + (word >> 2) * s.P_RECORD)
                note(m, asks, now + m[U(channel + s.C_ROUTING_DELAY)], channel, 1)
            else:
                own = m[U(channel + s.C_ASSIGNED)]
                if m[U(own + s.W_USED)] < m[U(own + s.W_SLOTS)]:
                    want(m, b, busy, m[U(own + s.W_PORT)], m[U(channel + s.C_LOCAL)])
    m[U(slot)] = 0


@compiled
def grant_switch(m: Words, b: Ints) -> np.int64:
    """First half of iSLIP for the switch: each output port grants one input.  Returns the number of inputs granted.

    Of an input's virtual channels that want the port, the first from the input's rotating offset counts.
    """
    vcs, in_size, channel_size = m[s.VCS], m[s.IN_SIZE], m[s.CHANNEL_SIZE]
    mask = (ONE << vcs) - 1
    busy, input_of, winners = m[s.AT_BUSY], m[s.AT_INPUT_OF], m[s.AT_WINNERS]
    count = np.int64(0)
    for k in range(busy + 1, busy + 1 + m[U(busy)]):
        port = m[U(k)]
        wanting = b[U((port >> 1) + s.O_WANT)]
        number = m[U(input_of + first_from(wanting, m[U(port + s.O_POINTER)]))]
        into = m[U(port + s.O_INPUTS)] + number * in_size
        vc = first_from((wanting >> (number * vcs)) & mask, m[U(into + s.I_OFFSET)])
        channel = m[U(into + s.I_CHANNEL)] + vc * channel_size
        fetch_ahead(m, channel)
        m[U(port + s.O_PICK)] = channel
        offers = b[U((into >> 1) + s.I_OFFERS)]
        b[U((into >> 1) + s.I_OFFERS)] = offers | (ONE << m[U(port + s.O_LOCAL)])
        m[U(winners + count)] = into
        count += np.int64(offers == 0)
    return count


@compiled
def accept_grants(m: Words, b: Ints, count: int) -> None:
    """Second half: each granted input accepts one output.  Lists (input port, output port, channel) of each flit."""
    vcs, out_size, sender = m[s.VCS], m[s.OUT_SIZE], m[s.AT_SENDERS]
    for k in range(m[s.AT_WINNERS], m[s.AT_WINNERS] + count):
        into = m[U(k)]
        offers = b[U((into >> 1) + s.I_OFFERS)]
        b[U((into >> 1) + s.I_OFFERS)] = 0
        local = first_from(offers, m[U(into + s.I_ACCEPT)])
        port = m[U(into + s.I_OUTPUTS)] + local * out_size
        channel = m[U(port + s.O_PICK)]
        # Pointers stand behind the winner (also where that is the end: then the first is next).
        m[U(port + s.O_POINTER)] = m[U(into + s.I_AFTER)]
        m[U(into + s.I_ACCEPT)] = local + 1
        m[U(into + s.I_OFFSET)] = m[U(channel + s.C_LOCAL)] + 1 - (m[U(into + s.I_AFTER)] - vcs)
        fetch_ahead(m, m[U(channel + s.C_ASSIGNED)])
        m[U(sender)] = into
        m[U(sender + 1)] = port
        m[U(sender + 2)] = channel
        sender += 3


@compiled
def send(m: Words, b: Ints, count: int, now: int) -> None:
    """Move the front flit of each accepted channel to the next router's buffer."""
    depth, sender = m[s.DEPTH], m[s.AT_SENDERS]
    _, mask, stride = flit_line(m, m[s.AT_FLITS])
    credits, asks = credit_line(m), request_line(m)
    for k in range(sender, sender + 3 * count, 3):
        into, port, channel = m[U(k)], m[U(k + 1)], m[U(k + 2)]
        # The flit leaves the buffer; its place is credited to whoever feeds the channel.
        head = m[U(channel + s.C_HEAD)]
        word = m[U(channel + s.C_FLITS + head)]
        m[U(channel + s.C_HEAD)] = head + 1 if head + 1 < depth else 0
        fill = m[U(channel + s.C_FILL)] - 1
        m[U(channel + s.C_FILL)] = fill
        note(m, credits, now + m[U(into + s.I_CREDIT_DELAY)], m[U(channel + s.C_FEEDER)], 1)
        own = m[U(channel + s.C_ASSIGNED)]
        used = m[U(own + s.W_USED)] + 1
        m[U(own + s.W_USED)] = used
        m[U(own + s.W_FLITS)] += 1
        line = (m[U(port + s.O_LINE)], mask, stride)
        post(m, line, own, word, now + m[U(port + s.O_SEND_DELAY)], depth)
        # Afterwards: a tail frees its virtual channel, and the packet behind it, if there is one, asks for one.
        tail = np.int64(word & 1)
        more = np.int64(fill > 0)
        stays = more & (tail ^ 1) & np.int64(used < m[U(own + s.W_SLOTS)])
        b[U((port >> 1) + s.O_WANT)] &= ~((stays ^ 1) << np.int64(m[U(channel + s.C_LOCAL)]))
        b[U((port >> 1) + s.O_FREE)] |= tail << ((own - m[U(port + s.O_OWN)]) // s.W_SIZE)
        m[U(own + s.W_OWNER)] = m[U(own + s.W_OWNER)] * (tail ^ 1)
        note(m, asks, now + 1 + m[U(into + s.I_ROUTING_DELAY)], channel, tail & more)
    # Keep the ports for which something is left.
    busy = m[s.AT_BUSY]
    kept = busy + 1
    for k in range(busy + 1, busy + 1 + m[U(busy)]):
        port = m[U(k)]
        m[U(kept)] = port
        kept += np.int64(b[U((port >> 1) + s.O_WANT)] != 0)
    m[U(busy)] = kept - busy - 1


@inlined
def turn_by_table(m: Words, c: Ints, table: Shorts, channel: int, packet: int) -> np.int64:
    """Dimension order on rings: straight ahead on an axis, by the table of turns (see build) where the next begins."""
    at = m[s.AT_PACKET] + packet * s.P_RECORD
    m[U(at + s.P_HOPS)] += 1
    home, here = m[U(at + s.P_HOME)], m[U(channel + s.C_NUMBER)]
    into = m[U(channel + s.C_PORT)]
    turn = np.int64(table[0, U(here), U(home)])
    port, part = np.int64(m[U(into + s.I_AHEAD)]), np.int64(m[U(at + s.P_PART)])
    if (turn >> 9) & 7 != m[U(into + s.I_AXIS)]:
        local = turn & 255
        if turn >> 12:
            local ^= below(c, 2)
        part = (turn >> 8) & 1
        port = m[U(m[s.AT_FIRST_OUT] + here)] + local * m[s.OUT_SIZE]
        m[U(at + s.P_PART)] = part
    vcs = m[s.VCS]
    half = vcs // 2
    low, high = half * part, half - 1 + half * part
    m[U(channel + s.C_ROUTES)] = 1
    if here == home:
        port, low, high = np.int64(m[U(at + s.P_GOAL)]), np.int64(0), np.int64(vcs - 1)
    elif vcs & 1:
        set_half(m, channel, port, part)
        return port
    candidate = channel + s.C_ROUTE
    m[U(candidate + 1)] = low
    m[U(candidate + 2)] = high
    return port


@inlined
def route_one_port(m: Words, c: Ints, table: Shorts, channel: int) -> np.int64:
    """The output port that the packet at the front of `channel` takes, where it is not simply looked up."""
    packet = m[U(channel + s.C_FLITS + m[U(channel + s.C_HEAD)])] >> 2
    if m[s.MODE] == GRID:
        at = m[s.AT_PACKET] + packet * s.P_RECORD
        m[U(at + s.P_HOPS)] += 1
        home, here = m[U(at + s.P_HOME)], m[U(channel + s.C_NUMBER)]
        return np.int64(m[U(at + s.P_GOAL)] if here == home else port_by_place(m, here, home))
    if m[s.MODE] == TORUS_TABLE:
        return turn_by_table(m, c, table, channel, packet)
    route(m, c, table, channel, packet)
    return np.int64(m[U(channel + s.C_ROUTE)])


@compiled
def asked_for(m: Words, port: int, channel: int, free: np.int64) -> np.int64:
    """Which of the free virtual channels of `port` a packet asks for, where routing gives it only some of them."""
    candidate = channel + s.C_ROUTE
    if m[U(channel + s.C_ROUTES)] == 1:
        low, high = np.int64(m[U(candidate + 1)]), np.int64(m[U(candidate + 2)])
        return free & (((ONE << (high - low + 1)) - 1) << low)
    asked = np.int64(0)
    for _ in range(m[U(channel + s.C_ROUTES)]):
        low, high, kind = m[U(candidate + 1)], m[U(candidate + 2)], m[U(candidate + 3)]
        own = m[U(port + s.O_OWN)] + low * s.W_SIZE
        if kind != LAST_ESCAPE or asked == 0:
            for vc in range(low, high + 1):
                if kind != SHARED or m[U(own + s.W_USED)] < m[U(own + s.W_SLOTS)]:
                    asked |= free & (ONE << vc)
                own += s.W_SIZE
        candidate -= s.ROUTE_SIZE
    return asked


@inlined
def take_channel(m: Words, b: Ints, busy: int, vcs: int, port: int, channel: int, local: int, offers: int) -> None:
    """Second half of iSLIP for virtual channels: a channel accepts one of those that `port` offers it."""
    # Round-robin counts over all the router's out channels; only those of this port are on offer.
    first = m[U(port + s.O_FIRST_OWN)]
    start = m[U(channel + s.C_ACCEPT)] - first
    vc = first_from(offers, start * np.int64(U(start) < U(vcs)))
    own = m[U(port + s.O_OWN)] + vc * s.W_SIZE
    m[U(own + s.W_GRANT)] = local + 1
    m[U(channel + s.C_ACCEPT)] = first + vc + 1
    m[U(channel + s.C_ASSIGNED)] = own
    m[U(own + s.W_OWNER)] = channel
    fetch_ahead(m, m[U(own + s.W_TARGET)])
    b[U((port >> 1) + s.O_FREE)] &= ~(ONE << vc)
    if m[U(own + s.W_USED)] < m[U(own + s.W_SLOTS)]:
        want(m, b, busy, port, local)


@compiled
def share_out(
    m: Words, b: Ints, busy: int, vcs: int, port: int, asking: np.int64, free: np.int64, classes: bool
) -> np.int64:
    """Allocation where several channels ask one port: first all grants, then all acceptances.  Returns who goes on."""
    first, size = m[U(port + s.O_CHANNELS)], m[s.CHANNEL_SIZE]
    offers, asked = m[s.AT_OFFERS], m[s.AT_ASKED]
    offered = np.int64(0)
    rest = asking if classes else np.int64(0)
    while rest != 0:
        local = lowest_bit(rest)
        rest &= rest - 1
        m[U(asked + local)] = asked_for(m, port, first + local * size, free)
    while free != 0:
        vc = lowest_bit(free)
        free &= free - 1
        able = asking
        if classes:
            rest = asking
            while rest != 0:
                local = lowest_bit(rest)
                rest &= rest - 1
                if (m[U(asked + local)] >> vc) & 1 == 0:
                    able &= ~(ONE << local)
            if able == 0:
                continue
        local = first_from(able, m[U(m[U(port + s.O_OWN)] + vc * s.W_SIZE + s.W_GRANT)])
        m[U(offers + local)] = (m[U(offers + local)] if (offered >> local) & 1 else 0) | (ONE << vc)
        offered |= ONE << local
    rest = offered
    while rest != 0:
        local = lowest_bit(rest)
        rest &= rest - 1
        take_channel(m, b, busy, vcs, port, first + local * size, local, m[U(offers + local)])
    return asking & ~offered


@compiled
def allocate_channels(m: Words, b: Ints, c: Ints, table: Shorts, now: int) -> None:
    """Virtual-channel allocation: packets routed for this cycle join those that still ask, and ports serve them."""
    slot, busy, vcs = due(request_line(m), now), m[s.AT_BUSY], m[s.VCS]
    mode, packets = m[s.MODE], m[s.AT_PACKET]
    plain = mode == TABLE and m[s.LAYERS] == 1
    asking = m[s.AT_ASKING]
    last = asking + 1 + m[U(asking)]
    for k in range(slot + 1, slot + 1 + m[U(slot)]):
        fetch_ahead(m, m[U(k + AHEAD)])
        channel = m[U(k)]
        if plain:
            # Both ways are looked up, the goal and the table, so that no branch depends on chance.
            at = packets + (m[U(channel + s.C_FLITS + m[U(channel + s.C_HEAD)])] >> 2) * s.P_RECORD
            m[U(at + s.P_HOPS)] += 1
            home, here = m[U(at + s.P_HOME)], m[U(channel + s.C_NUMBER)]
            goal, onwards = m[U(at + s.P_GOAL)], port_to(m, table, 0, here, home)
            port = goal if here == home else onwards
        else:
            port = route_one_port(m, c, table, channel)
        fetch_ahead(m, m[U(port + s.O_OWN)])
        fetch_ahead(m, m[U(port + s.O_OWN)] + s.LINE)
        before = b[U((port >> 1) + s.O_ASK)]
        b[U((port >> 1) + s.O_ASK)] = before | (ONE << np.int64(m[U(channel + s.C_LOCAL)]))
        m[U(last)] = port
        last += np.int64(before == 0)
    m[U(slot)] = 0
    kept = asking + 1
    classes = not plain and mode != GRID
    for k in range(asking + 1, last):
        port = m[U(k)]
        waiting, free = b[U((port >> 1) + s.O_ASK)], b[U((port >> 1) + s.O_FREE)]
        if waiting & (waiting - 1):
            waiting = share_out(m, b, busy, vcs, port, waiting, free, classes)
        else:
            # One packet asks: every free virtual channel is granted to it.
            local = lowest_bit(waiting)
            channel = m[U(port + s.O_CHANNELS)] + local * m[s.CHANNEL_SIZE]
            offers = free
            if classes:
                offers = asked_for(m, port, channel, free)
            if offers != 0:
                take_channel(m, b, busy, vcs, port, channel, local, offers)
                waiting = np.int64(0)
        b[U((port >> 1) + s.O_ASK)] = waiting
        m[U(kept)] = port
        kept += np.int64(waiting != 0)
    m[U(asking)] = kept - asking - 1
