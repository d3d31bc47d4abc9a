"""Random traffic, simulated flit by flit: warm-up, sample periods until the statistics settle, and draining.

:func:`simulate_traffic` runs warm-up periods, then sample periods until mean latency and accepted rate settle, then
drains the packets measured; above a latency threshold the network is called unstable.  The rules (periods, thresholds,
what is measured, batches) are those of BookSim2's latency, throughput and batch modes, so that results compare.
Draining is bounded, and a network in which nothing moves is called deadlocked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tierform.errors import Problem, TierformError
from tierform.network.case import Batches, Injection, Sampling, Thresholds, TrafficCase, TrafficClass
from tierform.network.cycle import modes
from tierform.network.cycle import state as cs
from tierform.network.cycle.compiled import loop
from tierform.network.cycle.engine import CycleNetwork, TrafficArrays, random_traffic
from tierform.network.cycle.result import ClassResult, CycleResult
from tierform.network.parameters import RouterParameters
from tierform.network.routing import Routing
from tierform.network.topology import Topology
from tierform.network.traffic import Pattern, pattern

Progress = Callable[[str, int], None]
# The most cycles that a batch may take.
MAX_BATCH_CYCLES = 100_000_000


def simulate_traffic(
    topology: Topology,
    traffic: Pattern | str,
    injection: Injection | float,
    *,
    routing: Routing | str = "default",
    router_parameters: RouterParameters | Sequence[RouterParameters] | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
) -> CycleResult:
    """Simulate random traffic until its statistics settle; `injection` may be packets per node and cycle."""
    injection = injection if isinstance(injection, Injection) else Injection(injection)
    chosen = traffic if isinstance(traffic, Pattern) else pattern(traffic, topology.nodes)
    classes = (TrafficClass(chosen, injection),)
    sampling = sampling or Sampling()
    _check(topology, classes, sampling)
    network = CycleNetwork(topology, routing, router_parameters, seed, single_flits=_single_flits(classes))
    return _run(network, classes, sampling, seed, None)


def simulate_case(case: TrafficCase, progress: Progress | None = None) -> CycleResult:
    """Simulate a case of one or several classes of packets, in samples or batches.

    `progress` is called with what is going on and the cycle, now and then.
    """
    _check(case.topology, case.classes, case.sampling)
    network = CycleNetwork(
        case.topology,
        case.routing,
        case.router,
        case.seed,
        single_flits=_single_flits(case.classes),
        class_priorities=[group.priority for group in case.classes],
        subnets=case.subnets,
    )
    if case.batches is not None:
        return simulate_batches(network, case.classes, case.batches, case.seed, progress)
    return _run(network, case.classes, case.sampling, case.seed, progress)


def _single_flits(classes: Sequence[TrafficClass]) -> bool:
    return max(max(group.injection.packet_flits) for group in classes) == 1


def _load(network: CycleNetwork) -> float:
    """CPU seconds until the loop is compiled or loaded."""
    started = time.process_time()
    loop("run_bitmask" if network.bitmask else "run_general")
    return time.process_time() - started


def _run(
    network: CycleNetwork, classes: Sequence[TrafficClass], sampling: Sampling, seed: int, progress: Progress | None
) -> CycleResult:
    arrays = random_traffic(classes, network.memory, seed)
    compile_s = _load(network)
    started = time.process_time()
    stable, window, history, end = _sample(network, arrays, classes, sampling, progress)
    cpu_s = time.process_time() - started
    return _result(network, len(classes), window, cpu_s, compile_s, stable=stable, history=history, end=end)


def simulate_batches(
    network: CycleNetwork,
    classes: Sequence[TrafficClass],
    batches: Batches,
    seed: int = 0,
    progress: Progress | None = None,
) -> CycleResult:
    """Every node sends its packets as fast as it can, and the next batch begins when all have arrived."""
    arrays = random_traffic(classes, network.memory, seed, batches)
    compile_s = _load(network)
    started = time.process_time()
    node, count = network.memory.node, network.counters
    took = []
    for number in range(batches.count):
        _clear(network)
        begun = network.now
        count[cs.PHASE] = modes.RUNNING
        node[:, cs.N_READY], node[:, cs.N_NEXT] = batches.packets, network.now
        network.run(arrays, 1)
        name = f"batch {number + 1}"
        tell = None if progress is None else lambda cycle, name=name: progress(name, cycle)
        network.run_until(arrays, MAX_BATCH_CYCLES, 2, progress=tell)
        took.append(network.now - begun)
    cpu_s = time.process_time() - started
    window = took[-1] if took else 1
    return _result(network, 1, window, cpu_s, compile_s, stable=True, batch_cycles=tuple(took))


class _Books:
    """The sums of each class of packets, wherever they are kept."""

    def __init__(self, network: CycleNetwork, classes: Sequence[TrafficClass], sampling: Sampling) -> None:
        self.network, self.several = network, len(classes) > 1
        self.measured = [number for number, group in enumerate(classes) if group.measured]
        self.thresholds = [group.thresholds or sampling.thresholds for group in classes]

    def value(self, number: int, one: int, many: int) -> int:
        """A counter of a class: that of the run where there is one class only."""
        place = cs.COUNTERS + number * cs.CLASS_COUNTERS + many if self.several else one
        return int(self.network.counters[place])

    def latency(self, number: int) -> float:
        """Mean latency of the packets that arrived."""
        packets = self.value(number, cs.SAMPLED_PACKETS, cs.K_PACKETS)
        return self.value(number, cs.PACKET_LATENCY, cs.K_LATENCY) / max(packets, 1)

    def accepted(self, number: int) -> int:
        """Flits accepted."""
        return self.value(number, cs.ACCEPTED, cs.K_ACCEPTED)

    def exceeded(self) -> int | None:
        """The first measured class whose latency, flits under way counted so far, is above its threshold."""
        for number in self.measured:
            flits = self.value(number, cs.IN_FLIGHT, cs.K_IN_FLIGHT)
            created = self.value(number, cs.IN_FLIGHT_CREATED, cs.K_IN_FLIGHT_CREATED)
            packets = self.value(number, cs.SAMPLED_PACKETS, cs.K_PACKETS)
            total = self.value(number, cs.PACKET_LATENCY, cs.K_LATENCY) + self.network.now * flits - created
            if 0 <= self.thresholds[number].latency_cycles < total / max(packets + flits, 1):
                return number
        return None

    def settled(self, before: list[tuple[float, float]], now: list[tuple[float, float]], rules: Sampling) -> bool:
        """Whether latency and accepted rate of all measured classes changed less than their thresholds."""
        warming = self.network.counters[cs.PHASE] == modes.WARMING
        for number in self.measured:
            limits: Thresholds = self.thresholds[number]
            pair = (
                (limits.warmup_change, limits.accepted_warmup_change)
                if warming
                else (limits.stopping_change, limits.accepted_stopping_change)
            )
            for place in range(0 if rules.measure_latency else 1, 2):
                new, old = now[number][place], before[number][place]
                change = abs(new - old) / new if new else np.inf
                if 0 <= pair[place] < change:
                    return False
        return True


def _sample(
    network: CycleNetwork,
    traffic: TrafficArrays,
    classes: Sequence[TrafficClass],
    rules: Sampling,
    progress: Progress | None,
) -> tuple[bool, int, list[tuple[int, float, float]], str]:
    """Whether it was stable, the cycles over which flits were counted, (cycle, latency, rate) per period, and why."""
    count, books = network.counters, _Books(network, classes, rules)
    history: list[tuple[int, float, float]] = []
    converged, phases, clear = 0, 0, False
    before, reset_at = [(0.0, 0.0)] * len(classes), 0
    count[cs.PHASE] = modes.WARMING
    too_slow = "the mean latency of class {} exceeded its threshold"
    while phases < rules.max_periods and (count[cs.PHASE] != modes.RUNNING or converged < 3):
        if clear or (count[cs.PHASE] == modes.WARMING and phases % 2 == 0):
            clear, reset_at = False, network.now
            _clear(network)
        tell = None if progress is None else lambda cycle: progress("sampling", cycle)
        network.run_until(traffic, rules.period, 0, progress=tell)
        network.refuse_deadlock()
        window = (network.now - reset_at) * network.topology.nodes
        now = [(books.latency(number), books.accepted(number) / window) for number in range(len(classes))]
        history.append((network.now, *now[0]))
        over = books.exceeded() if rules.measure_latency else None
        if over is not None:
            return False, network.now - reset_at, history, too_slow.format(over)
        settled = books.settled(before, now, rules)
        before = now
        if count[cs.PHASE] == modes.WARMING:
            if (phases + 1 >= rules.warmup_periods) if rules.warmup_periods > 0 else settled:
                clear = True
                count[cs.PHASE] = modes.RUNNING
        else:
            converged = converged + 1 if settled else 0
        phases += 1
    window = network.now - reset_at
    if count[cs.PHASE] != modes.RUNNING:
        return False, window, history, "the warm-up did not settle"
    count[cs.PHASE], count[cs.DRAIN_FROM] = modes.DRAINING, network.now
    end = _drain(network, traffic, books, rules, progress, too_slow) if rules.measure_latency else ""
    if not end:
        tell = None if progress is None else lambda cycle: progress("emptying", cycle)
        network.run_until(traffic, rules.max_drain_cycles, 2, generate=False, progress=tell)
        if count[cs.IN_FLIGHT] > 0:
            end = f"{int(count[cs.IN_FLIGHT])} flits were left after {rules.max_drain_cycles:,} cycles of draining"
    return not end, window, history, end


def _drain(
    network: CycleNetwork,
    traffic: TrafficArrays,
    books: _Books,
    rules: Sampling,
    progress: Progress | None,
    too_slow: str,
) -> str:
    """Run until all measured packets have arrived; why it was given up, else nothing."""
    began = network.now
    while network.run(traffic, 1000, mode=1) == 1000:
        network.refuse_deadlock()
        if progress is not None:
            progress("draining", network.now)
        over = books.exceeded()
        if over is not None:
            return too_slow.format(over)
        if network.now - began >= rules.max_drain_cycles:
            return f"measured packets were left after {rules.max_drain_cycles:,} cycles of draining"
    return ""


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
    groups = network.counters[cs.COUNTERS :].reshape(-1, cs.CLASS_COUNTERS)
    groups[:, [cs.K_PACKETS, cs.K_LATENCY, cs.K_NETWORK, cs.K_FLIT_LATENCY, cs.K_FLITS, cs.K_HOPS, cs.K_ACCEPTED]] = 0
    network.memory.histogram[:] = 0
    network.memory.node[:, cs.N_ACCEPTED] = 0


def _result(
    network: CycleNetwork, classes: int, window: int, cpu_s: float, compile_s: float, **outcome: Any
) -> CycleResult:
    count, memory, topology = network.counters, network.memory, network.topology
    packets, flits = max(int(count[cs.SAMPLED_PACKETS]), 1), max(int(count[cs.SAMPLED_FLITS]), 1)
    cycles, window = max(network.now, 1), max(window, 1)
    carried = memory.own[: len(memory.link_out) + int(memory.words[cs.NODES]), :, cs.W_FLITS]
    by_subnet = int(memory.words[cs.SUBNETS]), topology.links, carried.shape[1]
    used = carried[memory.link_out].reshape(by_subnet).sum(axis=0) / cycles
    accepted = memory.node[:, cs.N_ACCEPTED].reshape(-1, topology.nodes).sum(axis=0) / window
    return CycleResult(
        packet_latency_cycles=float(count[cs.PACKET_LATENCY] / packets),
        network_latency_cycles=float(count[cs.NETWORK_LATENCY] / packets),
        flit_latency_cycles=float(count[cs.FLIT_LATENCY] / flits),
        fragmentation_cycles=float(count[cs.FRAGMENTATION] / packets),
        hops=float(count[cs.HOPS] / packets),
        accepted_flit_rate=float(count[cs.ACCEPTED] / window / topology.nodes),
        injected_flit_rate=float(count[cs.SENT] / window / topology.nodes),
        cycles=network.now,
        packets=int(count[cs.SAMPLED_PACKETS]),
        flit_hops=int(carried.sum()),
        worst_latency_cycles=int(count[cs.WORST]),
        histogram=memory.histogram.copy(),
        link_utilization=used.sum(axis=1),
        vc_utilization=used,
        node_accepted=accepted,
        cpu_s=cpu_s,
        compile_s=compile_s,
        classes=_class_results(network, classes, window),
        **outcome,
    )


def _class_results(network: CycleNetwork, classes: int, window: int) -> tuple[ClassResult, ...]:
    """One record for each class where there are several."""
    results = []
    for group in network.counters[cs.COUNTERS :].reshape(-1, cs.CLASS_COUNTERS)[: classes if classes > 1 else 0]:
        packets, flits = max(int(group[cs.K_PACKETS]), 1), max(int(group[cs.K_FLITS]), 1)
        results.append(
            ClassResult(
                packet_latency_cycles=float(group[cs.K_LATENCY] / packets),
                network_latency_cycles=float(group[cs.K_NETWORK] / packets),
                flit_latency_cycles=float(group[cs.K_FLIT_LATENCY] / flits),
                hops=float(group[cs.K_HOPS] / packets),
                accepted_flit_rate=float(group[cs.K_ACCEPTED] / window / network.topology.nodes),
                packets=int(group[cs.K_PACKETS]),
            )
        )
    return tuple(results)


def _check(topology: Topology, classes: Sequence[TrafficClass], sampling: Sampling) -> None:
    problems = []
    for group in classes:
        injection, chosen = group.injection, group.traffic
        rate = np.atleast_1d(np.asarray(injection.rate, float))
        if not np.isfinite(rate).all() or (rate < 0).any() or (rate > 1).any():
            worst = float(rate.min() if rate.min() < 0 else rate.max())
            problems.append(Problem("packets per node and cycle must be 0 to 1", key="injection_rate", value=worst))
        if len(rate) not in (1, topology.nodes):
            problems.append(Problem(f"one rate, or one for each of {topology.nodes} nodes", key="injection_rate"))
        if chosen.nodes != topology.nodes:
            what = f"the traffic is for {chosen.nodes} nodes, the network has {topology.nodes}"
            problems.append(Problem(what, key="traffic"))
        sizes = injection.packet_flits
        if len(sizes) == 0 or min(sizes) < 1 or max(sizes) > 1 << 20:
            problems.append(Problem("packets have 1 to 1,048,576 flits", key="packet_size", value=sizes))
        if len(injection.packet_weights) != len(sizes) or min(injection.packet_weights, default=1) < 0:
            problems.append(Problem("each packet size needs a weight that is not negative", key="packet_size_rate"))
    problems += [
        Problem("must be at least 1", key=name, value=getattr(sampling, name))
        for name in ("period", "max_periods")
        if getattr(sampling, name) < 1
    ]
    if problems:
        raise TierformError(problems)
