"""What a searched network carries by cycle: the load at which the cycle-level engine no longer delivers what is sent.

Sources send at random in proportion to the problem's traffic.  Load 1 is where the busiest tile sends, or is sent, one
flit a cycle: no network carries more.  Mesh and design have the same virtual channels and buffers.
Limits: single flits, no order between transfers; found to within :data:`STEP`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tierform.errors import TierformError
from tierform.exploration.network_search import NetworkDesign
from tierform.network.case import Injection, Sampling
from tierform.network.cycle.sampling import simulate_traffic
from tierform.network.parameters import RouterParameters
from tierform.network.traffic import Pattern, pattern

Floats = NDArray[np.float64]
# A load is carried where so much of what is sent is delivered.
DELIVERED = 0.97
STEP = 0.02


def carried_load(design: NetworkDesign, *, router: RouterParameters | None = None, seed: int = 0) -> float:
    """The largest load that a design carries, in steps of :data:`STEP`."""
    if router is None:
        router = replace(design.problem.network.router, virtual_channels=4, buffer_flits=8)
    n = len(design.place)
    flow = np.zeros((n, n))
    flow[np.ix_(design.place, design.place)] = design.problem.flow
    sent = flow.sum(axis=1)
    share = sent / max(sent.max(), flow.sum(axis=0).max())
    # A source without traffic needs a row all the same; its rate is nothing.
    weights = np.where((sent > 0)[:, None], flow, 1.0 - np.eye(n))
    traffic = pattern("matrix", n, weights=weights)
    low, high = 0, round(1 / STEP)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if _carries(design, middle * STEP * share, router, traffic, seed) else (low, middle - 1)
        )
    return round(low * STEP, 6)


def _carries(design: NetworkDesign, rate: Floats, router: RouterParameters, traffic: Pattern, seed: int) -> bool:
    sampling = Sampling(period=1000, warmup_periods=2, max_periods=3, measure_latency=False)
    topology = design.network.topology
    try:
        result = simulate_traffic(
            topology, traffic, Injection(rate.tolist()), router_parameters=router, sampling=sampling, seed=seed
        )
    except TierformError:
        return False
    return float(result.node_accepted.mean()) >= DELIVERED * float(rate.mean())


__all__ = ["carried_load"]
