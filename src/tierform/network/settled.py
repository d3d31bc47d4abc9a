"""Shortest paths with a stated choice among equals: the one that Dijkstra's algorithm settles first."""

from __future__ import annotations

import numpy as np

from tierform.network.topology import Topology


def first_settled_table(topology: Topology, destinations: np.ndarray) -> np.ndarray:
    """Shortest-path next links with BookSim2's choice among equals.

    From each router, Dijkstra's algorithm with link latencies as weights; of routers equally near the lowest number is
    settled first, and a predecessor is replaced only by a strictly shorter one.
    """
    routers = topology.routers
    neighbours: list[list[tuple[int, int, int]]] = [[] for _ in range(routers)]
    for link, (source, target) in enumerate(zip(topology.link_source, topology.link_target, strict=True)):
        neighbours[source].append((int(target), int(topology.link_latency_cycles[link]), link))
    table = np.full((routers, routers), -1, np.int32)
    for start in range(routers):
        distance, first = {start: 0}, {start: -1}
        waiting = {start}
        while waiting:
            here = min(waiting, key=lambda router: (distance[router], router))
            waiting.discard(here)
            for there, cycles, link in sorted(neighbours[here]):
                reach = distance[here] + cycles
                if reach < distance.get(there, 1 << 60):
                    distance[there] = reach
                    first[there] = link if here == start else first[here]
                    waiting.add(there)
        for goal, link in first.items():
            table[start, goal] = link
    return table[:, destinations]
