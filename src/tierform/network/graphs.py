"""Builders of networks that are no plain grids: crossbar, trees, butterflies, dragonfly, express mesh, any graph.

Sizes and connections of the indirect networks follow Dally and Towles, chapters 4 and 6, Kim, Dally and Abts (flattened
butterfly, ISCA 2007) and Kim, Dally, Scott and Abts (dragonfly, ISCA 2008).  Wires are one tile pitch long for each
cycle of latency unless the builder says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from tierform.errors import fail
from tierform.network.topologies import LARGEST, TILE_PITCH_M, WIDTH_BITS, cmesh, joined_links, mesh, plain_topology
from tierform.network.topology import ExpressGrid, Groups, IntArray, Lines, Topology, Tree


def crossbar(nodes: int, *, pitch_m: float = TILE_PITCH_M) -> Topology:
    """One router that joins all nodes."""
    if not 1 <= nodes <= 1 << 12:
        fail("a crossbar has 1 to 4,096 nodes", key="nodes", value=nodes)
    empty = np.zeros(0, np.int32)
    zeros = np.zeros((1, 3))
    return Topology(
        name="crossbar",
        node_router=np.zeros(nodes, np.int32),
        position_m=zeros,
        link_source=empty,
        link_target=empty,
        link_length_m=np.zeros(0),
        link_width_bits=empty,
        link_latency_cycles=empty,
        link_kind=empty,
        chiplet=np.zeros(1, np.int32),
        labels={"pitch_m": pitch_m},
    )


def fat_tree(
    arity: int, levels: int, *, pitch_m: float = TILE_PITCH_M, width_bits: int = WIDTH_BITS, latency_cycles: int = 1
) -> Topology:
    """A k-ary n-tree: arity^levels nodes, `levels` rows of arity^(levels-1) routers, row 0 at the nodes.

    Router (level, word) connects upwards to the routers of the next level whose word differs only in digit `level`.
    """
    if arity < 2 or levels < 1 or levels > 20 or arity**levels > LARGEST:
        fail("a fat tree needs arity >= 2, levels >= 1 and at most a million nodes", value=(arity, levels))
    row = arity ** (levels - 1)
    word, choice = np.repeat(np.arange(row), arity), np.tile(np.arange(arity), row)
    low, high, length = [], [], []
    for level in range(levels - 1):
        digit = (word // arity**level) % arity
        low.append(level * row + word)
        high.append((level + 1) * row + word + (choice - digit) * arity**level)
        length.append(np.full(len(word), pitch_m * arity ** (level / 2)))
    column = np.tile(np.arange(row), levels)
    position = np.stack([column * pitch_m * arity, np.repeat(np.arange(levels), row) * pitch_m, 0.0 * column], axis=1)
    tree = Tree(np.repeat([True, False], sum(len(part) for part in low)))
    return plain_topology(
        "fattree",
        node_router=np.repeat(np.arange(row), arity),
        position=position,
        source=joined_links([*low, *high]),
        target=joined_links([*high, *low]),
        length=np.tile(np.concatenate(length), 2) if length else np.zeros(0),
        width=width_bits,
        latency=latency_cycles,
        labels={"arity": arity, "levels": levels},
        structure=tree,
    )


def tapered_tree(*, pitch_m: float = TILE_PITCH_M, width_bits: int = WIDTH_BITS, latency_cycles: int = 1) -> Topology:
    """A tree of 64 nodes with half the links above the leaves: 16 leaves, 8 routers in the middle, 4 roots.

    Four nodes at a leaf, two links up from it to two middle routers, four up from each of those to all roots.
    """
    leaf, middle = np.arange(16), np.arange(8)
    low = joined_links([np.repeat(leaf, 2), 16 + np.repeat(middle, 4)])
    above = 16 + np.stack([leaf // 4 * 2, leaf // 4 * 2 + 1], axis=1).ravel()
    high = joined_links([above, 24 + np.tile(np.arange(4), 8)])
    # Both links from a root to the middle routers over one group of leaves stand side by side.
    down = np.lexsort((low, high))
    level = np.repeat([0, 1, 2], [16, 8, 4])
    place = np.concatenate([leaf, 2 * middle + 0.5, 4 * np.arange(4) + 1.5])
    return plain_topology(
        "taperedtree",
        node_router=np.repeat(leaf, 4),
        position=np.stack([place * 4 * pitch_m, level * pitch_m, 0.0 * place], axis=1),
        source=np.concatenate([low, high[down]]),
        target=np.concatenate([high, low[down]]),
        length=np.full(2 * len(low), 4 * pitch_m),
        width=width_bits,
        latency=latency_cycles,
        labels={},
        structure=Tree(np.repeat([True, False], len(low))),
    )


def butterfly(
    arity: int, stages: int, *, pitch_m: float = TILE_PITCH_M, width_bits: int = WIDTH_BITS, latency_cycles: int = 1
) -> Topology:
    """A k-ary n-fly: arity^stages nodes, entered at the first stage and left at the last, one way for each pair."""
    if arity < 2 or stages < 1 or stages > 20 or arity**stages > LARGEST:
        fail("a butterfly needs arity >= 2, stages >= 1 and at most a million nodes", value=(arity, stages))
    row = arity ** (stages - 1)
    word, choice = np.repeat(np.arange(row), arity), np.tile(np.arange(arity), row)
    source, target = [], []
    for stage in range(stages - 1):
        # Stage s corrects digit n-2-s of the word, the last stage the node at its router.
        place = arity ** (stages - 2 - stage)
        source.append(stage * row + word)
        target.append((stage + 1) * row + word + (choice - word // place % arity) * place)
    column = np.tile(np.arange(row), stages)
    position = np.stack([np.repeat(np.arange(stages), row) * pitch_m, column * pitch_m * arity, 0.0 * column], axis=1)
    entry = np.repeat(np.arange(row), arity).astype(np.int32)
    links = row * arity * (stages - 1)
    return Topology(
        name="butterfly",
        node_router=entry,
        position_m=position,
        link_source=joined_links(source),
        link_target=joined_links(target),
        link_length_m=np.full(links, pitch_m * arity),
        link_width_bits=np.full(links, width_bits, np.int32),
        link_latency_cycles=np.full(links, latency_cycles, np.int32),
        link_kind=np.zeros(links, np.int32),
        chiplet=np.zeros(len(position), np.int32),
        labels={"arity": arity, "stages": stages},
        exit_router=((stages - 1) * row + entry).astype(np.int32),
    )


def flattened_butterfly(
    side: int,
    dimensions: int = 2,
    nodes_per_side: int = 1,
    *,
    pitch_m: float = TILE_PITCH_M,
    width_bits: int = WIDTH_BITS,
    cycles_by_length: bool = True,
) -> Topology:
    """Routers on a grid, each joined to all others of its line in every dimension.

    Every router has a square of `nodes_per_side` by `nodes_per_side` nodes, numbered by rows over the whole grid (in
    more than two dimensions: `nodes_per_side` must be 1).  A link over d places takes d * `nodes_per_side` cycles.
    """
    if side < 2 or not 1 <= dimensions <= 4 or nodes_per_side < 1 or side**dimensions * nodes_per_side**2 > 1 << 16:
        fail("a flattened butterfly needs side >= 2, 1 to 4 dimensions, at most 65,536 nodes", value=(side, dimensions))
    if dimensions > 2 and nodes_per_side > 1:
        fail("several nodes at a router are for two dimensions", key="nodes_per_side", value=nodes_per_side)
    shape, count = (side,) * dimensions, side**dimensions
    lines = Lines(shape, tuple(np.full((count, side), -1, np.int32) for _ in shape))
    source: list[IntArray] = []
    target: list[IntArray] = []
    far: list[IntArray] = []
    used = 0
    for axis in range(dimensions):
        here, there = np.nonzero(lines.coordinates[:, axis][:, None] != np.arange(side)[None, :])
        step = there - lines.coordinates[here, axis]
        lines.to[axis][here, there] = used + np.arange(len(here))
        used += len(here)
        source.append(here)
        target.append(here + step * side**axis)
        # On the chip the third dimension lies beyond the second: a router's row is its number over the side.
        far.append(np.abs(step) * (1 if axis == 0 else side ** (axis - 1)) * nodes_per_side)
    node = np.arange(count * nodes_per_side**2)
    router = node if dimensions > 2 or dimensions == 1 else _square_blocks(node, side, nodes_per_side)
    if dimensions == 1:
        router = node // nodes_per_side**2
    position = np.zeros((count, 3))
    position[:, :2] = np.stack([np.arange(count) % side, np.arange(count) // side], axis=1) * pitch_m * nodes_per_side
    length = joined_links(far)
    return plain_topology(
        "flattenedbutterfly",
        node_router=router,
        position=position,
        source=joined_links(source),
        target=joined_links(target),
        length=length * pitch_m,
        width=width_bits,
        latency=length if cycles_by_length else 1,
        labels={"side": side, "dimensions": dimensions, "nodes_per_side": nodes_per_side},
        structure=lines,
    )


def _square_blocks(node: IntArray, side: int, block: int) -> IntArray:
    """The router of each node where a grid of nodes, numbered by rows, is cut into square blocks."""
    row: IntArray = node // (side * block)
    return row // block * side + node % (side * block) // block


def dragonfly(
    nodes_per_router: int,
    *,
    pitch_m: float = TILE_PITCH_M,
    width_bits: int = WIDTH_BITS,
    local_latency_cycles: int = 10,
    global_latency_cycles: int = 100,
) -> Topology:
    """A balanced dragonfly: p nodes and p global links at a router, 2p routers in a group, 2p*p + 1 groups."""
    p = nodes_per_router
    if not 1 <= p <= 8:
        fail("a dragonfly has 1 to 8 nodes at a router here", key="nodes_per_router", value=p)
    members = 2 * p
    groups = members * p + 1
    count = members * groups
    local, gateway = np.full((count, count), -1, np.int32), np.full((groups, groups), -1, np.int32)
    source: list[int] = []
    target: list[int] = []
    for router in range(count):
        group = router // members
        inside = group * members + np.arange(members)
        others = inside[inside != router]
        port = (router % members) * p + np.arange(p)
        beyond = np.where(port < group, port, port + 1)
        # The group beyond counts its ports the same way, without itself.
        back = np.where(group < beyond, group, group - 1)
        first = len(source)
        local[router, others] = first + np.arange(members - 1)
        gateway[group, beyond] = first + members - 1 + np.arange(p)
        source += [router] * (members - 1 + p)
        target += [*others.tolist(), *(beyond * members + back // p).tolist()]
    far = np.tile(np.repeat([False, True], [members - 1, p]), count)
    latency = np.where(far, global_latency_cycles, local_latency_cycles)
    index = np.arange(count)
    position = np.stack([index % members, index // members, 0 * index], axis=1) * pitch_m * p
    return plain_topology(
        "dragonfly",
        node_router=np.repeat(index, p),
        position=position,
        source=np.array(source, np.int32),
        target=np.array(target, np.int32),
        length=latency * pitch_m,
        width=width_bits,
        latency=latency,
        labels={"nodes_per_router": p, "groups": groups},
        structure=Groups(index // members, local, gateway),
    )


def express_cmesh(side: int, *, cycles_by_length: bool = True, pitch_m: float = TILE_PITCH_M) -> Topology:
    """A concentrated mesh with express links: each edge router is joined to the one half a side along its edge.

    Balfour and Dally (ICS 2006).  Mesh links take 2 cycles, express links `side`; 1 without `cycles_by_length`.
    """
    if side < 2 or side % 2:
        fail("express channels need an even side of at least 2", key="side", value=side)
    base = cmesh(side, latency_cycles=2 if cycles_by_length else 1, pitch_m=pitch_m)
    assert base.grid is not None
    ports = np.stack(
        [base.grid.forward[0], base.grid.backward[0], base.grid.forward[1], base.grid.backward[1]], axis=1
    ).astype(np.int32)
    x, y = base.grid.coordinates.T
    half = side // 2
    source: list[IntArray] = []
    target: list[IntArray] = []
    # An express link leaves by the port that has no neighbour, and arrives at the same side of the other router.
    for port, edge, along, stride in (
        (0, x == side - 1, y, side),
        (1, x == 0, y, side),
        (2, y == side - 1, x, 1),
        (3, y == 0, x, 1),
    ):
        here = np.flatnonzero(edge)
        ports[here, port] = base.links + sum(len(part) for part in source) + np.arange(len(here))
        source.append(here)
        target.append(here + np.where(along[here] < half, half, -half) * stride)
    extra = sum(len(part) for part in source)
    return replace(
        base,
        name="expresscmesh",
        link_source=joined_links([base.link_source, *source]),
        link_target=joined_links([base.link_target, *target]),
        link_length_m=np.concatenate([base.link_length_m, np.full(extra, side * pitch_m)]),
        link_width_bits=np.concatenate([base.link_width_bits, np.full(extra, WIDTH_BITS, np.int32)]),
        link_latency_cycles=np.concatenate(
            [base.link_latency_cycles, np.full(extra, side if cycles_by_length else 1, np.int32)]
        ),
        link_kind=np.zeros(base.links + extra, np.int32),
        grid=None,
        structure=ExpressGrid(side, ports),
    )


def small_world(
    shape: Sequence[int],
    shortcuts: int,
    seed: int,
    *,
    exponent: float = 2.0,
    pitch_m: float = TILE_PITCH_M,
    width_bits: int = WIDTH_BITS,
    m_per_cycle: float | None = None,
) -> Topology:
    """A 2D mesh with long-range channels drawn with probability ~ distance^-exponent (Kleinberg 2000).

    With `m_per_cycle` a shortcut takes ceil(length / m_per_cycle) cycles, otherwise one.
    """
    base = mesh(shape, pitch_m=pitch_m, width_bits=width_bits)
    assert base.grid is not None
    if base.routers > 1 << 12:
        fail("a small world has at most 4,096 routers", key="shape", value=tuple(shape))
    place = base.grid.coordinates.astype(float)
    far = np.abs(place[:, None, :] - place[None, :, :]).sum(axis=2)
    first, second = np.nonzero(np.triu(far > 1))
    if shortcuts < 0 or shortcuts > len(first):
        fail(f"between 0 and {len(first)} shortcuts are possible", key="shortcuts", value=shortcuts)
    weight = far[first, second] ** -exponent
    rng = np.random.default_rng(seed)
    chosen: IntArray | list[int] = (
        rng.choice(len(first), size=shortcuts, replace=False, p=weight / weight.sum()) if shortcuts else []
    )
    a, b = first[chosen], second[chosen]
    length = np.concatenate([base.link_length_m, np.tile(far[a, b] * pitch_m, 2)])
    cycles = np.ones(len(length), np.int32) if m_per_cycle is None else np.ceil(length / m_per_cycle - 1e-9)
    return plain_topology(
        "smallworld",
        base.node_router,
        base.position_m,
        np.concatenate([base.link_source, a, b]),
        np.concatenate([base.link_target, b, a]),
        length,
        width_bits,
        np.maximum(cycles, 1),
        {"shape": tuple(shape), "shortcuts": shortcuts, "seed": seed},
    )


def from_graph(
    node_router: Sequence[int],
    links: Iterable[Sequence[float]],
    *,
    routers: int | None = None,
    pitch_m: float = TILE_PITCH_M,
    width_bits: int = WIDTH_BITS,
    name: str = "graph",
) -> Topology:
    """Any graph: `links` are (source router, target router[, latency_cycles[, width_bits[, length_m]]]), directed."""
    rows = [tuple(link) for link in links]
    if any(not 2 <= len(row) <= 5 for row in rows):
        fail("a link needs source, target and at most latency, width and length", key=name)
    source = np.array([row[0] for row in rows], np.int32)
    target = np.array([row[1] for row in rows], np.int32)
    if (source == target).any():
        fail(f"router {int(source[source == target][0])} has a link to itself", key=name)
    latency = np.array([row[2] if len(row) > 2 else 1 for row in rows], np.int32)
    width = np.array([row[3] if len(row) > 3 else width_bits for row in rows], np.int32)
    length = np.array([row[4] if len(row) > 4 else row[2] * pitch_m if len(row) > 2 else pitch_m for row in rows])
    attached = np.asarray(node_router, np.int32)
    highest = max([int(a.max()) for a in (source, target, attached) if len(a)], default=-1)
    count = highest + 1 if routers is None else routers
    side = max(int(np.ceil(count**0.5)), 1)
    index = np.arange(count)
    position = np.stack([index % side, index // side, 0 * index], axis=1) * pitch_m
    return plain_topology(name, attached, position, source, target, length.astype(float), width, latency, {})
