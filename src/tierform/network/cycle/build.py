"""Lay out the memory of a cycle-level simulation: which records there are, and how they point at each other.

:func:`build` makes the memory of :mod:`tierform.network.cycle.state` for a topology, its routers' parameters and a plan
of virtual channels; :func:`refuse_huge` estimates its size first.  Ports are numbered router by router, so a router's
records lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tierform.errors import fail
from tierform.network.cycle import state as s
from tierform.network.cycle.state import Memory
from tierform.network.parameters import RouterParameters
from tierform.network.topology import FloatArray, IntArray, Topology

MEMORY_LIMIT_B = 4 * 2**30


@dataclass(frozen=True, eq=False)
class _Ports:
    """Port numbers by router order: first of each router (and an end), and those of each link and node."""

    in_base: IntArray
    out_base: IntArray
    link_in: IntArray
    link_out: IntArray
    node_in: IntArray
    node_out: IntArray


def port_numbers(topology: Topology) -> _Ports:
    """Number the input and output ports of all routers."""
    links, nodes = topology.links, topology.nodes
    # On a grid a router's inputs are, axis by axis, the one from the higher and then the one from the lower neighbour,
    # its outputs the one to the higher and then the one to the lower: BookSim2's order, where round-robin starts.
    rank = np.arange(links + nodes)
    if topology.grid is not None:
        for axis in range(len(topology.grid.shape)):
            for step, table in ((0, topology.grid.backward[axis]), (1, topology.grid.forward[axis])):
                rank[table[table >= 0]] = 2 * axis + step
            rank[links:] = 2 * len(topology.grid.shape) + np.arange(nodes)
    found: dict[str, IntArray] = {}
    for side, ends in (("in", topology.link_target), ("out", topology.link_source)):
        owner = np.concatenate([ends, topology.node_router])
        number = np.empty(links + nodes, np.int32)
        order = np.lexsort((rank, owner)) if side == "in" else np.argsort(owner, kind="stable")
        number[order] = np.arange(links + nodes)
        base = np.zeros(topology.routers + 1, np.int32)
        base[1:] = np.cumsum(np.bincount(owner, minlength=topology.routers))
        found[f"{side}_base"], found[f"link_{side}"], found[f"node_{side}"] = base, number[:links], number[links:]
    return _Ports(**found)


def refuse_huge(topology: Topology, router: RouterParameters) -> None:
    """Estimate the memory of a simulation before anything of it is built, and refuse what is too large."""
    channels = (topology.links + 2 * topology.nodes) * router.virtual_channels
    slots = channels * router.buffer_flits
    # Channel and out-channel records and lists, buffers and packet records, routing tables (twice while made).
    needed = 4 * (channels * 80 + slots * (1 + s.P_RECORD + 1)) + 12 * topology.routers**2
    if needed > MEMORY_LIMIT_B:
        fail(
            f"this simulation would take about {needed / 2**30:.1f} GiB; the limit is {MEMORY_LIMIT_B / 2**30:.0f} GiB",
            fix="Use a smaller network, fewer virtual channels or the analytic engine.",
        )


def build(
    topology: Topology,
    routers: Sequence[RouterParameters],
    mode: int,
    tables: IntArray,
    layer_of: IntArray,
    layers: int,
    cyclic_links: Any,
    seed: int,
    histogram_bins: int,
    choices: int,
    commit: bool,
) -> Memory:
    """The memory of a network whose router r has parameters ``routers[r]`` (virtual channels alike for all)."""
    first = routers[0]
    plug = port_numbers(topology)
    vcs, nodes, count = first.virtual_channels, topology.nodes, topology.routers
    ports = topology.links + nodes
    depth = max(router.buffer_flits for router in routers)
    speed_in, speed_out = first.input_speedup, first.output_speedup
    grid = topology.grid
    axes = len(grid.shape) if grid is not None else 1
    before = _whole_lines(-s.C_ROUTE + s.ROUTE_SIZE * (choices - 1))
    channel_size = before + _whole_lines(s.C_FLITS + depth)
    in_size, out_size = _whole_lines(s.I_POINTERS + 2 * speed_in), _whole_lines(s.O_POINTERS + speed_out)
    widest_in, widest_out = int(np.diff(plug.in_base).max()), int(np.diff(plug.out_base).max())
    interval = _interval(topology, routers)
    horizon = 1 << _longest_delay(topology, routers, interval).bit_length()
    ask_horizon = 1 << (max(router.routing_delay for router in routers) + 1).bit_length()
    channels, sinks = ports * vcs, nodes * vcs
    events, credit_events = ports + nodes, ports * speed_in + nodes
    # Every packet has a flit in some buffer, or is a source's, or a copy that a channel has begun to send.
    pool = (channels + sinks) * depth + channels + nodes + 1
    requests = widest_in * vcs * vcs * choices
    sides = max(widest_in, widest_out) * max(vcs, speed_in, speed_out)
    # Lists are written before it is known whether the entry stays: they have a place more than they hold.
    sizes = {
        s.AT_ROUTER: count * s.R_SIZE,
        s.AT_IN: ports * in_size,
        s.AT_OUT: ports * out_size,
        s.AT_CHANNEL: (channels + sinks) * channel_size,
        s.AT_OWN: (channels + sinks) * s.W_SIZE,
        s.AT_NODE: nodes * s.N_SIZE,
        s.AT_PACKET: pool * s.P_RECORD,
        s.AT_FREE: pool,
        s.AT_FLITS: horizon * (1 + events),
        s.AT_SINKS: horizon * (1 + events),
        s.AT_CREDITS: horizon * (1 + credit_events),
        s.AT_PLACE: count * axes,
        s.AT_AXIS_PORT: axes * 2 * count,
        s.AT_SCRATCH: 3 * requests,
        s.AT_GRANTED: requests,
        s.AT_BEST: 4 * sides,
        s.AT_REQUEST: widest_in * speed_in * widest_out * speed_out,
        s.AT_POINTERS: 2 * sides,
        s.AT_HISTOGRAM: histogram_bins,
        s.AT_SHAPE: axes,
        s.AT_LAYER_OF: count,
        s.AT_LISTS: 3 * channels,
        s.AT_ASKS: ask_horizon * (1 + channels),
        s.AT_ASKING: 2 + ports,
        s.AT_BUSY: 2 + ports,
        s.AT_WINNERS: 1 + ports,
        s.AT_SENDERS: 3 * ports,
        s.AT_TODO: nodes,
        s.AT_FIRST_OUT: count,
        s.AT_INPUT_OF: widest_in * vcs,
        s.AT_OFFERS: widest_in * vcs,
        s.AT_ASKED: widest_in * vcs,
    }
    words = aligned(s.HEADER + sum(_whole_lines(size) for size in sizes.values()))
    at = s.HEADER
    for place, size in sizes.items():
        words[place] = at
        at += _whole_lines(size)
    # A channel's address is that of its line of flits; what stands before it lies at negative offsets.
    words[s.AT_CHANNEL] += before
    kinds = {"islip": 0, "separable_input_first": 1, "separable_output_first": 2}
    for place, value in (
        (s.VCS, vcs),
        (s.DEPTH, depth),
        (s.NODES, nodes),
        (s.ROUTERS, count),
        (s.AXES, axes),
        (s.MODE, mode),
        (s.HORIZON, horizon),
        (s.FLIT_EVENTS, events),
        (s.CREDIT_EVENTS, credit_events),
        (s.SPEED_IN, speed_in),
        (s.SPEED_OUT, speed_out),
        (s.WAIT_FOR_TAIL, first.wait_for_tail_credit),
        (s.BUSY_WHEN_FULL, first.vc_busy_when_full),
        (s.VC_ALLOCATOR, kinds[first.vc_allocator]),
        (s.SWITCH_ALLOCATOR, kinds[first.switch_allocator]),
        (s.ITERATIONS, first.alloc_iterations),
        (s.CHANNEL_SIZE, channel_size),
        (s.IN_SIZE, in_size),
        (s.OUT_SIZE, out_size),
        (s.BINS, histogram_bins),
        (s.SIDES, sides),
        (s.LAYERS, layers),
        (s.COMMIT, commit),
        (s.ASK_HORIZON, ask_horizon),
        (s.ASK_EVENTS, channels),
    ):
        words[place] = int(value)
    counters = np.zeros(24, np.int64)
    counters[s.FREE_TOP], counters[s.RANDOM] = pool, (seed * 2654435761 + 12345) % (1 << 62)
    to_port = np.zeros((1, 1, 1), np.int16)
    if topology.links and tables.shape[1] == count:
        to_port = np.where(tables >= 0, plug.link_out[tables] - plug.out_base[:-1][:, None], 0).astype(np.int16)
    memory = Memory(words, words.view(np.int64), counters, to_port, plug.link_out, plug.link_in, plug.node_out)
    _fill_routers(memory, topology, routers, plug)
    _fill_ports(memory, topology, routers, plug, interval, cyclic_links)
    _fill_channels(memory, topology, routers, plug)
    _fill_out_channels(memory, topology, routers, plug)
    _fill_tables(memory, topology, plug, layer_of)
    return memory


def _whole_lines(size: int) -> int:
    return -(-size // s.LINE) * s.LINE


def aligned(size: int) -> Any:
    """Zero words that begin at a cache line, so that records do not straddle two."""
    spare = np.zeros(size + s.LINE, np.int32)
    skip = -spare.ctypes.data // 4 % s.LINE
    return spare[skip : skip + size]


def _interval(topology: Topology, routers: Sequence[RouterParameters]) -> IntArray:
    """(links,) cycles that a flit occupies each link: flits wider than the link take several."""
    flit_bits = np.array([router.flit_bits for router in routers], np.int64)
    cycles: IntArray = -(-flit_bits[topology.link_source] // topology.link_width_bits)
    return cycles


def _longest_delay(topology: Topology, routers: Sequence[RouterParameters], interval: IntArray) -> int:
    """Upper bound of the cycles from sending a flit or credit to its arrival: how far the delay lines must reach."""
    first = routers[0]
    longest = int(topology.link_latency_cycles.max(initial=1)) + 4
    longest += max(max(router.crossbar_delay, router.credit_delay) for router in routers)
    if int(interval.max(initial=1)) > 1 or max(first.input_speedup, first.output_speedup, first.switch_speedup) > 1:
        depth = max(router.buffer_flits for router in routers)
        longest += (first.virtual_channels * depth + 2) * int(interval.max(initial=1))
    return longest


def _fill_routers(memory: Memory, topology: Topology, routers: Sequence[RouterParameters], plug: _Ports) -> None:
    words = memory.words
    vcs, channel_size = int(words[s.VCS]), int(words[s.CHANNEL_SIZE])
    record = memory.section(s.AT_ROUTER, topology.routers, s.R_SIZE)
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
    channels = (topology.links + topology.nodes) * vcs
    for number, place in enumerate((s.R_SWITCH_LIST, s.R_VC_LIST, s.R_ROUTING_LIST)):
        record[:, place] = int(words[s.AT_LISTS]) + number * channels + plug.in_base[:-1] * vcs


def _fill_ports(
    memory: Memory,
    topology: Topology,
    routers: Sequence[RouterParameters],
    plug: _Ports,
    interval: IntArray,
    cyclic_links: Any,
) -> None:
    words, nodes = memory.words, topology.nodes
    vcs, speed_in, in_size, out_size = (int(words[k]) for k in (s.VCS, s.SPEED_IN, s.IN_SIZE, s.OUT_SIZE))
    ports = topology.links + nodes
    own, channel = int(words[s.AT_OWN]), int(words[s.AT_CHANNEL])
    first_in, first_out = int(words[s.AT_IN]), int(words[s.AT_OUT])
    credit_delay = np.array([router.credit_delay for router in routers], np.int64)
    into = memory.section(s.AT_IN, ports, in_size)
    out = memory.section(s.AT_OUT, ports, out_size)
    number = np.arange(ports)
    in_router = np.repeat(np.arange(topology.routers), np.diff(plug.in_base))
    out_router = np.repeat(np.arange(topology.routers), np.diff(plug.out_base))
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
    into[link_in, s.I_CREDIT_DELAY] = topology.link_latency_cycles + 1 + credit_delay[topology.link_source]
    into[plug.node_in, s.I_CREDIT_DELAY] = 2
    into[link_in, s.I_CYCLIC] = cyclic_links
    if topology.grid is not None:
        for axis in range(len(topology.grid.shape)):
            for links in (topology.grid.forward[axis], topology.grid.backward[axis]):
                into[link_in[links[links >= 0]], s.I_AXIS] = axis
    out[:, s.O_LOCAL] = number - plug.out_base[out_router]
    out[:, s.O_FIRST_OWN] = out[:, s.O_LOCAL] * vcs
    out[:, s.O_OWN] = own + number * vcs * s.W_SIZE
    out[:, s.O_INPUTS] = first_in + plug.in_base[out_router] * in_size
    out[:, s.O_CHANNELS] = channel + plug.in_base[out_router] * vcs * int(words[s.CHANNEL_SIZE])
    out[link_out, s.O_DELAY] = topology.link_latency_cycles + 1
    out[plug.node_out, s.O_DELAY] = 2
    out[:, s.O_SEND_DELAY] = out[:, s.O_DELAY] + np.array([router.crossbar_delay for router in routers])[out_router]
    out[:, s.O_LINE] = words[s.AT_FLITS]
    out[plug.node_out, s.O_LINE] = words[s.AT_SINKS]
    out[:, s.O_INTERVAL] = 1
    out[link_out, s.O_INTERVAL] = interval
    out[link_out, s.O_CYCLIC] = cyclic_links
    free = memory.masks[first_out // 2 : first_out // 2 + ports * out_size // 2].reshape(ports, out_size // 2)
    free[:, s.O_FREE] = (1 << vcs) - 1 if vcs <= s.MASK_BITS else -1


def _fill_channels(memory: Memory, topology: Topology, routers: Sequence[RouterParameters], plug: _Ports) -> None:
    words, nodes = memory.words, topology.nodes
    vcs, speed_in, in_size, size = (int(words[k]) for k in (s.VCS, s.SPEED_IN, s.IN_SIZE, s.CHANNEL_SIZE))
    ports = topology.links + nodes
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
    router = np.repeat(np.arange(topology.routers), np.diff(plug.in_base))[port]
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
    word[s.C_DUE][:] = -1


def _fill_out_channels(memory: Memory, topology: Topology, routers: Sequence[RouterParameters], plug: _Ports) -> None:
    words, nodes = memory.words, topology.nodes
    vcs, out_size = int(words[s.VCS]), int(words[s.OUT_SIZE])
    ports = topology.links + nodes
    slots = np.array([router.buffer_flits for router in routers])
    own = memory.own
    # The input port, counted on over the nodes where packets end, that each output port and then each node feeds.
    feeds = np.empty(ports + nodes, np.int64)
    feeds[plug.link_out], feeds[plug.node_out] = plug.link_in, ports + np.arange(nodes)
    feeds[ports:] = plug.node_in
    own[:, :, s.W_TARGET] = int(words[s.AT_CHANNEL]) + (feeds[:, None] * vcs + np.arange(vcs)) * int(
        words[s.CHANNEL_SIZE]
    )
    own[plug.link_out, :, s.W_SLOTS] = slots[topology.link_target][:, None]
    own[plug.node_out, :, s.W_SLOTS] = slots[topology.node_router][:, None]
    own[ports:, :, s.W_SLOTS] = slots[topology.node_router][:, None]
    own[:ports, :, s.W_PORT] = (words[s.AT_OUT] + np.arange(ports) * out_size)[:, None]
    node = memory.node
    node[:, s.N_PACKET] = -1
    node[:, s.N_VC] = -1
    node[:, s.N_LAST_VC] = -1
    node[:, s.N_OWN] = words[s.AT_OWN] + (ports + np.arange(nodes)) * vcs * s.W_SIZE
    node[:, s.N_SLOTS] = slots[topology.node_router]
    node[:, s.N_EJECT] = words[s.AT_OUT] + plug.node_out * out_size
    node[:, s.N_ROUTER] = topology.node_router
    node[:, s.N_CREDIT_DELAY] = 2 + np.array([router.credit_delay for router in routers])[topology.node_router]


def _fill_tables(memory: Memory, topology: Topology, plug: _Ports, layer_of: IntArray) -> None:
    words, grid, count = memory.words, topology.grid, topology.routers
    axes, vcs = int(words[s.AXES]), int(words[s.VCS])
    pool = int(memory.counters[s.FREE_TOP])
    shape: Any = np.array(grid.shape if grid is not None else (1,))
    place: Any = grid.coordinates if grid is not None else np.zeros((count, 1))
    known = int(words[s.AT_REQUEST])
    words[known : int(words[s.AT_POINTERS])] = -1
    widest = int(np.diff(plug.in_base).max())
    tables: tuple[tuple[int, IntArray | FloatArray], ...] = (
        (s.AT_FREE, np.arange(pool)[::-1]),
        (s.AT_LAYER_OF, layer_of),
        (s.AT_SHAPE, shape),
        (s.AT_PLACE, place),
        (s.AT_INPUT_OF, np.repeat(np.arange(widest), vcs)),
        (s.AT_FIRST_OUT, words[s.AT_OUT] + plug.out_base[:-1] * int(words[s.OUT_SIZE])),
    )
    for at, array in tables:
        begin = int(words[at])
        words[begin : begin + array.size] = array.ravel()
    if grid is not None:
        axis_port = memory.section(s.AT_AXIS_PORT, axes * 2, count)
        for axis in range(axes):
            for step, links in ((0, grid.forward[axis]), (1, grid.backward[axis])):
                there = links >= 0
                axis_port[2 * axis + step, there] = words[s.AT_OUT] + plug.link_out[links[there]] * int(
                    words[s.OUT_SIZE]
                )
