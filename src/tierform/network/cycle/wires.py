"""The wires of a simulated network: its links and nodes, once for each subnet, and the numbers of its ports.

Subnets are copies of the network side by side; a node has a port in each of them.  Ports are numbered router by router,
so that a router's records lie side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tierform.network.topology import Groups, IntArray, Lines, Topology


@dataclass(frozen=True, eq=False)
class Wires:
    """Arrays over routers, links and node ports of all subnets.

    `coordinates` is (routers, axes) where the topology has places, else one axis of zeros; `forward` and `backward` are
    (axes, routers) links or None; `subnet_routers` is the number of routers of one subnet.
    """

    routers: int
    subnet_routers: int
    node_router: IntArray
    exits: IntArray
    place_at_exit: IntArray
    link_source: IntArray
    link_target: IntArray
    link_latency_cycles: IntArray
    link_width_bits: IntArray
    shape: tuple[int, ...]
    coordinates: IntArray
    forward: IntArray | None
    backward: IntArray | None
    group_routers: int

    @property
    def links(self) -> int:
        """How many links there are."""
        return len(self.link_source)

    @property
    def nodes(self) -> int:
        """How many node ports there are."""
        return len(self.node_router)


def wires_of(topology: Topology, subnets: int = 1) -> Wires:
    """The wires of a topology, `subnets` times."""
    grid, structure, count = topology.grid, topology.structure, topology.routers
    places = grid if grid is not None else structure if isinstance(structure, Lines) else None
    copy = np.arange(subnets)
    group = int((structure.group == 0).sum()) if isinstance(structure, Groups) else 1

    def routers(values: IntArray) -> IntArray:
        return (values[None, :] + copy[:, None] * count).ravel().astype(np.int32)

    def links(tables: tuple[IntArray, ...]) -> IntArray:
        table = np.stack(tables)
        moved = [np.where(table >= 0, table + number * topology.links, -1) for number in copy]
        return np.concatenate(moved, axis=1).astype(np.int32)

    return Wires(
        routers=count * subnets,
        subnet_routers=count,
        node_router=routers(topology.node_router),
        exits=routers(topology.exits),
        place_at_exit=np.tile(topology.place_at_exit, subnets),
        link_source=routers(topology.link_source),
        link_target=routers(topology.link_target),
        link_latency_cycles=np.tile(topology.link_latency_cycles, subnets),
        link_width_bits=np.tile(topology.link_width_bits, subnets),
        shape=places.shape if places is not None else (1,),
        coordinates=np.tile(places.coordinates if places is not None else np.zeros((count, 1), np.int32), (subnets, 1)),
        forward=links(tuple(grid.forward)) if grid is not None else None,
        backward=links(tuple(grid.backward)) if grid is not None else None,
        group_routers=group,
    )


@dataclass(frozen=True, eq=False)
class Ports:
    """Port numbers by router order: first of each router (and an end), and those of each link and node."""

    in_base: IntArray
    out_base: IntArray
    link_in: IntArray
    link_out: IntArray
    node_in: IntArray
    node_out: IntArray


def port_numbers(wires: Wires) -> Ports:
    """Number the input and output ports of all routers."""
    links, nodes = wires.links, wires.nodes
    # On a grid a router's inputs are, axis by axis, the one from the higher and then the one from the lower neighbour,
    # its outputs the one to the higher and then the one to the lower: BookSim2's order, where round-robin starts.
    rank = np.arange(links + nodes)
    if wires.forward is not None and wires.backward is not None:
        for axis in range(len(wires.shape)):
            for step, table in ((0, wires.backward[axis]), (1, wires.forward[axis])):
                rank[table[table >= 0]] = 2 * axis + step
            rank[links:] = 2 * len(wires.shape) + np.arange(nodes)
    found: dict[str, IntArray] = {}
    for side, linked, attached in (
        ("in", wires.link_target, wires.node_router),
        ("out", wires.link_source, wires.exits),
    ):
        owner = np.concatenate([linked, attached])
        number = np.empty(links + nodes, np.int32)
        order = np.lexsort((rank, owner)) if side == "in" else np.argsort(owner, kind="stable")
        number[order] = np.arange(links + nodes)
        base = np.zeros(wires.routers + 1, np.int32)
        base[1:] = np.cumsum(np.bincount(owner, minlength=wires.routers))
        found[f"{side}_base"], found[f"link_{side}"], found[f"node_{side}"] = base, number[:links], number[links:]
    return Ports(**found)
