"""Multicast trees for the cycle engine: where a packet is copied on its way to several nodes.

The routes from one source to all destinations, by a deterministic table, are merged into a tree; a router sends a
packet into its branches one after the other, reading it again from the buffer, so each link of the tree carries each
flit once.  A packet therefore has to fit a buffer.  Then it holds no more of the network while it waits for a branch
than a packet to one destination would, and whatever is free of deadlock for those stays so.

Limits: routing that chooses on the way (Valiant, adaptive, by layers, on rings) has no one tree and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tierform.arrays import Words
from tierform.errors import fail
from tierform.network.cycle import modes
from tierform.network.cycle import state as s
from tierform.network.cycle.build import aligned
from tierform.network.cycle.state import Memory
from tierform.network.routing import Routing
from tierform.network.topology import IntArray


def add_trees(
    memory: Memory, routing: Routing, wanted: Sequence[tuple[int, Sequence[int] | IntArray]]
) -> tuple[Memory, list[int]]:
    """The memory with a tree for each (source node, destination nodes) behind it, and the trees' addresses.

    At a tree's address stands the number of branches, then per branch the output port and the address of the rest of
    the tree behind it, 0 where that is a node.
    """
    if int(memory.words[s.MODE]) not in (modes.TABLE, modes.GRID) or int(memory.words[s.LAYERS]) > 1:
        fail(
            "multicast needs a routing with one route per pair and without escape channels",
            key="routing",
            value=routing.name,
            fix="On any links: up_down.",
        )
    topology = routing.topology
    table = routing.next_links(np.arange(topology.routers, dtype=np.int32))
    first, size = int(memory.words[s.AT_OUT]), int(memory.words[s.OUT_SIZE])
    grown: list[int] = []
    start = len(memory.words)

    def grow(router: int, goals: list[int]) -> int:
        """Write the tree from `router` to nodes `goals`; its address."""
        behind: dict[int, list[int]] = {}
        branches = []
        for goal in goals:
            home = int(topology.node_router[goal])
            if home == router:
                branches.append((first + int(memory.node_out[goal]) * size, 0))
            else:
                behind.setdefault(int(table[router, home]), []).append(goal)
        for link in sorted(behind):
            port = first + int(memory.link_out[link]) * size
            branches.append((port, grow(int(topology.link_target[link]), behind[link])))
        address = start + len(grown)
        grown.extend([len(branches), *(word for branch in branches for word in branch)])
        return address

    trees = [
        grow(int(topology.node_router[source]), [int(goal) for goal in dict.fromkeys(np.asarray(goals).tolist())])
        for source, goals in wanted
    ]
    words: Words = aligned(-(-(start + len(grown)) // s.LINE) * s.LINE)
    words[:start] = memory.words
    words[start : start + len(grown)] = grown
    return replace(memory, words=words, masks=words.view(np.int64)), trees
