"""The memory of a cycle-level simulation: one array of 32-bit words, cut into records, and 64-bit counters.

A compiled loop is fastest, and compiles quickest, when it gets one array rather than sixty; so all state lies in one
array of int32, and a record is named by the address of its first word.  Routers, input ports, output ports, channels
(an input's virtual channel, with its flit buffer), out channels (the same on the output side, with the credits), nodes
and packets each have records of fixed length; the constants below are the places of their words.  :class:`Memory`
gives the sections as plain two-dimensional views to Python code.

A flit is one word: packet << 2 | is head << 1 | is tail.  Sums that outgrow 32 bits are counted apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tierform.errors import fail
from tierform.network.parameters import RouterParameters
from tierform.network.topology import IntArray, Topology

MEMORY_LIMIT_B = 4 * 2**30

# Counters (int64).
(NOW, SAMPLED_PACKETS, PACKET_LATENCY, NETWORK_LATENCY, FLIT_LATENCY, SAMPLED_FLITS, HOPS, ACCEPTED, SENT, IN_FLIGHT,
 IN_FLIGHT_CREATED, MEASURED_IN_FLIGHT, PHASE, DRAIN_FROM, FREE_TOP, WORST, FRAGMENTATION, FLOWS_LEFT, STEP, ERROR,
 PACKETS, RANDOM) = range(22)  # fmt: skip
# Header of the words: constants of the network, then addresses of sections.
(VCS, DEPTH, NODES, ROUTERS, AXES, MODE, HORIZON, EVENTS, CREDIT_EVENTS, SPEED_IN, SPEED_OUT, WAIT_FOR_TAIL,
 BUSY_WHEN_FULL, VC_ALLOCATOR, SWITCH_ALLOCATOR, ITERATIONS, CHANNEL_SIZE, IN_SIZE, OUT_SIZE,
 BINS, SIDES, LAYERS, COMMIT) = range(23)  # fmt: skip
(AT_ROUTER, AT_IN, AT_OUT, AT_CHANNEL, AT_OWN, AT_NODE, AT_PACKET, AT_FREE, AT_WHEEL, AT_CREDITS, AT_PLACE,
 AT_AXIS_PORT, AT_SCRATCH, AT_HISTOGRAM, AT_SHAPE, AT_LAYER_OF, AT_GRANTED, AT_BEST, AT_REQUEST,
 AT_POINTERS, AT_END) = range(32, 53)  # fmt: skip
HEADER = 64

# Router.
(R_CHANNEL, R_OWN, R_INPUTS, R_OUTPUTS, R_ROUTING_DELAY, R_VC_DELAY, R_SWITCH_DELAY, R_CROSSBAR_DELAY, R_CREDIT_DELAY,
 R_SWITCH_N, R_VC_N, R_ROUTING_N, R_SWITCH_LIST, R_VC_LIST, R_ROUTING_LIST, R_NUMBER) = range(16)  # fmt: skip
R_SIZE = 16
# Input port; then per input speedup the rotating offset and the switch's accept pointer.
I_FEEDER, I_CREDIT_DELAY, I_CREDIT_FREE, I_STEP, I_AXIS, I_LOCAL, I_PART, I_CYCLIC, I_POINTERS = range(9)
# Output port; then per output speedup the switch's grant pointer.
O_TARGET, O_DELAY, O_INTERVAL, O_SLOTS, O_FREE, O_LOCAL, O_OWN, O_CYCLIC, O_POINTERS = range(9)
# Channel; then the candidates (output port, lowest and highest virtual channel, priority), then the buffer.
(C_HEAD, C_FILL, C_STATUS, C_ASSIGNED, C_BUFFER, C_PORT, C_VC, C_ROUTER, C_IN_LOCAL, C_OUT_LOCAL, C_GRANT_AT,
 C_ACCEPT_AT, C_ROTATE_AT, C_NEXT_VC, C_LOCAL, C_ACCEPT, C_STAMP, C_BEST, C_PICK, C_DUE, C_OUTCOME, C_PART, C_ROUTES,
 C_FIRST_ROUTE) = range(24)  # fmt: skip
# Out channel.
W_OWNER, W_USED, W_TAIL_SENT, W_FLITS, W_GRANT, W_PORT, W_LOCAL, W_SLOTS, W_VC, W_STAMP, W_BEST, W_PICK = range(12)
W_SIZE = 12
# Node.
(N_PACKET, N_LEFT, N_VC, N_LAST_VC, N_NEXT, N_ON, N_ACCEPTED, N_CHANNEL, N_OWN, N_SLOTS, N_EJECT, N_ROUTER, N_READY,
 N_TURN) = range(14)  # fmt: skip
N_SIZE = 16
# Packet.
(P_GOAL, P_HOME, P_SIZE, P_CREATED, P_ENTERED, P_HEAD_AT, P_MEASURED, P_HOPS, P_PART, P_VIA, P_DIRECTION, P_STAGE,
 P_FLOW, P_SOURCE, P_NEXT_FLIT, P_FLIT_TIMES) = range(16)  # fmt: skip
P_RECORD = 16


@dataclass(frozen=True, eq=False)
class Memory:
    """The words of a simulation and how to find them."""

    words: Any  # int32
    counters: Any  # int64
    table: Any  # (parts, routers, routers) output port numbers
    link_out: IntArray  # output port of each link
    link_in: IntArray
    node_out: IntArray

    def section(self, at: int, number: int, size: int) -> Any:
        """(number, size) view of the records at header place `at`."""
        first = int(self.words[at])
        return self.words[first : first + number * size].reshape(number, size)

    @property
    def own(self) -> Any:
        """(output ports and nodes, virtual channels, words) view of the out channels."""
        vcs, nodes = int(self.words[VCS]), int(self.words[NODES])
        ports = len(self.link_out) + nodes
        return self.section(AT_OWN, (ports + nodes) * vcs, W_SIZE).reshape(ports + nodes, vcs, W_SIZE)

    @property
    def node(self) -> Any:
        """(nodes, words) view of the nodes."""
        return self.section(AT_NODE, int(self.words[NODES]), N_SIZE)

    @property
    def histogram(self) -> Any:
        """View of the latency histogram."""
        first = int(self.words[AT_HISTOGRAM])
        return self.words[first : first + int(self.words[BINS])]


def port_numbers(topology: Topology) -> dict[str, IntArray]:
    """Port numbers by router order: in_base, out_base (routers + 1), link_in, link_out, node_in, node_out."""
    links, nodes = topology.links, topology.nodes
    result: dict[str, IntArray] = {}
    # On a grid a router's inputs are, axis by axis, the one from the higher and then the one from the lower neighbour,
    # its outputs the one to the higher and then the one to the lower: BookSim2's order, where round-robin starts.
    rank = np.arange(links + nodes)
    if topology.grid is not None:
        for axis in range(len(topology.grid.shape)):
            for step, table in ((0, topology.grid.backward[axis]), (1, topology.grid.forward[axis])):
                rank[table[table >= 0]] = 2 * axis + step
        rank[links:] = 2 * len(topology.grid.shape) + np.arange(nodes)
    for side, ends in (("in", topology.link_target), ("out", topology.link_source)):
        owner = np.concatenate([ends, topology.node_router])
        number = np.empty(links + nodes, np.int32)
        order = np.lexsort((rank, owner)) if side == "in" else np.argsort(owner, kind="stable")
        number[order] = np.arange(links + nodes)
        base = np.zeros(topology.routers + 1, np.int32)
        base[1:] = np.cumsum(np.bincount(owner, minlength=topology.routers))
        result[f"{side}_base"], result[f"link_{side}"], result[f"node_{side}"] = base, number[:links], number[links:]
    return result


def refuse_huge(topology: Topology, router: RouterParameters) -> None:
    """Estimate the memory of a simulation before anything of it is built, and refuse what is too large."""
    channels = (topology.links + 2 * topology.nodes) * router.virtual_channels
    slots = channels * router.buffer_flits
    # Channel and out-channel records, buffers and packet records, routing tables (twice while they are made).
    needed = 4 * (channels * 44 + slots * (1 + P_RECORD + 1)) + 12 * topology.routers**2
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
    slots = np.array([r.buffer_flits for r in routers], np.int64)
    depth = int(slots.max())
    speed_in, speed_out = first.input_speedup, first.output_speedup
    grid = topology.grid
    axes = len(grid.shape) if grid is not None else 1
    routes = choices
    channel_size = C_FIRST_ROUTE + 4 * routes + depth
    in_size, out_size = I_POINTERS + 2 * speed_in, O_POINTERS + speed_out
    widest_in, widest_out = int(np.diff(plug["in_base"]).max()), int(np.diff(plug["out_base"]).max())
    delays = np.array([r.crossbar_delay for r in routers])
    credit_delay = np.array([r.credit_delay for r in routers], np.int64)
    flit_bits = np.array([r.flit_bits for r in routers], np.int64)
    latency = topology.link_latency_cycles.astype(np.int64)
    interval = -(-flit_bits[topology.link_source] // topology.link_width_bits)
    longest = int(latency.max(initial=1)) + int(max(delays.max(), credit_delay.max())) + 4
    if int(interval.max(initial=1)) > 1 or speed_in > 1 or speed_out > 1 or first.switch_speedup > 1:
        longest += (vcs * depth + 2) * int(interval.max(initial=1))
    horizon = 1 << longest.bit_length()
    credit_events = ports * speed_in + nodes
    channels = ports * vcs
    pool = (channels + nodes * vcs) * depth + nodes + 1
    requests = widest_in * vcs * vcs * routes
    sides = max(widest_in, widest_out) * max(vcs, speed_in, speed_out)
    sizes = {
        AT_ROUTER: count * R_SIZE, AT_IN: ports * in_size, AT_OUT: ports * out_size,
        AT_CHANNEL: channels * channel_size,
        AT_OWN: (ports + nodes) * vcs * W_SIZE, AT_NODE: nodes * N_SIZE, AT_PACKET: pool * P_RECORD, AT_FREE: pool,
        AT_WHEEL: horizon * (1 + 2 * (ports + nodes)), AT_CREDITS: horizon * (1 + credit_events),
        AT_PLACE: count * axes,
        AT_AXIS_PORT: axes * 2 * count, AT_SCRATCH: 3 * requests + 2 * sides,
        AT_GRANTED: requests, AT_BEST: 6 * sides, AT_REQUEST: widest_in * speed_in * widest_out * speed_out,
        AT_POINTERS: 2 * sides, AT_HISTOGRAM: histogram_bins, AT_SHAPE: axes, AT_LAYER_OF: count + 3 * channels,
    }  # fmt: skip
    words = np.zeros(HEADER + sum(sizes.values()), np.int32)
    counters = np.zeros(24, np.int64)
    counters[FREE_TOP], counters[RANDOM] = pool, (seed * 2654435761 + 12345) % (1 << 62)
    at = HEADER
    for place, size in sizes.items():
        words[place] = at
        at += size
    words[AT_END] = at
    kinds = {"islip": 0, "separable_input_first": 1, "separable_output_first": 2}
    for place, value in (
        (VCS, vcs), (DEPTH, depth), (NODES, nodes), (ROUTERS, count), (AXES, axes), (MODE, mode), (HORIZON, horizon),
        (EVENTS, ports + nodes), (CREDIT_EVENTS, credit_events), (SPEED_IN, speed_in), (SPEED_OUT, speed_out),
        (WAIT_FOR_TAIL, first.wait_for_tail_credit), (BUSY_WHEN_FULL, first.vc_busy_when_full),
        (VC_ALLOCATOR, kinds[first.vc_allocator]), (SWITCH_ALLOCATOR, kinds[first.switch_allocator]),
        (ITERATIONS, first.alloc_iterations), (CHANNEL_SIZE, channel_size), (IN_SIZE, in_size), (OUT_SIZE, out_size),
        (BINS, histogram_bins), (SIDES, sides), (LAYERS, layers), (COMMIT, commit),
    ):  # fmt: skip
        words[place] = int(value)
    to_port = np.zeros((1, 1, 1), np.int32)
    if topology.links and tables.shape[1] == count:
        to_port = np.where(tables >= 0, plug["link_out"][tables], -1).astype(np.int32)
    memory = Memory(words, counters, to_port, plug["link_out"], plug["link_in"], plug["node_out"])
    _fill_routers(memory, topology, routers, plug, channel_size, sizes)
    _fill_ports(memory, topology, plug, slots, interval, credit_delay, in_size, out_size, channel_size)
    _fill_channels(memory, topology, plug, channels, channel_size, routes)
    memory.section(AT_OUT, ports, out_size)[plug["link_out"], O_CYCLIC] = cyclic_links
    memory.section(AT_IN, ports, in_size)[plug["link_in"], I_CYCLIC] = cyclic_links
    free = int(words[AT_FREE])
    words[free : free + pool] = np.arange(pool)[::-1]
    for place, array in (
        (AT_LAYER_OF, layer_of),
        (AT_SHAPE, np.array(grid.shape if grid is not None else (1,))),
        (AT_PLACE, grid.coordinates if grid is not None else np.zeros((count, 1))),
        (AT_REQUEST, np.full(sizes[AT_REQUEST], -1)),
    ):
        begin = int(words[place])
        words[begin : begin + array.size] = array.ravel()
    if grid is not None:
        axis_port = memory.section(AT_AXIS_PORT, axes * 2, count)
        for axis in range(axes):
            for step, links in ((0, grid.forward[axis]), (1, grid.backward[axis])):
                there = links >= 0
                axis_port[2 * axis + step, there] = words[AT_OUT] + plug["link_out"][links[there]] * out_size
    return memory


def _fill_routers(
    memory: Memory, topology: Topology, routers: Sequence[RouterParameters], plug: dict[str, IntArray],
    channel_size: int, sizes: dict[int, int],
) -> None:  # fmt: skip
    words, vcs = memory.words, int(memory.words[VCS])
    record = memory.section(AT_ROUTER, topology.routers, R_SIZE)
    record[:, R_CHANNEL] = int(words[AT_CHANNEL]) + plug["in_base"][:-1].astype(np.int64) * vcs * channel_size
    record[:, R_OWN] = int(words[AT_OWN]) + plug["out_base"][:-1].astype(np.int64) * vcs * W_SIZE
    record[:, R_INPUTS], record[:, R_OUTPUTS] = np.diff(plug["in_base"]), np.diff(plug["out_base"])
    for place, name in (
        (R_ROUTING_DELAY, "routing_delay"),
        (R_VC_DELAY, "vc_alloc_delay"),
        (R_SWITCH_DELAY, "switch_alloc_delay"),
        (R_CROSSBAR_DELAY, "crossbar_delay"),
        (R_CREDIT_DELAY, "credit_delay"),
    ):
        record[:, place] = [getattr(router, name) for router in routers]
    lists = int(words[AT_LAYER_OF]) + topology.routers
    channels = (topology.links + topology.nodes) * vcs
    for number, place in enumerate((R_SWITCH_LIST, R_VC_LIST, R_ROUTING_LIST)):
        record[:, place] = lists + number * channels + plug["in_base"][:-1] * vcs
    record[:, R_NUMBER] = np.arange(topology.routers)


def _fill_ports(
    memory: Memory, topology: Topology, plug: dict[str, IntArray], slots: Any, interval: Any, credit_delay: Any,
    in_size: int, out_size: int, channel_size: int,
) -> None:  # fmt: skip
    words, vcs, nodes = memory.words, int(memory.words[VCS]), topology.nodes
    ports = topology.links + nodes
    own, channel = int(words[AT_OWN]), int(words[AT_CHANNEL])
    into = memory.section(AT_IN, ports, in_size)
    out = memory.section(AT_OUT, ports, out_size)
    speed_in = int(words[SPEED_IN])
    link_in, link_out = plug["link_in"].astype(np.int64), plug["link_out"].astype(np.int64)
    node_in, node_out = plug["node_in"].astype(np.int64), plug["node_out"].astype(np.int64)
    into[:, I_STEP] = -1
    into[:, I_AXIS] = -1
    into[node_in, I_AXIS] = -2
    into[:, I_POINTERS : I_POINTERS + speed_in] = np.arange(speed_in)
    into[link_in, I_FEEDER] = own + link_out * vcs * W_SIZE
    into[node_in, I_FEEDER] = own + (ports + np.arange(nodes)) * vcs * W_SIZE
    into[link_in, I_CREDIT_DELAY] = topology.link_latency_cycles + 1 + credit_delay[topology.link_source]
    into[node_in, I_CREDIT_DELAY] = 2
    if topology.grid is not None:
        for axis in range(len(topology.grid.shape)):
            for links in (topology.grid.forward[axis], topology.grid.backward[axis]):
                into[link_in[links[links >= 0]], I_AXIS] = axis
    out[link_out, O_TARGET] = channel + link_in * vcs * channel_size
    out[node_out, O_TARGET] = -1 - np.arange(nodes) * vcs
    out[link_out, O_DELAY] = topology.link_latency_cycles + 1
    out[node_out, O_DELAY] = 2
    out[:, O_INTERVAL] = 1
    out[link_out, O_INTERVAL] = interval
    out[link_out, O_SLOTS] = slots[topology.link_target]
    out[node_out, O_SLOTS] = slots[topology.node_router]
    out[:, O_OWN] = own + np.arange(ports) * vcs * W_SIZE
    node = memory.node
    node[:, N_PACKET] = -1
    node[:, N_VC] = -1
    node[:, N_LAST_VC] = -1
    node[:, N_CHANNEL] = channel + node_in * vcs * channel_size
    node[:, N_OWN] = own + (ports + np.arange(nodes)) * vcs * W_SIZE
    node[:, N_SLOTS] = slots[topology.node_router]
    node[:, N_EJECT] = words[AT_OUT] + node_out * out_size
    node[:, N_ROUTER] = topology.node_router
    for base, record, place in ((plug["in_base"], into, I_LOCAL), (plug["out_base"], out, O_LOCAL)):
        width = np.diff(base)
        record[:, place] = np.arange(ports) - np.repeat(base[:-1], width)
    into[:, I_PART] = into[:, I_LOCAL] % int(words[SPEED_OUT])


def _fill_channels(
    memory: Memory, topology: Topology, plug: dict[str, IntArray], channels: int, channel_size: int, routes: int
) -> None:
    words, vcs = memory.words, int(memory.words[VCS])
    ports = channels // vcs
    record = memory.section(AT_CHANNEL, channels, channel_size)
    port = np.repeat(np.arange(ports), vcs)
    router = np.repeat(np.arange(topology.routers), np.diff(plug["in_base"]))[port]
    record[:, C_ROUTER] = words[AT_ROUTER] + router * R_SIZE
    record[:, C_PORT] = words[AT_IN] + port * int(words[IN_SIZE])
    record[:, C_VC] = np.tile(np.arange(vcs), ports)
    record[:, C_PART] = record[:, C_VC] % int(words[SPEED_IN])
    record[:, C_NEXT_VC] = (record[:, C_VC] + int(words[SPEED_IN])) % vcs
    speed_in = int(words[SPEED_IN])
    local = (np.arange(ports) - plug["in_base"][np.repeat(np.arange(topology.routers), np.diff(plug["in_base"]))])[port]
    record[:, C_IN_LOCAL] = local * speed_in + record[:, C_PART]
    record[:, C_ROTATE_AT] = record[:, C_PORT] + I_POINTERS + record[:, C_PART]
    record[:, C_ACCEPT_AT] = record[:, C_ROTATE_AT] + speed_in
    record[:, C_LOCAL] = np.arange(channels) - plug["in_base"][router] * vcs
    record[:, C_BUFFER] = words[AT_CHANNEL] + np.arange(channels) * channel_size + C_FIRST_ROUTE + 4 * routes
    record[:, C_DUE] = -1
    own = memory.own[:ports]
    out_router = np.repeat(np.arange(topology.routers), np.diff(plug["out_base"]))
    own[:, :, W_PORT] = (words[AT_OUT] + np.arange(ports) * int(words[OUT_SIZE]))[:, None]
    own[:, :, W_LOCAL] = np.arange(channels).reshape(ports, vcs) - (plug["out_base"][out_router] * vcs)[:, None]
    own[:, :, W_VC] = np.arange(vcs)
    own[:, :, W_SLOTS] = memory.section(AT_OUT, ports, int(words[OUT_SIZE]))[:, O_SLOTS][:, None]
