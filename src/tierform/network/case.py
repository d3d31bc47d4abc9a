"""What a run of random traffic is given: how sources inject, when to measure, and the network that carries it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum

import numpy as np

from tierform.network.parameters import RouterParameters
from tierform.network.routing import Routing
from tierform.network.topology import Topology
from tierform.network.traffic import Pattern


@dataclass(frozen=True, slots=True)
class Injection:
    """How sources send: packets per node and cycle, sizes with chances, and bursts (an on-off source) if wanted."""

    rate: float | Sequence[float]
    packet_flits: Sequence[int] = (1,)
    packet_weights: Sequence[float] = (1.0,)
    start_chance: float | None = None
    stop_chance: float | None = None

    @property
    def mean_flits(self) -> float:
        """Mean packet size in flits."""
        weights = np.asarray(self.packet_weights, float)
        return float(np.asarray(self.packet_flits) @ weights / weights.sum())

    @property
    def flits_squared(self) -> float:
        """Mean of the squares of packets' sizes in flits."""
        weights = np.asarray(self.packet_weights, float)
        return float(np.asarray(self.packet_flits, float) ** 2 @ weights / weights.sum())


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a class of packets is unstable, and when it has settled.  Below 0: unused.

    `latency_cycles` is a mean latency, the others are relative changes between periods: of latency and of the accepted
    rate, while warming up and while measuring.
    """

    latency_cycles: float = 500.0
    warmup_change: float = 0.05
    accepted_warmup_change: float = 0.05
    stopping_change: float = 0.05
    accepted_stopping_change: float = 0.05


@dataclass(frozen=True, slots=True)
class Sampling:
    """When to start, continue and stop measuring; `thresholds` hold for classes that have none of their own.

    Packets that are still on their way after `max_drain_cycles` make a run unstable.
    """

    period: int = 1000
    warmup_periods: int = 3
    max_periods: int = 10
    thresholds: Thresholds = Thresholds()
    measure_latency: bool = True
    max_drain_cycles: int = 1_000_000


@dataclass(frozen=True, eq=False)
class TrafficClass:
    """One class of packets: its pattern, its sources, its priority (higher goes first) and its thresholds.

    A class that is not `measured` is only there.
    """

    traffic: Pattern
    injection: Injection
    priority: int = 0
    thresholds: Thresholds | None = None
    measured: bool = True


@dataclass(frozen=True, eq=False)
class Batches:
    """Every node sends `packets` packets as fast as it can, `count` times; `outstanding` at once (0: any number)."""

    packets: int = 1000
    count: int = 1
    outstanding: int = 0


@dataclass(frozen=True, eq=False)
class TrafficCase:
    """Random traffic on a network, ready to run on either engine; `batches` instead of sampling if given."""

    topology: Topology
    routing: Routing
    router: RouterParameters
    classes: tuple[TrafficClass, ...]
    sampling: Sampling
    seed: int = 0
    subnets: int = 1
    batches: Batches | None = None

    @property
    def traffic(self) -> Pattern:
        """The pattern of the first class."""
        return self.classes[0].traffic

    @property
    def injection(self) -> Injection:
        """The sources of the first class."""
        return self.classes[0].injection

    @property
    def flit_rate(self) -> float:
        """Flits offered per node and cycle, over all classes."""
        return float(fsum(_flit_rate(group.injection) for group in self.classes))

    def at_flit_rate(self, rate: float) -> TrafficCase:
        """The same case at another offered load; the classes keep their shares of it."""
        whole = self.flit_rate
        changed = []
        for group in self.classes:
            share = _flit_rate(group.injection) / whole if whole else 1 / len(self.classes)
            injection = replace(group.injection, rate=rate * share / group.injection.mean_flits)
            changed.append(replace(group, injection=injection))
        return replace(self, classes=tuple(changed))


def _flit_rate(injection: Injection) -> float:
    return float(injection.rate) * injection.mean_flits  # type: ignore[arg-type]
