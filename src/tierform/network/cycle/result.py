"""What the cycle engine measured: one record for a run of random traffic, one for each class of packets in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tierform.network.topology import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class ClassResult:
    """One class of packets: mean latencies in cycles, hops, accepted flits per node and cycle, packets measured."""

    packet_latency_cycles: float
    network_latency_cycles: float
    flit_latency_cycles: float
    hops: float
    accepted_flit_rate: float
    packets: int


@dataclass(frozen=True, eq=False)
class CycleResult:
    """What a simulation measured.  Latencies in cycles, means over measured packets (flit latency: over flits).

    `histogram[k]` counts packets with latency k (the last bin: that or more).  `link_utilization` is flits per
    cycle and link, `vc_utilization` (links, virtual channels), both over the whole run; subnets are added up.
    `end` says in words why an unstable run ended.  `batch_cycles`: how long each batch took.
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
    end: str = ""
    history: list[tuple[int, float, float]] = field(default_factory=list)
    classes: tuple[ClassResult, ...] = ()
    batch_cycles: tuple[int, ...] = ()

    def percentile(self, percent: float) -> float:
        """The latency that `percent` of the measured packets do not exceed."""
        total = self.histogram.sum()
        if total == 0:
            return float("nan")
        return float(np.searchsorted(np.cumsum(self.histogram), np.ceil(percent / 100 * total)))
