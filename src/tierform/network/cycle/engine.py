"""The cycle-level engine: random traffic on a network, simulated flit by flit, with sampling and warm-up.

:func:`simulate_traffic` runs warm-up periods, then sample periods until mean latency and accepted rate settle, then
drains the packets measured; above a latency threshold the network is called unstable.  The rules (periods, thresholds,
what is measured) are those of BookSim2's latency mode, so that results compare.  Routes, virtual-channel classes and
their proof of freedom from deadlock come from :mod:`tierform.network.deadlock`.

Limits: one class of traffic; all routers have the same number of virtual channels and allocators; output queues behind
the crossbar are as long as credits allow.  One thread per simulation.  Numba is imported when this module is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tierform.errors import Problem, TierformError, fail
from tierform.network.case import Injection, Sampling
from tierform.network.cycle import modes
from tierform.network.cycle import state as cs
from tierform.network.cycle.advance import advance_bitmask, advance_general
from tierform.network.cycle.bitmask_router import fits_bitmask_router
from tierform.network.cycle.build import build, refuse_huge
from tierform.network.cycle.state import Memory
from tierform.network.deadlock import virtual_channel_plan
from tierform.network.parameters import RouterParameters
from tierform.network.routing import Routing, choose_routing
from tierform.network.topology import FloatArray, IntArray, Topology
from tierform.network.traffic import Pattern, pattern

HISTOGRAM_BINS = 1 << 16


@dataclass(frozen=True, eq=False)
class CycleResult:
    """What a simulation measured.  Latencies in cycles, means over measured packets (flit latency: over flits).

    `histogram[k]` counts packets with latency k (the last bin: that or more).  `link_utilization` is flits per
    cycle and link, `vc_utilization` (links, virtual channels), both over the whole run.
    """

    packet_latency_cycles: float
    network_latency_cycles: float
    flit_latency_cycles: float
    fragmentation_cycles: float
    hops: float
    accepted_flit_rate: float
    injected_flit_rate: float
    stable: bool
    cycles: int
    packets: int
    flit_hops: int
    worst_latency_cycles: int
    histogram: IntArray
    link_utilization: FloatArray
    vc_utilization: FloatArray
    node_accepted: FloatArray
    cpu_s: float
    compile_s: float
    history: list[tuple[int, float, float]] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        """The latency that `percent` of the measured packets do not exceed."""
        total = self.histogram.sum()
        if total == 0:
            return float("nan")
        return float(np.searchsorted(np.cumsum(self.histogram), np.ceil(percent / 100 * total)))


class Traffic(NamedTuple):
    """What the sources send, as the compiled loop takes it; arrays that a kind does not use are placeholders."""

    kind: int
    rate: Any  # (2, nodes) packets per cycle, and 1 / log(1 - rate)
    sizes: Any  # packet sizes in flits
    size_weights: Any  # cumulative, last 1.0
    target: Any  # permutation
    weights: Any  # cumulative weights: (1, nodes) shared or (nodes, nodes)
    burst: Any  # chance to start and to stop bursting; zeros for steady sources
    flows: Any  # see cycle_flows


class CycleNetwork:
    """A network ready to be simulated cycle by cycle."""

    def __init__(
        self,
        topology: Topology,
        routing: Routing | str = "default",
        router_parameters: RouterParameters | Sequence[RouterParameters] | None = None,
        seed: int = 0,
        balanced_rings: bool = False,
        single_flits: bool = False,
    ) -> None:
        """With a sequence, router r has ``router_parameters[r]``; `single_flits` says that no packet is longer.

        Routing that can deadlock is refused here.
        """
        self.topology = topology
        self.routing = routing if isinstance(routing, Routing) else choose_routing(topology, routing)
        self.routers = _per_router(topology, router_parameters)
        refuse_huge(topology, self.routers[0])
        plan = virtual_channel_plan(self.routing, self.routers[0].virtual_channels, balanced_rings)
        axes = len(topology.grid.shape) if topology.grid is not None else 1
        choices = axes + 1 if plan.mode == modes.MINIMAL_ADAPTIVE else 2 if plan.layers > 1 else 1
        self.memory = build(
            topology,
            self.routers,
            plan.mode,
            plan.tables,
            plan.layer_of,
            plan.layers,
            plan.cyclic_links,
            seed,
            HISTOGRAM_BINS,
            choices,
            not single_flits,
        )
        self.counters = self.memory.counters
        self.bitmask = fits_bitmask_router(self.memory, self.routers)
        self._partial = np.zeros(1)

    def run(self, traffic: Traffic, cycles: int, generate: bool = True, mode: int = 0) -> int:
        """Advance by at most `cycles`; see :func:`tierform.network.cycle.advance.is_done` for `mode`."""
        memory = self.memory
        if self.bitmask:
            ran = advance_bitmask(
                memory.words, memory.masks, self.counters, memory.table, *traffic, cycles, generate, mode
            )
        else:
            speedup = float(self.routers[0].switch_speedup)
            ran = advance_general(
                memory.words, self.counters, memory.table, *traffic, cycles, generate, mode, speedup, self._partial
            )
        if self.counters[cs.ERROR]:
            raise RuntimeError(
                f"the cycle engine broke its own rule {int(self.counters[cs.ERROR])}: please report this"
            )
        return int(ran)

    @property
    def now(self) -> int:
        """The number of cycles simulated."""
        return int(self.counters[cs.NOW])


def simulate_traffic(
    topology: Topology,
    traffic: Pattern | str,
    injection: Injection | float,
    *,
    routing: Routing | str = "default",
    router_parameters: RouterParameters | Sequence[RouterParameters] | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    balanced_rings: bool = False,
) -> CycleResult:
    """Simulate random traffic until its statistics settle; `injection` may be packets per node and cycle."""
    sampling = sampling or Sampling()
    injection = injection if isinstance(injection, Injection) else Injection(injection)
    chosen = traffic if isinstance(traffic, Pattern) else pattern(traffic, topology.nodes)
    _check(topology, chosen, injection, sampling)
    single = max(injection.packet_flits) == 1
    network = CycleNetwork(topology, routing, router_parameters, seed, balanced_rings, single)
    arrays = random_traffic(chosen, injection, network.memory, seed)
    started = time.process_time()
    network.run(arrays, 0)
    compile_s = time.process_time() - started
    started = time.process_time()
    stable, window, history = _sample(network, arrays, sampling)
    return _result(network, stable, window, history, time.process_time() - started, compile_s)


def random_traffic(chosen: Pattern, injection: Injection, memory: Memory, seed: int) -> Traffic:
    """The arrays of random traffic, and each source's first packet time."""
    nodes = chosen.nodes
    rate = np.broadcast_to(np.asarray(injection.rate, float), nodes).copy()
    kind = modes.UNIFORM
    weights: Any = np.zeros((1, 1))
    target = np.zeros(1, np.int64)
    if chosen.target is not None:
        kind, target = modes.PERMUTATION, chosen.target.astype(np.int64)
    elif chosen.shared is not None:
        kind, weights = modes.SHARED_WEIGHTS, np.cumsum(chosen.shared)[None, :]
    elif chosen.pairs is not None:
        kind, weights = modes.MATRIX, np.cumsum(chosen.pairs, axis=1)
    sizes = np.cumsum(np.asarray(injection.packet_weights, float))
    on_off = injection.start_chance is not None
    rng = np.random.default_rng(seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where((rate > 0) & (rate < 1), 1 / np.log1p(-rate), 0.0)
        first = np.floor(np.log(1 - rng.random(nodes)) / np.log1p(-np.minimum(rate, 1)))
    memory.node[:, cs.N_NEXT] = np.where(
        rate > 0, np.where(rate < 1, np.nan_to_num(first, posinf=0, neginf=0), 0), 2.0**31 - 1
    )
    memory.node[:, cs.N_ON] = rng.integers(0, 2, nodes)
    return empty_traffic()._replace(
        kind=kind,
        rate=np.stack([rate, inverse]),
        sizes=np.asarray(injection.packet_flits, np.int64),
        size_weights=sizes / sizes[-1],
        target=target,
        weights=weights,
        burst=np.array([injection.start_chance or 0.0, injection.stop_chance or 0.0]) if on_off else np.zeros(2),
    )


def empty_traffic() -> Traffic:
    """Traffic arrays with nothing in them, of the types that the kernel is compiled for."""
    return Traffic(
        modes.UNIFORM,
        np.zeros((2, 1)),
        np.ones(1, np.int64),
        np.ones(1),
        np.zeros(1, np.int64),
        np.zeros((1, 1)),
        np.zeros(2),
        np.zeros(4, np.int64),
    )


def _sample(
    network: CycleNetwork, traffic: Traffic, rules: Sampling
) -> tuple[bool, int, list[tuple[int, float, float]]]:
    """Whether it was stable, the cycles over which flits were counted, and (cycle, latency, rate) per period."""
    count = network.counters
    history: list[tuple[int, float, float]] = []
    converged, phases, clear = 0, 0, False
    before_latency, before_accepted, reset_at = 0.0, 0.0, 0
    count[cs.PHASE] = modes.WARMING
    while phases < rules.max_periods and (count[cs.PHASE] != modes.RUNNING or converged < 3):
        if clear or (count[cs.PHASE] == modes.WARMING and phases % 2 == 0):
            clear, reset_at = False, network.now
            _clear(network)
        network.run(traffic, rules.period)
        samples = max(int(count[cs.SAMPLED_PACKETS]), 1)
        latency = count[cs.PACKET_LATENCY] / samples
        accepted = count[cs.ACCEPTED] / (network.now - reset_at) / network.topology.nodes
        history.append((network.now, float(latency), float(accepted)))
        change = abs(latency - before_latency) / latency if latency else np.inf
        accepted_change = abs(accepted - before_accepted) / accepted if accepted else np.inf
        before_latency, before_accepted = latency, accepted
        if rules.measure_latency and 0 <= rules.latency_threshold < _latency_with_waiting(network):
            return False, network.now - reset_at, history
        warming = count[cs.PHASE] == modes.WARMING
        bounds = (
            (rules.warmup_change, rules.accepted_warmup_change)
            if warming
            else (rules.stopping_change, rules.accepted_stopping_change)
        )
        settled = (not rules.measure_latency or not 0 <= bounds[0] < change) and not 0 <= bounds[1] < accepted_change
        if warming:
            if (phases + 1 >= rules.warmup_periods) if rules.warmup_periods > 0 else settled:
                clear = True
                count[cs.PHASE] = modes.RUNNING
        else:
            converged = converged + 1 if settled else 0
        phases += 1
    window = network.now - reset_at
    if count[cs.PHASE] != modes.RUNNING:
        return False, window, history
    count[cs.PHASE], count[cs.DRAIN_FROM] = modes.DRAINING, network.now
    while rules.measure_latency:
        if network.run(traffic, 1000, mode=1) < 1000:
            break
        if 0 <= rules.latency_threshold < _latency_with_waiting(network):
            return False, window, history
    network.run(traffic, 1 << 40, generate=False, mode=2)
    return True, window, history


def _latency_with_waiting(network: CycleNetwork) -> float:
    """Mean latency of the packets that arrived and, so far, of the flits still under way."""
    count = network.counters
    waiting = network.now * int(count[cs.IN_FLIGHT]) - int(count[cs.IN_FLIGHT_CREATED])
    number = int(count[cs.SAMPLED_PACKETS]) + int(count[cs.IN_FLIGHT])
    return (int(count[cs.PACKET_LATENCY]) + waiting) / max(number, 1)


def _clear(network: CycleNetwork) -> None:
    for place in (
        cs.SAMPLED_PACKETS,
        cs.PACKET_LATENCY,
        cs.NETWORK_LATENCY,
        cs.FLIT_LATENCY,
        cs.SAMPLED_FLITS,
        cs.HOPS,
        cs.ACCEPTED,
        cs.SENT,
        cs.WORST,
        cs.FRAGMENTATION,
    ):
        network.counters[place] = 0
    network.memory.histogram[:] = 0
    network.memory.node[:, cs.N_ACCEPTED] = 0


def _result(
    network: CycleNetwork,
    stable: bool,
    window: int,
    history: list[tuple[int, float, float]],
    cpu_s: float,
    compile_s: float,
) -> CycleResult:
    count, memory = network.counters, network.memory
    packets, flits = max(int(count[cs.SAMPLED_PACKETS]), 1), max(int(count[cs.SAMPLED_FLITS]), 1)
    cycles, window = max(network.now, 1), max(window, 1)
    carried = memory.own[: len(memory.link_out) + network.topology.nodes, :, cs.W_FLITS]
    used = carried[memory.link_out] / cycles
    nodes = network.topology.nodes
    return CycleResult(
        float(count[cs.PACKET_LATENCY] / packets),
        float(count[cs.NETWORK_LATENCY] / packets),
        float(count[cs.FLIT_LATENCY] / flits),
        float(count[cs.FRAGMENTATION] / packets),
        float(count[cs.HOPS] / packets),
        float(count[cs.ACCEPTED] / window / nodes),
        float(count[cs.SENT] / window / nodes),
        stable,
        network.now,
        int(count[cs.SAMPLED_PACKETS]),
        int(carried.sum()),
        int(count[cs.WORST]),
        memory.histogram.copy(),
        used.sum(axis=1),
        used,
        memory.node[:, cs.N_ACCEPTED] / window,
        cpu_s,
        compile_s,
        history,
    )


def _per_router(
    topology: Topology, given: RouterParameters | Sequence[RouterParameters] | None
) -> list[RouterParameters]:
    if given is None or isinstance(given, RouterParameters):
        return [given or RouterParameters()] * topology.routers
    routers = list(given)
    if len(routers) != topology.routers:
        fail(f"{topology.routers} routers need as many parameter sets", key="router_parameters", value=len(routers))
    common = (
        "virtual_channels",
        "vc_allocator",
        "switch_allocator",
        "alloc_iterations",
        "input_speedup",
        "output_speedup",
        "switch_speedup",
        "wait_for_tail_credit",
        "vc_busy_when_full",
    )
    for name in common:
        if len({getattr(router, name) for router in routers}) > 1:
            fail("this must be the same for all routers of a network", key=name)
    return routers


def _check(topology: Topology, chosen: Pattern, injection: Injection, sampling: Sampling) -> None:
    problems = []
    rate = np.atleast_1d(np.asarray(injection.rate, float))
    if not np.isfinite(rate).all() or (rate < 0).any() or (rate > 1).any():
        worst = float(rate.min() if rate.min() < 0 else rate.max())
        problems.append(Problem("packets per node and cycle must be 0 to 1", key="injection_rate", value=worst))
    if len(rate) not in (1, topology.nodes):
        problems.append(Problem(f"one rate, or one for each of {topology.nodes} nodes", key="injection_rate"))
    if chosen.nodes != topology.nodes:
        problems.append(Problem(f"the traffic is for {chosen.nodes} nodes, the network has {topology.nodes}"))
    if len(injection.packet_flits) == 0 or min(injection.packet_flits) < 1:
        problems.append(Problem("packets have at least one flit", key="packet_size", value=injection.packet_flits))
    if len(injection.packet_weights) != len(injection.packet_flits) or min(injection.packet_weights, default=1) < 0:
        problems.append(Problem("each packet size needs a weight that is not negative", key="packet_size_rate"))
    problems += [
        Problem("must be at least 1", key=name, value=getattr(sampling, name))
        for name in ("period", "max_periods")
        if getattr(sampling, name) < 1
    ]
    if problems:
        raise TierformError(problems)
