"""BookSim2's topologies, and its network files (anynet): routers, their nodes, links with a latency per direction.

A line is ``router A node B router C 3 ...``; a number after a router is the latency of the link from A to C.  The link
back is made as well, with latency 1 unless a line gives it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tierform.compat.booksim_text import MAX_BYTES, Reporter
from tierform.errors import Problem, TierformError
from tierform.files import read_text
from tierform.network.graphs import (
    butterfly,
    dragonfly,
    express_cmesh,
    fat_tree,
    flattened_butterfly,
    from_graph,
    tapered_tree,
)
from tierform.network.topologies import cmesh, mesh, torus
from tierform.network.topology import Topology

# Bounds of a network file.
MOST_ROUTERS, LONGEST_CYCLES = 1 << 16, 100_000
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


def booksim_topology(get: dict[str, Any], report: Reporter, folder: Path) -> Topology:
    """The topology that the settings name; problems are reported and raised."""
    kind, side, dimensions = get["topology"], get["k"], get["n"]
    far = bool(get["use_noc_latency"])
    if kind == "anynet":
        name = str(get["network_file"])
        if not name or not name.isprintable():
            report.add("network_file", "an anynet needs its network file", name or None)
            raise TierformError(report.problems)
        return read_network_file(folder / name)
    if not 1 <= dimensions <= 8 or side < 1 or side**dimensions > 1 << 20:
        report.add("k", "k^n must be between 1 and a million routers", f"{side}^{dimensions}")
        raise TierformError(report.problems)
    square = get["xr"] == get["yr"] and get["c"] == get["xr"] ** 2 and get["x"] == get["y"] == side and dimensions == 2
    wanted: dict[str, tuple[bool, str, str]] = {
        "cmesh": (square and get["c"] == 4, "c", "a cmesh has n = 2, c = 4, xr = yr = 2 and x = y = k"),
        "flatfly": (
            square and side >= 2 and (get["xr"] <= 3 or not far),
            "c",
            "a flatfly has n = 2, x = y = k, xr = yr and c = xr * yr, with xr up to 3 where wires have lengths",
        ),
        "tree4": ((side, dimensions) == (4, 3), "k", "a tree4 has k = 4 and n = 3"),
        "dragonflynew": (dimensions == 1 and side <= 8, "n", "a dragonfly has n = 1 and k up to 8"),
        "fattree": (side >= 2, "k", "a fat tree has k of at least 2"),
        "fly": (side >= 2, "k", "a butterfly has k of at least 2"),
    }
    right, key, what = wanted.get(kind, (True, "", ""))
    if not right:
        report.add(key, what, get[key])
        raise TierformError(report.problems)
    if kind == "mesh":
        return mesh((side,) * dimensions)
    if kind == "torus":
        return torus((side,) * dimensions, latency_cycles=2 if far else 1)
    if kind == "cmesh":
        express = not str(get["routing_function"]).endswith("no_express")
        return express_cmesh(side, cycles_by_length=far) if express else cmesh(side, latency_cycles=2 if far else 1)
    if kind == "fattree":
        return fat_tree(side, dimensions)
    if kind == "fly":
        return butterfly(side, dimensions)
    if kind == "flatfly":
        return flattened_butterfly(side, dimensions, get["xr"], cycles_by_length=far)
    return tapered_tree() if kind == "tree4" else dragonfly(side)


def read_network_file(path: Path | str) -> Topology:
    """The topology of an anynet file; every mistake with its line."""
    file = str(path)
    problems: list[Problem] = []
    router_of: dict[int, int] = {}
    latency: dict[tuple[int, int], int] = {}
    routers: set[int] = set()
    for number, line in enumerate(read_text(path, MAX_BYTES).splitlines(), 1):
        words = line.split()
        if len(problems) > 50:
            break
        if words:
            _read_line(words, number, file, router_of, latency, routers, problems)
    for kind, found in (("router", sorted(routers)), ("node", sorted(router_of))):
        if found != list(range(len(found))):
            missing = next(n for n in range(len(found) + 1) if n not in found)
            problems.append(Problem(f"{kind}s must be numbered from 0 without gaps; {kind} {missing} is missing", file))
    if not router_of:
        problems.append(Problem("the network has no node", file))
    if problems:
        raise TierformError(problems)
    links = [(a, b, cycles) for (a, b), cycles in sorted(latency.items())]
    nodes = [router_of[node] for node in range(len(router_of))]
    try:
        return from_graph(nodes, links, routers=len(routers), name="anynet")
    except TierformError as error:
        raise TierformError([Problem(problem.what, file) for problem in error.problems]) from None


def _read_line(
    words: list[str],
    number: int,
    file: str,
    router_of: dict[int, int],
    latency: dict[tuple[int, int], int],
    routers: set[int],
    problems: list[Problem],
) -> None:
    def complain(what: str, value: object = None) -> None:
        problems.append(Problem(what, file, number, value=value))

    parts: list[tuple[str, int, int | None]] = []
    place = 0
    while place < len(words):
        kind = words[place]
        if kind not in ("router", "node"):
            return complain("'router' or 'node' is expected here", kind)
        if place + 1 >= len(words) or not _NUMBER.fullmatch(words[place + 1]):
            return complain(f"a number must follow '{kind}'", words[place + 1] if place + 1 < len(words) else None)
        if int(words[place + 1]) >= MOST_ROUTERS:
            return complain(f"{kind}s are numbered below {MOST_ROUTERS:,}", words[place + 1])
        weight = None
        if place + 2 < len(words) and words[place + 2] not in ("router", "node"):
            known = _NUMBER.fullmatch(words[place + 2])
            if not known or not 1 <= int(words[place + 2]) <= LONGEST_CYCLES:
                return complain(f"a latency is a whole number from 1 to {LONGEST_CYCLES:,}", words[place + 2])
            weight = int(words[place + 2])
        parts.append((kind, int(words[place + 1]), weight))
        place += 2 if weight is None else 3
    head_kind, head, head_weight = parts[0]
    if head_weight is not None:
        return complain("the first router or node of a line has no latency", head_weight)
    if head_kind == "router":
        routers.add(head)
    for kind, other, weight in parts[1:]:
        if kind == head_kind == "node":
            return complain("a node cannot be joined to a node", other)
        if kind == head_kind:
            if other == head:
                return complain("a router cannot be joined to itself", other)
            routers.add(other)
            latency[head, other] = weight or 1
            latency.setdefault((other, head), 1)
            continue
        router, node = (head, other) if head_kind == "router" else (other, head)
        routers.add(router)
        if router_of.setdefault(node, router) != router:
            return complain(f"node {node} is already joined to router {router_of[node]}", router)
        if weight not in (None, 1):
            return complain("the channel of a node has latency 1 here; another is not supported", weight)
    return None
