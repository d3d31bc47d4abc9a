"""What sources send, as BookSim2's keys say it: patterns, packet sizes, rates, bursts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tierform.compat.booksim_keys import TRAFFIC
from tierform.compat.booksim_text import Reporter, numbers, parts_of
from tierform.errors import TierformError
from tierform.network.case import Injection
from tierform.network.topology import FloatArray, Topology
from tierform.network.traffic import Pattern, pattern

# A matrix of traffic has this many nodes at most.
MATRIX_NODES = 4096


def injection_of(get: dict[str, Any], report: Reporter) -> Injection | None:
    """The sources of one class, or None with the problems reported."""
    known = len(report.problems)
    rates = numbers(report, "injection_rate", get["injection_rate"])
    sizes = numbers(report, "packet_size", get["packet_size"], int)
    weights = numbers(report, "packet_size_rate", get["packet_size_rate"])
    if len(rates) != 1:
        report.add("injection_rate", "one rate is needed", get["injection_rate"])
    if not sizes or min(sizes) < 1 or max(sizes) > 1 << 20:
        report.add("packet_size", "packets have 1 to 1,048,576 flits", get["packet_size"])
    weights = (weights or [1.0])[: len(sizes)]
    weights += weights[-1:] * (len(sizes) - len(weights))
    if min(weights, default=1) < 0 or not any(weights):
        report.add("packet_size_rate", "rates of sizes must not be negative, nor all zero", get["packet_size_rate"])
    name, _, inner = str(get["injection_process"]).partition("(")
    start = stop = None
    if name == "on_off":
        given = numbers(report, "injection_process", "{" + inner.rstrip(")").strip("{}") + "}" if inner else "")
        start = given[0] if given else float(get["burst_alpha"])
        stop = given[1] if len(given) > 1 else float(get["burst_beta"])
        peak = given[2] if len(given) > 2 else float(get["burst_r1"])
        if peak >= 0 or not (0 < start <= 1 and 0 < stop <= 1):
            report.add("injection_process", "on_off needs alpha and beta in (0, 1] and no r1", get["injection_process"])
    elif name != "bernoulli":
        report.add("injection_process", "unknown", name, ("bernoulli", "on_off"), "Known: bernoulli, on_off.")
    if len(report.problems) > known:
        return None
    injection = Injection(rates[0], tuple(sizes), tuple(weights), start, stop)
    if get["injection_rate_uses_flits"]:
        injection = replace(injection, rate=rates[0] / injection.mean_flits)
    if not 0 <= float(injection.rate) <= 1:  # type: ignore[arg-type]
        report.add("injection_rate", "must be 0 to 1 packets per node and cycle", get["injection_rate"])
        return None
    if start is not None and stop is not None and float(injection.rate) * (start + stop) > start:  # type: ignore[arg-type]
        report.add("injection_rate", "the bursts would need more than a packet a cycle", get["injection_rate"])
        return None
    return injection


def pattern_of(get: dict[str, Any], topology: Topology, report: Reporter) -> Pattern | None:
    """The pattern of one class, or None with the problems reported."""
    name, _, inner = str(get["traffic"]).partition("(")
    known = len(report.problems)
    if name not in TRAFFIC:
        report.add("traffic", "unknown traffic", name, TRAFFIC, f"Known: {', '.join(TRAFFIC)}.")
        return None
    parts = parts_of(inner.rsplit(")", 1)[0]) if inner else []
    options: dict[str, Any] = {}
    if name == "hotspot":
        options["hotspots"] = numbers(report, "traffic", parts[0] if parts else "", int)
        options["rates"] = numbers(report, "traffic", parts[1] if len(parts) > 1 else "1")
    elif name == "background":
        options["excluded"] = numbers(report, "traffic", parts[0] if parts else "", int)
    elif name == "randperm":
        options["seed"] = max((numbers(report, "traffic", parts[0] if parts else get["perm_seed"], int) or [0])[0], 0)
    elif name in ("tornado", "neighbor"):
        options.update(side=get["k"] * get["xr"], dimensions=get["n"])
    if len(report.problems) > known:
        return None
    try:
        if name in _MATRICES:
            if topology.nodes > MATRIX_NODES:
                report.add("traffic", f"this traffic is for up to {MATRIX_NODES} nodes", topology.nodes)
                return None
            return pattern("matrix", topology.nodes, weights=_MATRICES[name](topology.nodes, get))
        return pattern(TRAFFIC[name], topology.nodes, **options)
    except TierformError as error:
        for problem in error.problems:
            report.add("traffic", problem.what, problem.value)
        return None


def _taper64(nodes: int, get: dict[str, object]) -> FloatArray:
    """Half of the packets to a neighbour on an 8 x 8 grid (or oneself), half to anywhere."""
    weights = np.full((nodes, nodes), 0.5 / nodes)
    for row in (-8, 0, 8):
        for column in (-1, 0, 1):
            here = np.arange(nodes)
            weights[here, (here + row + column) % nodes] += 0.5 / 9
    return weights


def _bad_dragon(nodes: int, get: dict[str, Any]) -> FloatArray:
    """All packets of a dragonfly's group to the next group."""
    size = max(2 * get["k"] * get["k"], 1)
    group = np.arange(nodes) // size
    weights: FloatArray = (group[None, :] == ((group + 1) % max(nodes // size, 1))[:, None]).astype(float)
    return weights


def _badperm_yarc(nodes: int, get: dict[str, Any]) -> FloatArray:
    """All packets of a row of nodes to the column of the same number."""
    side = get["xr"] * get["k"]
    row, column = np.arange(nodes) // side, np.arange(nodes) % side
    weights: FloatArray = (column[None, :] == row[:, None]).astype(float)
    return weights


_MATRICES = {"taper64": _taper64, "bad_dragon": _bad_dragon, "badperm_yarc": _badperm_yarc}
