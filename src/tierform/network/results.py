"""Results of network runs as plain rows: one dictionary per load, from either engine, ready for a table or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from math import fsum
from typing import Any

import numpy as np

from tierform.errors import fail
from tierform.network.analytic import AnalyticNetwork
from tierform.network.case import TrafficCase
from tierform.network.topology import FloatArray


def flit_rates(text: str | None, case: TrafficCase) -> list[float]:
    """The loads asked for on the command line, or the one of the file; flits per node and cycle."""
    if text is None:
        return [case.flit_rate]
    loads = []
    for part in text.split(","):
        try:
            load = float(part)
        except ValueError:
            fail("a list of numbers is needed", key="--rates", value=text)
        if not 0 <= load <= case.injection.mean_flits:
            fail(f"loads must be 0 to {case.injection.mean_flits:g}", key="--rates", value=load)
        loads.append(load)
    return loads


def run_case(
    case: TrafficCase, load: float | None = None, progress: Callable[[str, int], None] | None = None
) -> dict[str, object]:
    """Simulate one case cycle by cycle, at its own or another load."""
    from tierform.network.cycle.sampling import simulate_case

    chosen = case if load is None else case.at_flit_rate(load)
    result = simulate_case(chosen, progress)
    means: dict[str, object] = {
        "packet_latency_cycles": result.packet_latency_cycles,
        "network_latency_cycles": result.network_latency_cycles,
        "flit_latency_cycles": result.flit_latency_cycles,
        "fragmentation_cycles": result.fragmentation_cycles,
        "packet_latency_p50_cycles": result.percentile(50),
        "packet_latency_p99_cycles": result.percentile(99),
        "worst_latency_cycles": result.worst_latency_cycles,
        "hops": result.hops,
    }
    return {
        "offered_flit_rate": chosen.flit_rate,
        # Without a packet there is no latency.
        **{name: value if result.packets else None for name, value in means.items()},
        "accepted_flit_rate": result.accepted_flit_rate,
        "injected_flit_rate": result.injected_flit_rate,
        "stable": result.stable,
        "end": result.end,
        "cycles": result.cycles,
        "packets": result.packets,
        "flit_hops": result.flit_hops,
        "cpu_s": result.cpu_s,
        "compile_s": result.compile_s,
        "busiest_link_load": float(result.link_utilization.max(initial=0.0)),
        "link_load": result.link_utilization.tolist(),
        "vc_load": result.vc_utilization.tolist(),
        "latency_histogram": np.trim_zeros(result.histogram, "b").tolist(),
        "classes": [asdict(group) for group in result.classes],
        "batch_cycles": list(result.batch_cycles),
    }


def cycle_rows(
    case: TrafficCase, loads: Sequence[float], jobs: int = 1, progress: Callable[[str, int], None] | None = None
) -> Iterator[dict[str, Any]]:
    """Simulate several loads, in order, with up to `jobs` processes (one thread each)."""
    if jobs <= 1 or len(loads) == 1:
        for load in loads:
            yield run_case(case, load, progress)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(min(jobs, len(loads)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(run_case, [case] * len(loads), loads)


def whole_matrix(case: TrafficCase) -> tuple[FloatArray, float, float]:
    """(nodes, nodes) shares of all classes' flits together, the mean packet size and the mean of its square."""
    shares = [group.injection.mean_flits * float(np.mean(group.injection.rate)) for group in case.classes]
    total = fsum(shares) or 1.0
    matrix = np.zeros((case.topology.nodes, case.topology.nodes))
    packets = squares = 0.0
    for share, group in zip(shares, case.classes, strict=True):
        part = share / total if fsum(shares) else 1.0 / len(case.classes)
        matrix += part * group.traffic.matrix()
        packets += part / group.injection.mean_flits
        squares += part / group.injection.mean_flits * group.injection.flits_squared
    return matrix, 1.0 / packets, squares / packets


def not_in_closed_form(case: TrafficCase) -> list[str]:
    """What of a case the analytic engine does not know, a sentence each."""
    notes = []
    if case.router.priority == "class" and len(case.classes) > 1:
        notes.append("the closed form knows no priorities: it gives the mean of all classes together")
    elif case.router.priority not in ("none", "class"):
        notes.append(
            f"the closed form knows no priorities: under {case.router.priority} packets of four flits take up to a "
            "tenth longer at 70 % of saturation, longer packets more"
        )
    if any(group.injection.start_chance is not None for group in case.classes):
        notes.append("the closed form knows no bursts: sources that send on and off may wait longer")
    if case.batches is not None:
        notes.append("the closed form knows no batches: it takes the rate as steady traffic")
    return notes


def analytic_row(case: TrafficCase, load: float) -> dict[str, Any]:
    """The same quantities, as far as the closed form has them; `cpu_s` is of the latency, the routes being written.

    Subnets are taken as networks that each carry an equal part of the load.
    """
    import time

    network = AnalyticNetwork(case.topology, case.routing, case.router)
    matrix, flits, squared = whole_matrix(case)
    saturation = network.saturation(matrix) * case.subnets
    started = time.process_time()
    estimate = network.latency(matrix, load / case.subnets, flits, squared)
    cpu_s = time.process_time() - started
    return {
        "offered_flit_rate": load,
        "packet_latency_cycles": estimate.packet_latency_cycles,
        "network_latency_cycles": estimate.network_latency_cycles,
        "hops": estimate.hops + 1,
        "accepted_flit_rate": load if estimate.stable else None,
        "stable": estimate.stable,
        "saturation_flit_rate": saturation,
        "busiest_link_load": float(estimate.link_load.max(initial=0.0)),
        "link_load": estimate.link_load.tolist(),
        "cpu_s": cpu_s,
        "notes": not_in_closed_form(case),
    }
