"""A network ready to be simulated cycle by cycle: its memory, its compiled loop, and what its sources send.

Routes, virtual-channel classes and their proof of freedom from deadlock come from
:mod:`tierform.network.deadlock`; sampling random traffic is in :mod:`tierform.network.cycle.sampling`.

Limits: all routers have the same number of virtual channels and allocators; output queues behind the crossbar are as
long as credits allow.  One thread per simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tierform.arrays import Floats, Ints
from tierform.errors import Problem, TierformError, fail
from tierform.network.case import Batches, TrafficClass
from tierform.network.cycle import modes
from tierform.network.cycle import state as cs
from tierform.network.cycle.bitmask import fits_bitmask_router
from tierform.network.cycle.build import Settings, build, refuse_huge
from tierform.network.cycle.compiled import call
from tierform.network.cycle.state import Memory
from tierform.network.deadlock import virtual_channel_plan
from tierform.network.parameters import RouterParameters
from tierform.network.routing import Routing, choose_routing
from tierform.network.topology import FloatArray, IntArray, Lines, Topology

# Cycles after which a run in which nothing has moved is called a deadlock, and between two looks.
STUCK_CYCLES = 20_000
CHUNK_CYCLES = 10_000


class TrafficArrays(NamedTuple):
    """What the sources send, as the compiled loop takes it: arrays with a row for each class of packets.

    `kinds` is (classes, 2): the kind of pattern and its first row of `weights`; `rate` (2 * classes, nodes): packets
    per cycle and 1 / log(1 - rate); `sizes` packet sizes in flits with cumulative `size_weights`; `target` a
    permutation; `weights` cumulative; `burst` (classes, 4): chances to start and to stop bursting (0 for steady
    sources), whether it is a batch, and how many packets of it may be on their way; `flows` as in ``flow_release``.
    """

    kinds: Ints
    rate: Floats
    sizes: Ints
    size_weights: Floats
    target: Ints
    weights: Floats
    burst: Floats
    flows: IntArray


class CycleNetwork:
    """A network ready to be simulated cycle by cycle."""

    def __init__(
        self,
        topology: Topology,
        routing: Routing | str = "default",
        router_parameters: RouterParameters | Sequence[RouterParameters] | None = None,
        seed: int = 0,
        single_flits: bool = False,
        class_priorities: Sequence[int] = (0,),
        subnets: int = 1,
    ) -> None:
        """With a sequence, router r has ``router_parameters[r]``; `single_flits` says that no packet is longer.

        Routing that can deadlock is refused here.
        """
        self.topology = topology
        self.routing = routing if isinstance(routing, Routing) else choose_routing(topology, routing)
        self.routers = _per_router(topology, router_parameters)
        refuse_huge(topology, self.routers[0], subnets)
        plan = virtual_channel_plan(self.routing, self.routers[0].virtual_channels)
        settings = Settings(
            seed=seed,
            commit=not single_flits,
            adaptive_channels=self.routing.adaptive_channels,
            stop_at_home=isinstance(topology.structure, Lines),
            class_priorities=tuple(class_priorities),
            subnets=subnets,
        )
        self.memory = build(topology, self.routers, plan, settings)
        self.counters = self.memory.counters
        self.bitmask = fits_bitmask_router(self.memory, self.routers)
        self._partial = np.zeros(1)
        self._moved_at, self._moved = 0, -1

    def run(self, traffic: TrafficArrays, cycles: int, generate: bool = True, mode: int = 0) -> int:
        """Advance by at most `cycles`; see :func:`tierform.network.cycle.advance.is_done` for `mode`."""
        name = "run_bitmask" if self.bitmask else "run_general"
        speedup = float(self.routers[0].switch_speedup)
        ran = call(name, self.memory, traffic, cycles, generate, mode, speedup, self._partial)
        if self.counters[cs.ERROR]:
            raise RuntimeError(
                f"the cycle engine broke its own rule {int(self.counters[cs.ERROR])}: please report this"
            )
        return ran

    def run_until(
        self,
        traffic: TrafficArrays,
        cycles: int,
        mode: int,
        generate: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Advance in pieces by at most `cycles` or until `mode` is met, telling `progress` the cycle of each piece.

        TierformError when nothing has moved for a long time, as in a deadlock.
        """
        done = 0
        while done < cycles:
            piece = min(CHUNK_CYCLES, cycles - done)
            ran = self.run(traffic, piece, generate, mode)
            done += ran
            if progress is not None:
                progress(self.now)
            if ran < piece:
                break
            self.refuse_deadlock()
        return done

    def refuse_deadlock(self) -> None:
        """TierformError when flits are on their way and none has moved since many cycles."""
        carried = int(self.memory.own[:, :, cs.W_FLITS].sum()) + int(self.counters[cs.SENT])
        if carried != self._moved or self.counters[cs.IN_FLIGHT] == 0:
            self._moved, self._moved_at = carried, self.now
        elif self.now - self._moved_at >= STUCK_CYCLES:
            fail(
                f"nothing has moved since cycle {self._moved_at:,}: this routing has deadlocked",
                key="routing",
                value=self.routing.name,
                fix="Use more virtual channels or another routing.",
            )

    @property
    def now(self) -> int:
        """The number of cycles simulated."""
        return int(self.counters[cs.NOW])


def random_traffic(
    classes: Sequence[TrafficClass], memory: Memory, seed: int, batches: Batches | None = None
) -> TrafficArrays:
    """The arrays of random traffic, and each source's first packet time."""
    nodes = classes[0].traffic.nodes
    rng = np.random.default_rng(seed)
    many = len(classes) > 1 or int(memory.words[cs.SUBNETS]) > 1
    kinds, rates, targets, weights, bursts = [], [], [], [], []
    rows = 0
    for number, group in enumerate(classes):
        kind, target, own = _pattern_arrays(group)
        kinds.append((kind, rows))
        targets.append(np.zeros(nodes, np.int64) if target is None else target)
        if own is not None:
            weights.append(own)
            rows += len(own)
        injection = group.injection
        rate = np.broadcast_to(np.asarray(injection.rate, float), nodes).copy()
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where((rate > 0) & (rate < 1), 1 / np.log1p(-rate), 0.0)
            first = np.floor(np.log(1 - rng.random(nodes)) / np.log1p(-np.minimum(rate, 1)))
        rates += [rate, inverse]
        source = memory.node if not many else memory.section(cs.AT_QUEUES, nodes * len(classes), cs.N_SIZE)
        mine = source[number * nodes : (number + 1) * nodes]
        first = np.where(rate > 0, np.where(rate < 1, np.nan_to_num(first, posinf=0, neginf=0), 0), 2.0**31 - 1)
        mine[:, cs.N_NEXT] = np.minimum(first, 2.0**31 - 1)
        mine[:, cs.N_ON] = rng.integers(0, 2, nodes)
        on_off = injection.start_chance is not None
        bursts.append([injection.start_chance or 0.0, injection.stop_chance or 0.0] if on_off else [0.0, 0.0])
    sizes = [np.asarray(group.injection.packet_flits, np.int64) for group in classes]
    shares = [np.cumsum(np.asarray(group.injection.packet_weights, float)) for group in classes]
    widest = max(len(size) for size in sizes)
    batch = [1.0, float(batches.outstanding)] if batches is not None else [0.0, 0.0]
    return TrafficArrays(
        kinds=np.array(kinds, np.int64),
        rate=np.stack(rates),
        sizes=np.stack([np.pad(size, (0, widest - len(size)), mode="edge") for size in sizes]),
        size_weights=np.stack([np.pad(s / s[-1], (0, widest - len(s)), constant_values=1.0) for s in shares]),
        target=np.stack(targets).astype(np.int64),
        weights=np.concatenate(weights) if weights else np.zeros((1, 1)),
        burst=np.array([[*burst, *batch] for burst in bursts]),
        flows=np.zeros(4, np.int64),
    )


def _pattern_arrays(group: TrafficClass) -> tuple[int, IntArray | None, FloatArray | None]:
    """The kind of a class's pattern, its permutation and its cumulative weights."""
    chosen = group.traffic
    if chosen.target is not None:
        return modes.PERMUTATION, chosen.target, None
    if chosen.shared is not None:
        return modes.SHARED_WEIGHTS, None, np.cumsum(chosen.shared)[None, :]
    if chosen.pairs is not None:
        return modes.MATRIX, None, np.cumsum(chosen.pairs, axis=1)
    return modes.UNIFORM, None, None


def listed_traffic(kind: int, flows: IntArray) -> TrafficArrays:
    """Traffic arrays for flows or listed packets (`kind`), as the loop takes them."""
    return TrafficArrays(
        kinds=np.array([[kind, 0]], np.int64),
        rate=np.zeros((2, 1)),
        sizes=np.ones((1, 1), np.int64),
        size_weights=np.ones((1, 1)),
        target=np.zeros((1, 1), np.int64),
        weights=np.zeros((1, 1)),
        burst=np.zeros((1, 4)),
        flows=flows,
    )


def _per_router(
    topology: Topology, given: RouterParameters | Sequence[RouterParameters] | None
) -> list[RouterParameters]:
    if given is None or isinstance(given, RouterParameters):
        return [given or RouterParameters()] * topology.routers
    routers = list(given)
    if len(routers) != topology.routers:
        fail(f"{topology.routers} routers need as many parameter sets", key="router_parameters", value=len(routers))
    own = ("buffer_flits", "flit_bits", "routing_delay", "vc_alloc_delay", "switch_alloc_delay", "crossbar_delay")
    problems = [
        Problem("this must be the same for all routers of a network", key=name)
        for name in RouterParameters.__dataclass_fields__
        if name not in (*own, "credit_delay") and len({getattr(router, name) for router in routers}) > 1
    ]
    if problems:
        raise TierformError(problems)
    return routers
