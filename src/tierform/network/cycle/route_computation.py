# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Route computation of both kinds of router: by table or by coordinates here, with choices in a module of its own.

The router is the input-queued virtual-channel router of Dally and Towles (chapters 16 to 19); details such as which
pointer moves when are those observed on BookSim2.  State is in two arrays: words `m` and
counters `c` (see :mod:`tierform.network.cycle.state` for the records).  This module imports Numba.
"""

from __future__ import annotations

import numpy as np

from tierform.arrays import Ints, Shorts, Words
from tierform.jit import inlined
from tierform.network.cycle import state as s
from tierform.network.cycle.modes import ESCAPE, GRID, LAST_ESCAPE, SHARED, TABLE
from tierform.network.cycle.route_choices import route_choice
from tierform.network.cycle.routes import port_by_place, port_to, set_route

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64


@inlined
def route(m: Words, c: Ints, table: Shorts, channel: int, packet: int) -> None:
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
                # The channels that all layers share, if one has room, and the escape of the packet's own layer.
                # A packet of several flits takes the escape only when it must, and then stays in it: what holds an
                # escape waits for escapes alone.  A packet of one flit holds nothing behind it and may come back.
                layer = np.int64(table[U(1), U(router), U(home)])
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
