"""Lay out the memory of a cycle-level simulation: which sections there are, their sizes, and the constants before them.

:func:`build` makes the memory of :mod:`tierform.network.cycle.state` for a topology, its routers' parameters and a plan
of virtual channels; :func:`refuse_huge` estimates its size first.  The records themselves are filled by
:mod:`tierform.network.cycle.records`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tierform.arrays import Shorts, Words
from tierform.errors import fail
from tierform.network.cycle import modes, records
from tierform.network.cycle import state as s
from tierform.network.cycle.state import Memory
from tierform.network.cycle.wires import Ports, Wires, port_numbers, wires_of
from tierform.network.deadlock import VirtualChannelPlan
from tierform.network.parameters import RouterParameters
from tierform.network.topology import IntArray, Topology

MEMORY_LIMIT_B = 4 * 2**30
# Modes that give each half of the virtual channels to a class of packets.
_HALVES = (
    modes.XY_YX,
    modes.ADAPTIVE_XY_YX,
    modes.VALIANT,
    modes.ROMM,
    modes.UGAL,
    modes.TORUS,
    modes.TORUS_BALANCED,
    modes.TORUS_TABLE,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a simulation needs to know beside topology, routers and plan.

    `commit`: packets may have several flits, so that one in an escape channel stays there.  `adaptive_channels`: first
    and last of adaptive routing, all but the escapes unless given.  `random_entry`: sources try one virtual channel a
    cycle, drawn.
    """

    seed: int = 0
    histogram_bins: int = 1 << 16
    commit: bool = True
    adaptive_channels: tuple[int, int] | None = None
    stop_at_home: bool = False
    class_priorities: tuple[int, ...] = (0,)
    subnets: int = 1


def refuse_huge(topology: Topology, router: RouterParameters, subnets: int = 1) -> None:
    """Estimate the memory of a simulation before anything of it is built, and refuse what is too large."""
    channels = (topology.links + 2 * topology.nodes) * router.virtual_channels * subnets
    slots = channels * router.buffer_flits
    # Channel and out-channel records and lists, buffers and packet records, routing tables (twice while made).
    needed = 4 * (channels * 80 + slots * (1 + s.P_RECORD + 1)) + 12 * (subnets * topology.routers) ** 2
    # Delay lines: a list for each cycle until the longest delay.
    horizon = int(topology.link_latency_cycles.max(initial=1)) + router.crossbar_delay + router.credit_delay
    needed += 24 * horizon * subnets * (topology.links + 2 * topology.nodes) * router.input_speedup
    if needed > MEMORY_LIMIT_B:
        fail(
            f"this simulation would take about {needed / 2**30:.1f} GiB; the limit is {MEMORY_LIMIT_B / 2**30:.0f} GiB",
            fix="Use a smaller network, fewer virtual channels or the analytic engine.",
        )


def build(
    topology: Topology, routers: Sequence[RouterParameters], plan: VirtualChannelPlan, settings: Settings
) -> Memory:
    """The memory of a network whose router r has parameters ``routers[r]`` (virtual channels alike for all)."""
    first, subnets = routers[0], settings.subnets
    wires = wires_of(topology, subnets)
    routers = list(routers) * subnets
    plug = port_numbers(wires)
    vcs, nodes, count = first.virtual_channels, wires.nodes, wires.routers
    ports = wires.links + nodes
    depth = max(router.buffer_flits for router in routers)
    speed_in, speed_out = first.input_speedup, first.output_speedup
    axes, classes = len(wires.shape), len(settings.class_priorities)
    choices = _most_candidates(plan, axes, vcs)
    before = _whole_lines(-s.C_ROUTE + s.ROUTE_SIZE * (choices - 1))
    channel_size = before + _whole_lines(s.C_FLITS + depth)
    in_size, out_size = _whole_lines(s.I_POINTERS + 3 * speed_in), _whole_lines(s.O_POINTERS + 2 * speed_out)
    widest_in, widest_out = int(np.diff(plug.in_base).max()), int(np.diff(plug.out_base).max())
    interval = _interval(wires, routers)
    horizon = 1 << _longest_delay(wires, routers, interval).bit_length()
    ask_horizon = 1 << (max(router.routing_delay for router in routers) + 1).bit_length()
    channels, sinks = ports * vcs, nodes * vcs
    events, credit_events = ports + nodes, ports * speed_in + nodes
    # Every packet has a flit in some buffer, or is a source's, or a copy that a channel has begun to send.
    pool = (channels + sinks) * depth + channels + nodes * (classes + 1) + 1
    requests = widest_in * vcs * vcs * choices
    sides = max(widest_in, widest_out) * max(vcs, speed_in, speed_out)
    asked = widest_in * speed_in * widest_out * speed_out
    dense = sides * sides if "max_size" in _allocators(first) else 1
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
        s.AT_SCRATCH: 4 * requests,
        s.AT_GRANTED: requests,
        s.AT_BEST: 6 * sides,
        s.AT_REQUEST: asked,
        s.AT_POINTERS: 2 * sides,
        s.AT_HISTOGRAM: settings.histogram_bins,
        s.AT_SHAPE: axes,
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
        s.AT_DENSE: dense,
        s.AT_SPECULATIONS: 4 * widest_in * vcs * choices if first.speculative else 1,
        s.AT_MARKS: 4 * sides,
        s.AT_QUEUES: topology.nodes * classes * s.N_SIZE,
        s.AT_LAST_VC: nodes * classes,
        s.AT_CLASS_PRIORITY: classes,
    }
    words = aligned(s.HEADER + sum(_whole_lines(size) for size in sizes.values()))
    at = s.HEADER
    for place, size in sizes.items():
        words[place] = at
        at += _whole_lines(size)
    # A channel's address is that of its line of flits; what stands before it lies at negative offsets.
    words[s.AT_CHANNEL] += before
    low, high = settings.adaptive_channels or (2 if plan.mode == modes.MINIMAL_ADAPTIVE_TORUS else 1, vcs - 1)
    for place, value in (
        (s.VCS, vcs),
        (s.DEPTH, depth),
        (s.NODES, nodes),
        (s.ROUTERS, wires.subnet_routers),
        (s.AXES, axes),
        (s.MODE, plan.mode),
        (s.HORIZON, horizon),
        (s.FLIT_EVENTS, events),
        (s.CREDIT_EVENTS, credit_events),
        (s.SPEED_IN, speed_in),
        (s.SPEED_OUT, speed_out),
        (s.WAIT_FOR_TAIL, first.wait_for_tail_credit),
        (s.BUSY_WHEN_FULL, first.vc_busy_when_full),
        (s.VC_ALLOCATOR, modes.ALLOCATOR_NAMES.index(first.vc_allocator)),
        (s.SWITCH_ALLOCATOR, modes.ALLOCATOR_NAMES.index(first.switch_allocator)),
        (s.ITERATIONS, first.alloc_iterations),
        (s.CHANNEL_SIZE, channel_size),
        (s.IN_SIZE, in_size),
        (s.OUT_SIZE, out_size),
        (s.BINS, settings.histogram_bins),
        (s.SIDES, sides),
        (s.LAYERS, plan.layers),
        (s.COMMIT, settings.commit),
        (s.ASK_HORIZON, ask_horizon),
        (s.ASK_EVENTS, channels),
        (s.ADAPTIVE_LOW, low),
        (s.ADAPTIVE_HIGH, high),
        (s.GROUP_SIZE, wires.group_routers),
        (s.STOP_AT_HOME, settings.stop_at_home),
        (s.RANDOM_ENTRY, plan.mode in (modes.GROUPS, modes.GROUPS_UGAL)),
        (s.PRIORITY, modes.PRIORITY_NAMES.index(first.priority)),
        (s.SPECULATIVE, first.speculative),
        (s.SPECULATE_FREE, first.speculate_on_free_only),
        (s.SPECULATE_ROOM, first.speculate_on_room_only),
        (s.SPECULATE_UNASKED, first.speculate_on_unasked_only),
        (
            s.SPECULATIVE_ALLOCATOR,
            -1 if first.speculative_allocator == "prio" else modes.ALLOCATOR_NAMES.index(first.speculative_allocator),
        ),
        (s.CLASSES, classes),
        (s.SUBNETS, subnets),
        (s.ALL_ROUTERS, count),
    ):
        words[place] = int(value)
    counters = np.zeros(s.COUNTERS + classes * s.CLASS_COUNTERS, np.int64)
    counters[s.FREE_TOP], counters[s.RANDOM] = pool, (settings.seed * 2654435761 + 12345) % (1 << 62)
    memory = Memory(
        words=words,
        masks=words.view(np.int64),
        counters=counters,
        table=_port_table(topology, wires, plan, plug),
        link_out=plug.link_out,
        link_in=plug.link_in,
        node_out=plug.node_out,
    )
    records.fill_routers(memory, wires, routers, plug)
    cyclic = np.tile(plan.cyclic_links, subnets)
    records.fill_ports(memory, wires, routers, plug, interval, cyclic)
    records.fill_channels(memory, wires, routers, plug)
    records.fill_out_channels(memory, wires, routers, plug)
    records.fill_tables(memory, wires, plug)
    records.fill_queues(memory, settings.class_priorities)
    return memory


def _allocators(router: RouterParameters) -> tuple[str, ...]:
    return router.vc_allocator, router.switch_allocator, router.speculative_allocator


def _most_candidates(plan: VirtualChannelPlan, axes: int, vcs: int) -> int:
    """How many candidates a packet may have at most."""
    if plan.mode in (modes.MINIMAL_ADAPTIVE, modes.MINIMAL_ADAPTIVE_TORUS):
        return axes + 1
    if plan.mode == modes.SPREAD_ANY:
        assert plan.ways is not None
        return int(plan.ways.max())
    # An odd number of virtual channels has one that both halves share.
    return 2 if plan.layers > 1 or plan.mode == modes.PLANAR_ADAPTIVE or (plan.mode in _HALVES and vcs % 2) else 1


def _port_table(topology: Topology, wires: Wires, plan: VirtualChannelPlan, plug: Ports) -> Shorts:
    """(parts, routers, routers) output ports, counted within each router; what a mode needs beside is a part more."""
    count, routers = topology.routers, wires.routers
    tables, links = plan.tables, topology.links
    if plan.mode == modes.TORUS_TABLE:
        return _turns(topology, wires)
    if not links or tables.shape[1] != count:
        return np.zeros((1, 1, 1), np.int16)
    extra = 1 if plan.ways is not None or plan.layers > 1 else 0
    result = np.zeros((len(tables) + extra, routers, routers), np.int16)
    for copy in range(routers // count):
        here = slice(copy * count, (copy + 1) * count)
        port = plug.link_out[copy * links + np.maximum(tables, 0)] - plug.out_base[:-1][here][:, None]
        result[: len(tables), here, here] = np.where(tables >= 0, port, 0)
        if plan.layers > 1:
            result[-1, here, here] = plan.layer_of
        if plan.ways is not None:
            ways = plan.ways
            if plan.mode == modes.SPREAD_ANY:
                # Only upwards are all links as good for every packet behind: downwards one is drawn (below zero).
                up = topology.structure.up[np.maximum(tables[0], 0)]  # type: ignore[union-attr]
                ways = np.where(up, ways, -ways)
            result[-1, here, here] = ways
    return result


def _turns(topology: Topology, wires: Wires) -> Shorts:
    """(1, routers, routers) how a packet enters the next ring: port, dateline class, axis, and whether it may choose.

    In bits 0 to 7 the output port that leads the shorter way, in bit 8 the virtual-channel class, in 9 to 11 the axis,
    in 12 whether both ways are as long: then the port of the other way differs in bit 0.
    """
    assert topology.grid is not None
    place, count = topology.grid.coordinates, topology.routers
    word: Words = np.zeros((count, count), np.int32)
    for axis in reversed(range(len(topology.grid.shape))):
        size = topology.grid.shape[axis]
        here, there = place[:, axis][:, None], place[:, axis][None, :]
        twice = size - 2 * ((there - here) % size)
        port = 2 * axis + (twice < 0)
        turn = port | (here > there) << 8 | axis << 9 | (twice == 0) << 12
        np.copyto(word, turn, where=here != there)
    result = np.zeros((1, wires.routers, wires.routers), np.int16)
    for copy in range(wires.routers // count):
        span = slice(copy * count, (copy + 1) * count)
        result[0, span, span] = word
    return result


def _whole_lines(size: int) -> int:
    return -(-size // s.LINE) * s.LINE


def aligned(size: int) -> Words:
    """Zero words that begin at a cache line, so that records do not straddle two."""
    spare = np.zeros(size + s.LINE, np.int32)
    skip = -spare.ctypes.data // 4 % s.LINE
    return spare[skip : skip + size]


def _interval(wires: Wires, routers: Sequence[RouterParameters]) -> IntArray:
    """(links,) cycles that a flit occupies each link: flits wider than the link take several."""
    flit_bits = np.array([router.flit_bits for router in routers], np.int64)
    cycles: IntArray = -(-flit_bits[wires.link_source] // wires.link_width_bits)
    return cycles


def _longest_delay(wires: Wires, routers: Sequence[RouterParameters], interval: IntArray) -> int:
    """Upper bound of the cycles from sending a flit or credit to its arrival: how far the delay lines must reach."""
    first = routers[0]
    longest = int(wires.link_latency_cycles.max(initial=1)) + 4
    longest += max(max(router.crossbar_delay, router.credit_delay) for router in routers)
    if int(interval.max(initial=1)) > 1 or max(first.input_speedup, first.output_speedup, first.switch_speedup) > 1:
        depth = max(router.buffer_flits for router in routers)
        longest += (first.virtual_channels * depth + 2) * int(interval.max(initial=1))
    return longest
