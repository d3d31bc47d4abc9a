"""What a run of random traffic is given: how sources inject, when to measure, and the network that carries it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class Sampling:
    """When to start, continue and stop measuring.  Thresholds are relative changes between periods; below 0: unused."""

    period: int = 1000
    warmup_periods: int = 3
    max_periods: int = 10
    latency_threshold: float = 500.0
    warmup_change: float = 0.05
    accepted_warmup_change: float = 0.05
    stopping_change: float = 0.05
    accepted_stopping_change: float = 0.05
    measure_latency: bool = True


@dataclass(frozen=True, eq=False)
class TrafficCase:
    """Random traffic on a network, ready to run on either engine."""

    topology: Topology
    routing: Routing
    balanced_rings: bool
    router: RouterParameters
    traffic: Pattern
    injection: Injection
    sampling: Sampling
    seed: int

    @property
    def flit_rate(self) -> float:
        """Flits offered per node and cycle."""
        return float(self.injection.rate) * self.injection.mean_flits  # type: ignore[arg-type]

    def at_flit_rate(self, rate: float) -> TrafficCase:
        """The same case at another offered load."""
        return replace(self, injection=replace(self.injection, rate=rate / self.injection.mean_flits))
