"""Reading BookSim2's network files (anynet): routers, their nodes, and links with a latency per direction.

A line is ``router A node B router C 3 ...``; a number after a router is the latency of the link from A to C.  The link
back is made as well, with latency 1 unless a line gives it.
"""

from __future__ import annotations

from pathlib import Path

from tierform.errors import Problem, TierformError
from tierform.files import read_text
from tierform.network.topologies import from_graph
from tierform.network.topology import Topology


def read_network_file(path: Path | str) -> Topology:
    """The topology of an anynet file; every mistake with its line."""
    file = str(path)
    problems: list[Problem] = []
    router_of: dict[int, int] = {}
    latency: dict[tuple[int, int], int] = {}
    routers: set[int] = set()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
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
        if place + 1 >= len(words) or not words[place + 1].isdigit():
            return complain(f"a number must follow '{kind}'", words[place + 1] if place + 1 < len(words) else None)
        weight = None
        if place + 2 < len(words) and words[place + 2] not in ("router", "node"):
            if not words[place + 2].isdigit() or int(words[place + 2]) < 1:
                return complain("a latency is a whole number of at least 1", words[place + 2])
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
