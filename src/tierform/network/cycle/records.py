"""Fill the records of a simulation's memory: how routers, ports, channels and nodes point at each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tierform.arrays import Flags
from tierform.network.cycle import state as s
from tierform.network.cycle.state import Memory
from tierform.network.cycle.wires import Ports, Wires
from tierform.network.parameters import RouterParameters
from tierform.network.topology import FloatArray, IntArray


def fill_routers(memory: Memory, wires: Wires, routers: Sequence[RouterParameters], plug: Ports) -> None:
    """Routers: where their records, lists and delays are."""
    words = memory.words
    vcs, channel_size = int(words[s.VCS]), int(words[s.CHANNEL_SIZE])
    record = memory.section(s.AT_ROUTER, wires.routers, s.R_SIZE)
    record[:, s.R_CHANNEL] = int(words[s.AT_CHANNEL]) + plug.in_base[:-1].astype(np.int64) * vcs * channel_size
    record[:, s.R_OWN] = int(words[s.AT_OWN]) + plug.out_base[:-1].astype(np.int64) * vcs * s.W_SIZE
    record[:, s.R_INPUTS], record[:, s.R_OUTPUTS] = np.diff(plug.in_base), np.diff(plug.out_base)
    for place, name in (
        (s.R_ROUTING_DELAY, "routing_delay"),
        (s.R_VC_DELAY, "vc_alloc_delay"),
        (s.R_SWITCH_DELAY, "switch_alloc_delay"),
        (s.R_CROSSBAR_DELAY, "crossbar_delay"),
        (s.R_CREDIT_DELAY, "credit_delay"),
    ):
        record[:, place] = [getattr(router, name) for router in routers]
    channels = (wires.links + wires.nodes) * vcs
    record[:, s.R_OUT] = int(words[s.AT_OUT]) + plug.out_base[:-1].astype(np.int64) * int(words[s.OUT_SIZE])
    record[:, s.R_IN] = int(words[s.AT_IN]) + plug.in_base[:-1].astype(np.int64) * int(words[s.IN_SIZE])
    for number, place in enumerate((s.R_SWITCH_LIST, s.R_VC_LIST, s.R_ROUTING_LIST)):
        record[:, place] = int(words[s.AT_LISTS]) + number * channels + plug.in_base[:-1] * vcs


def fill_ports(
    memory: Memory,
    wires: Wires,
    routers: Sequence[RouterParameters],
    plug: Ports,
    interval: IntArray,
    cyclic_links: Flags,
) -> None:
    """Input and output ports: their channels, delays and neighbours."""
    words, nodes = memory.words, wires.nodes
    vcs, speed_in, in_size, out_size = (int(words[k]) for k in (s.VCS, s.SPEED_IN, s.IN_SIZE, s.OUT_SIZE))
    ports = wires.links + nodes
    own, channel = int(words[s.AT_OWN]), int(words[s.AT_CHANNEL])
    first_in, first_out = int(words[s.AT_IN]), int(words[s.AT_OUT])
    credit_delay = np.array([router.credit_delay for router in routers], np.int64)
    into = memory.section(s.AT_IN, ports, in_size)
    out = memory.section(s.AT_OUT, ports, out_size)
    number = np.arange(ports)
    in_router = np.repeat(np.arange(wires.routers), np.diff(plug.in_base))
    out_router = np.repeat(np.arange(wires.routers), np.diff(plug.out_base))
    link_in, link_out = plug.link_in.astype(np.int64), plug.link_out.astype(np.int64)
    into[:, s.I_LOCAL] = number - plug.in_base[in_router]
    into[:, s.I_CHANNEL] = channel + number * vcs * int(words[s.CHANNEL_SIZE])
    into[:, s.I_OUTPUTS] = first_out + plug.out_base[in_router] * out_size
    into[:, s.I_AFTER] = (into[:, s.I_LOCAL] + 1) * vcs
    into[:, s.I_ROUTING_DELAY] = np.array([router.routing_delay for router in routers])[in_router]
    into[:, s.I_PART] = into[:, s.I_LOCAL] % int(words[s.SPEED_OUT])
    into[:, s.I_STEP] = -1
    into[:, s.I_AXIS] = -1
    into[plug.node_in, s.I_AXIS] = -2
    into[:, s.I_POINTERS : s.I_POINTERS + speed_in] = np.arange(speed_in)
    into[link_in, s.I_CREDIT_DELAY] = wires.link_latency_cycles + 1 + credit_delay[wires.link_source]
    into[plug.node_in, s.I_CREDIT_DELAY] = 2
    into[link_in, s.I_CYCLIC] = cyclic_links
    if wires.forward is not None and wires.backward is not None:
        for axis in range(len(wires.shape)):
            for onward, back in (
                (wires.forward[axis], wires.backward[axis]),
                (wires.backward[axis], wires.forward[axis]),
            ):
                there = onward[onward >= 0]
                beyond = wires.link_target[there]
                into[link_in[there], s.I_AXIS] = axis
                for word, table in ((s.I_AHEAD, onward), (s.I_BACK, back)):
                    link = table[beyond]
                    into[link_in[there[link >= 0]], word] = first_out + link_out[link[link >= 0]] * out_size
    out[:, s.O_LOCAL] = number - plug.out_base[out_router]
    out[:, s.O_FIRST_OWN] = out[:, s.O_LOCAL] * vcs
    out[:, s.O_OWN] = own + number * vcs * s.W_SIZE
    out[:, s.O_INPUTS] = first_in + plug.in_base[out_router] * in_size
    out[:, s.O_CHANNELS] = channel + plug.in_base[out_router] * vcs * int(words[s.CHANNEL_SIZE])
    out[link_out, s.O_DELAY] = wires.link_latency_cycles + 1
    out[plug.node_out, s.O_DELAY] = 2
    out[:, s.O_SEND_DELAY] = out[:, s.O_DELAY] + np.array([router.crossbar_delay for router in routers])[out_router]
    out[:, s.O_LINE] = words[s.AT_FLITS]
    out[plug.node_out, s.O_LINE] = words[s.AT_SINKS]
    out[:, s.O_INTERVAL] = 1
    out[link_out, s.O_INTERVAL] = interval
    out[link_out, s.O_CYCLIC] = cyclic_links
    # At a node's port the same word holds the node's place among those of its router.
    out[plug.node_out, s.O_CYCLIC] = wires.place_at_exit
    free = memory.masks[first_out // 2 : first_out // 2 + ports * out_size // 2].reshape(ports, out_size // 2)
    free[:, s.O_FREE] = (1 << vcs) - 1 if vcs <= s.MASK_BITS else -1


def fill_channels(memory: Memory, wires: Wires, routers: Sequence[RouterParameters], plug: Ports) -> None:
    """Channels of routers and of nodes: what feeds them and where they belong."""
    words, nodes = memory.words, wires.nodes
    vcs, speed_in, in_size, size = (int(words[k]) for k in (s.VCS, s.SPEED_IN, s.IN_SIZE, s.CHANNEL_SIZE))
    ports = wires.links + nodes
    channels = ports * vcs
    # Views of one word of all channels of routers, and of those of nodes, where packets end.
    first, own = int(words[s.AT_CHANNEL]), int(words[s.AT_OWN])
    word = {k: words[first + k :: size][:channels] for k in range(s.C_NEXT_VC, s.C_FLITS)}
    sink = {k: words[first + channels * size + k :: size][: nodes * vcs] for k in (s.C_FEEDER, s.C_ASSIGNED)}
    node, vc = np.divmod(np.arange(nodes * vcs), vcs)
    sink[s.C_FEEDER][:] = own + (plug.node_out[node].astype(np.int64) * vcs + vc) * s.W_SIZE
    sink[s.C_ASSIGNED][:] = int(words[s.AT_NODE]) + node * s.N_SIZE
    port, vc = np.divmod(np.arange(channels), vcs)
    into = memory.section(s.AT_IN, ports, in_size)
    router = np.repeat(np.arange(wires.routers), np.diff(plug.in_base))[port]
    word[s.C_ROUTER][:] = words[s.AT_ROUTER] + router * s.R_SIZE
    word[s.C_NUMBER][:] = router
    word[s.C_ROUTING_DELAY][:] = into[port, s.I_ROUTING_DELAY]
    word[s.C_LOCAL][:] = np.arange(channels) - plug.in_base[router] * vcs
    feeder = np.empty(ports, np.int64)
    feeder[plug.link_in], feeder[plug.node_in] = plug.link_out, ports + np.arange(nodes)
    word[s.C_FEEDER][:] = own + (feeder[port] * vcs + vc) * s.W_SIZE
    word[s.C_ASSIGNED][:] = own  # not in use yet, but an address to look at
    word[s.C_VC][:], word[s.C_PART][:], word[s.C_NEXT_VC][:] = vc, vc % speed_in, (vc + speed_in) % vcs
    word[s.C_PORT][:] = words[s.AT_IN] + port * in_size
    word[s.C_IN_LOCAL][:] = into[port, s.I_LOCAL] * speed_in + vc % speed_in
    word[s.C_ROTATE_AT][:] = word[s.C_PORT] + s.I_POINTERS + vc % speed_in
    word[s.C_ACCEPT_AT][:] = word[s.C_ROTATE_AT] + speed_in
    word[s.C_DUE][:], word[s.C_ROUTES][:] = -1, 1


def fill_out_channels(memory: Memory, wires: Wires, routers: Sequence[RouterParameters], plug: Ports) -> None:
    """Out channels and nodes: what they feed and how many flits fit there."""
    words, nodes = memory.words, wires.nodes
    vcs, out_size = int(words[s.VCS]), int(words[s.OUT_SIZE])
    ports = wires.links + nodes
    slots = np.array([router.buffer_flits for router in routers])
    own = memory.own
    # The input port, counted on over the nodes where packets end, that each output port and then each node feeds.
    feeds = np.empty(ports + nodes, np.int64)
    feeds[plug.link_out], feeds[plug.node_out] = plug.link_in, ports + np.arange(nodes)
    feeds[ports:] = plug.node_in
    own[:, :, s.W_TARGET] = int(words[s.AT_CHANNEL]) + (feeds[:, None] * vcs + np.arange(vcs)) * int(
        words[s.CHANNEL_SIZE]
    )
    own[plug.link_out, :, s.W_SLOTS] = slots[wires.link_target][:, None]
    own[plug.node_out, :, s.W_SLOTS] = slots[wires.exits][:, None]
    own[ports:, :, s.W_SLOTS] = slots[wires.node_router][:, None]
    own[:ports, :, s.W_PORT] = (words[s.AT_OUT] + np.arange(ports) * out_size)[:, None]
    node = memory.node
    node[:, s.N_PACKET] = -1
    node[:, s.N_VC] = -1
    node[:, s.N_LAST_VC] = -1
    node[:, s.N_OWN] = words[s.AT_OWN] + (ports + np.arange(nodes)) * vcs * s.W_SIZE
    node[:, s.N_SLOTS] = slots[wires.node_router]
    node[:, s.N_EJECT] = words[s.AT_OUT] + plug.node_out * out_size
    node[:, s.N_ROUTER] = wires.exits
    node[:, s.N_CREDIT_DELAY] = 2 + np.array([router.credit_delay for router in routers])[wires.exits]


def fill_tables(memory: Memory, wires: Wires, plug: Ports) -> None:
    """Free packets, places, axes and what requests are looked up by."""
    words, count = memory.words, wires.routers
    axes, vcs = int(words[s.AXES]), int(words[s.VCS])
    pool = int(memory.counters[s.FREE_TOP])
    shape, place = np.array(wires.shape), wires.coordinates
    known = int(words[s.AT_REQUEST])
    words[known : int(words[s.AT_POINTERS])] = -1
    widest = int(np.diff(plug.in_base).max())
    tables: tuple[tuple[int, IntArray | FloatArray], ...] = (
        (s.AT_FREE, np.arange(pool)[::-1]),
        (s.AT_SHAPE, shape),
        (s.AT_PLACE, place),
        (s.AT_INPUT_OF, np.repeat(np.arange(widest), vcs)),
        (s.AT_FIRST_OUT, words[s.AT_OUT] + plug.out_base[:-1] * int(words[s.OUT_SIZE])),
    )
    for at, array in tables:
        begin = int(words[at])
        words[begin : begin + array.size] = array.ravel()
    if wires.forward is not None and wires.backward is not None:
        axis_port = memory.section(s.AT_AXIS_PORT, axes * 2, count)
        for axis in range(axes):
            for step, links in ((0, wires.forward[axis]), (1, wires.backward[axis])):
                there = links >= 0
                axis_port[2 * axis + step, there] = words[s.AT_OUT] + plug.link_out[links[there]] * int(
                    words[s.OUT_SIZE]
                )


def fill_queues(memory: Memory, class_priorities: Sequence[int]) -> None:
    """Source queues of each class of packets, where there are several, and the classes' priorities."""
    words, classes = memory.words, len(class_priorities)
    nodes = int(words[s.NODES]) // int(words[s.SUBNETS])
    queue = memory.section(s.AT_QUEUES, nodes * classes, s.N_SIZE)
    queue[:, s.N_PACKET] = -1
    queue[:, s.N_VC] = -1
    first = int(words[s.AT_LAST_VC])
    words[first : first + int(words[s.NODES]) * classes] = -1
    first = int(words[s.AT_CLASS_PRIORITY])
    words[first : first + classes] = class_priorities
