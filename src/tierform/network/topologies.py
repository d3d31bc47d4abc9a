"""Builders of topologies: one function for each kind of network.

Lengths come from the tile pitch unless given.  Defaults are a 1 mm pitch, 256-bit links of one cycle; a chip
description gives its own.  Vertical links have the tier pitch as their length, interposer links the chiplet gap plus
one tile pitch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tierform.errors import fail
from tierform.network.topology import INTERPOSER, LINK_KINDS, PLANAR, VERTICAL, FloatArray, Grid, IntArray, Topology

TILE_PITCH_M = 1e-3
WIDTH_BITS = 256
_LARGEST = 1 << 20


def mesh(
    shape: Sequence[int],
    *,
    pitch_m: float = TILE_PITCH_M,
    width_bits: int = WIDTH_BITS,
    latency_cycles: int = 1,
    nodes_per_router: int = 1,
    name: str = "",
) -> Topology:
    """An n-dimensional mesh, e.g. ``mesh((8, 8))``; with `nodes_per_router` > 1 a concentrated mesh."""
    sizes = _sizes(shape)
    return _grid(sizes, (False,) * len(sizes), pitch_m, width_bits, latency_cycles, nodes_per_router, name or "mesh")


def torus(
    shape: Sequence[int],
    *,
    pitch_m: float = TILE_PITCH_M,
    width_bits: int = WIDTH_BITS,
    latency_cycles: int = 1,
    nodes_per_router: int = 1,
    name: str = "",
) -> Topology:
    """An n-dimensional torus, folded: every link spans two tile pitches."""
    sizes = _sizes(shape)
    wraps = tuple(size > 1 for size in sizes)
    return _grid(sizes, wraps, 2 * pitch_m, width_bits, latency_cycles, nodes_per_router, name or "torus", pitch_m)


def ring(nodes: int, **options: object) -> Topology:
    """A ring: a torus of one dimension."""
    return torus((nodes,), name="ring", **options)  # type: ignore[arg-type]


def concentrated_mesh(shape: Sequence[int], nodes_per_router: int = 4, **options: object) -> Topology:
    """A mesh with several nodes at each router; links span sqrt(nodes_per_router) tile pitches."""
    pitch = float(options.pop("pitch_m", TILE_PITCH_M)) * float(nodes_per_router) ** 0.5  # type: ignore[arg-type]
    return mesh(shape, pitch_m=pitch, nodes_per_router=nodes_per_router, name="cmesh", **options)  # type: ignore[arg-type]


def cmesh(side: int, *, latency_cycles: int = 1, pitch_m: float = TILE_PITCH_M) -> Topology:
    """A concentrated mesh of side x side routers, each with a 2 x 2 block of the nodes' own grid, numbered by rows."""
    base = concentrated_mesh((side, side), 4, pitch_m=pitch_m, latency_cycles=latency_cycles)
    node = np.arange(4 * side * side)
    router = (node // (2 * side)) // 2 * side + (node % (2 * side)) // 2
    return replace(base, node_router=router.astype(np.int32))


def mesh_3d(
    shape: Sequence[int],
    *,
    pillars: Iterable[tuple[int, int]] | None = None,
    pitch_m: float = TILE_PITCH_M,
    tier_pitch_m: float = 50e-6,
    width_bits: int = WIDTH_BITS,
    vertical_width_bits: int | None = None,
    latency_cycles: int = 1,
    vertical_latency_cycles: int = 1,
    nodes_per_router: int = 1,
) -> Topology:
    """Stacked meshes (x, y, tiers), joined by vertical pillars at every place or only at those given as (x, y)."""
    sizes = _sizes(shape)
    if len(sizes) != 3:
        fail("a 3D mesh needs three sizes: x, y and tiers", key="shape", value=tuple(shape))
    width, height, tiers = sizes
    full = mesh(
        sizes,
        pitch_m=pitch_m,
        width_bits=width_bits,
        latency_cycles=latency_cycles,
        nodes_per_router=nodes_per_router,
        name="mesh3d",
    )
    assert full.grid is not None
    place = full.grid.coordinates
    open_place = np.ones((width, height), bool)
    if pillars is not None:
        chosen = sorted(set(pillars))
        outside = [p for p in chosen if not (0 <= p[0] < width and 0 <= p[1] < height)]
        if outside or (not chosen and tiers > 1):
            fail("pillars must lie on the mesh, and tiers need at least one", key="pillars", value=outside or chosen)
        open_place[:] = False
        open_place[tuple(np.array(chosen).reshape(-1, 2).T)] = True
    vertical = place[full.link_source, 2] != place[full.link_target, 2]
    keep = ~vertical | open_place[place[full.link_source, 0], place[full.link_source, 1]]
    renumber = np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32)
    forward = np.where(full.grid.forward >= 0, renumber[full.grid.forward], -1).astype(np.int32)
    backward = np.where(full.grid.backward >= 0, renumber[full.grid.backward], -1).astype(np.int32)
    up = vertical[keep]
    position = place * np.array([pitch_m, pitch_m, tier_pitch_m])
    wide = vertical_width_bits or width_bits
    return Topology(
        name="mesh3d",
        node_router=full.node_router,
        position_m=position,
        link_source=full.link_source[keep],
        link_target=full.link_target[keep],
        link_length_m=np.where(up, tier_pitch_m, pitch_m),
        link_width_bits=np.where(up, wide, width_bits).astype(np.int32),
        link_latency_cycles=np.where(up, vertical_latency_cycles, latency_cycles).astype(np.int32),
        link_kind=np.where(up, VERTICAL, PLANAR).astype(np.int32),
        chiplet=place[:, 2].copy(),
        grid=Grid(sizes, (False,) * 3, forward, backward),
        labels={"shape": sizes, "pillars": int(open_place.sum())},
    )


def chiplets(
    array: Sequence[int],
    mesh_shape: Sequence[int],
    *,
    links_per_edge: int | None = None,
    pitch_m: float = TILE_PITCH_M,
    gap_m: float = 1e-3,
    width_bits: int = WIDTH_BITS,
    interposer_width_bits: int | None = None,
    latency_cycles: int = 1,
    interposer_latency_cycles: int = 2,
    nodes_per_router: int = 1,
) -> Topology:
    """Chiplets side by side (columns, rows), each a mesh, joined by interposer links at facing routers.

    `links_per_edge` places that many channels evenly along each shared edge; all facing routers when not given.
    Router numbers run over the whole package in rows, as if it were one mesh.
    """
    columns, rows = _sizes(array) if len(array) == 2 else fail("chiplets need (columns, rows)", value=tuple(array))
    if len(mesh_shape) != 2:
        fail("each chiplet needs (columns, rows) of routers", key="mesh_shape", value=tuple(mesh_shape))
    wide, high = _sizes(mesh_shape)
    whole = mesh(
        (columns * wide, rows * high),
        pitch_m=pitch_m,
        width_bits=width_bits,
        latency_cycles=latency_cycles,
        nodes_per_router=nodes_per_router,
        name="chiplets",
    )
    assert whole.grid is not None
    place = whole.grid.coordinates
    die = (place[:, 0] // wide + columns * (place[:, 1] // high)).astype(np.int32)
    crossing = die[whole.link_source] != die[whole.link_target]
    sideways = place[whole.link_source, 1] == place[whole.link_target, 1]
    along = np.where(sideways, place[whole.link_source, 1] % high, place[whole.link_source, 0] % wide)
    keep = ~crossing | np.where(
        sideways, _even(high, links_per_edge)[along % high], _even(wide, links_per_edge)[along % wide]
    )
    renumber = np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32)
    grid = Grid(
        whole.grid.shape,
        (False, False),
        np.where(whole.grid.forward >= 0, renumber[whole.grid.forward], -1).astype(np.int32),
        np.where(whole.grid.backward >= 0, renumber[whole.grid.backward], -1).astype(np.int32),
    )
    over = crossing[keep]
    gaps = np.stack([place[:, 0] // wide, place[:, 1] // high, np.zeros(len(place))], axis=1) * gap_m
    return Topology(
        name="chiplets",
        node_router=whole.node_router,
        position_m=whole.position_m + gaps,
        link_source=whole.link_source[keep],
        link_target=whole.link_target[keep],
        link_length_m=np.where(over, pitch_m + gap_m, pitch_m),
        link_width_bits=np.where(over, interposer_width_bits or width_bits, width_bits).astype(np.int32),
        link_latency_cycles=np.where(over, interposer_latency_cycles, latency_cycles).astype(np.int32),
        link_kind=np.where(over, INTERPOSER, PLANAR).astype(np.int32),
        chiplet=die,
        grid=grid,
        labels={"array": (columns, rows), "mesh": (wide, high)},
    )


def crossbar(nodes: int, *, pitch_m: float = TILE_PITCH_M) -> Topology:
    """One router that joins all nodes."""
    if nodes < 1:
        fail("a crossbar needs at least one node", key="nodes", value=nodes)
    empty = np.zeros(0, np.int32)
    zeros = np.zeros((1, 3))
    return Topology(
        "crossbar",
        np.zeros(nodes, np.int32),
        zeros,
        empty,
        empty,
        np.zeros(0),
        empty,
        empty,
        empty,
        np.zeros(1, np.int32),
        labels={"pitch_m": pitch_m},
    )


def fat_tree(
    arity: int, levels: int, *, pitch_m: float = TILE_PITCH_M, width_bits: int = WIDTH_BITS, latency_cycles: int = 1
) -> Topology:
    """A k-ary n-tree: arity^levels nodes, `levels` rows of arity^(levels-1) routers, row 0 at the nodes.

    Router (level, word) connects upwards to the routers of the next level whose word differs only in digit `level`.
    """
    if arity < 2 or levels < 1 or arity**levels > _LARGEST:
        fail("a fat tree needs arity >= 2, levels >= 1 and at most a million nodes", value=(arity, levels))
    row = arity ** (levels - 1)
    word = np.arange(row)
    source, target, length = [], [], []
    for level in range(levels - 1):
        digit = (word // arity**level) % arity
        for choice in range(arity):
            above = word + (choice - digit) * arity**level
            low, high = level * row + word, (level + 1) * row + above
            source += [low, high]
            target += [high, low]
            length += [np.full(2 * row, pitch_m * arity ** (level / 2))]
    column = np.tile(np.arange(row), levels)
    position = np.stack([column * pitch_m * arity, np.repeat(np.arange(levels), row) * pitch_m, 0.0 * column], axis=1)
    links = _joined(source), _joined(target)
    return _plain(
        "fattree",
        np.repeat(np.arange(row), arity),
        position,
        *links,
        np.concatenate(length) if length else np.zeros(0),
        width_bits,
        latency_cycles,
        {"arity": arity, "levels": levels},
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
    place = base.grid.coordinates.astype(float)
    far = np.abs(place[:, None, :] - place[None, :, :]).sum(axis=2)
    first, second = np.nonzero(np.triu(far > 1))
    if shortcuts < 0 or shortcuts > len(first):
        fail(f"between 0 and {len(first)} shortcuts are possible", key="shortcuts", value=shortcuts)
    weight = far[first, second] ** -exponent
    rng = np.random.default_rng(seed)
    chosen: Any = rng.choice(len(first), size=shortcuts, replace=False, p=weight / weight.sum()) if shortcuts else []
    a, b = first[chosen], second[chosen]
    length = np.concatenate([base.link_length_m, np.tile(far[a, b] * pitch_m, 2)])
    cycles = np.ones(len(length), np.int32) if m_per_cycle is None else np.ceil(length / m_per_cycle - 1e-9)
    return _plain(
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
    return _plain(name, attached, position, source, target, length.astype(float), width, latency, {})


def _sizes(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape)
    total = 1
    for size in sizes:
        total *= size
    if not sizes or min(sizes) < 1 or total > _LARGEST:
        fail("each size must be at least 1, and a network has at most a million routers", key="shape", value=sizes)
    return sizes


def _grid(
    sizes: tuple[int, ...],
    wraps: tuple[bool, ...],
    length_m: float,
    width_bits: int,
    latency_cycles: int,
    nodes_per_router: int,
    name: str,
    pitch_m: float | None = None,
) -> Topology:
    if nodes_per_router < 1:
        fail("at least one node per router is needed", key="nodes_per_router", value=nodes_per_router)
    count = int(np.prod(sizes))
    index = np.arange(count, dtype=np.int32)
    forward = np.full((len(sizes), count), -1, np.int32)
    backward = np.full((len(sizes), count), -1, np.int32)
    source, target = [], []
    used, stride = 0, 1
    for axis, size in enumerate(sizes):
        place = (index // stride) % size
        for step, table in ((1, forward), (-1, backward)):
            edge = size - 1 if step == 1 else 0
            here = index[place != edge] if not wraps[axis] else index
            if size == 1:
                here = here[:0]
            there = here + ((place[here] + step) % size - place[here]) * stride
            table[axis, here] = used + np.arange(len(here))
            used += len(here)
            source.append(here)
            target.append(there)
        stride *= size
    grid = Grid(sizes, wraps, forward, backward)
    position = np.zeros((count, 3))
    shown = min(len(sizes), 3)
    position[:, :shown] = grid.coordinates[:, :shown] * (pitch_m or length_m)
    node_router = np.repeat(index, nodes_per_router)
    return _plain(
        name,
        node_router,
        position,
        _joined(source),
        _joined(target),
        np.full(used, length_m),
        width_bits,
        latency_cycles,
        {"shape": sizes, "nodes_per_router": nodes_per_router},
        grid,
    )


def _plain(
    name: str,
    node_router: IntArray,
    position: FloatArray,
    source: IntArray,
    target: IntArray,
    length: FloatArray,
    width: int | IntArray,
    latency: int | IntArray | FloatArray,
    labels: dict[str, object],
    grid: Grid | None = None,
) -> Topology:
    links = len(source)
    return Topology(
        name,
        np.asarray(node_router, np.int32),
        np.asarray(position, float),
        np.asarray(source, np.int32),
        np.asarray(target, np.int32),
        np.asarray(length, float),
        np.broadcast_to(np.asarray(width, np.int32), links).copy(),
        np.broadcast_to(np.asarray(latency).astype(np.int32), links).copy(),
        np.full(links, LINK_KINDS.index("planar"), np.int32),
        np.zeros(len(position), np.int32),
        grid,
        labels,
    )


def _joined(parts: list[IntArray]) -> IntArray:
    return np.concatenate(parts).astype(np.int32) if parts else np.zeros(0, np.int32)


def _even(size: int, count: int | None) -> np.ndarray:
    chosen = np.zeros(size, bool)
    wanted = size if count is None else count
    if not 1 <= wanted <= size:
        fail(f"between 1 and {size} links fit on this edge", key="links_per_edge", value=count)
    chosen[((np.arange(wanted) + 0.5) * size / wanted).astype(int)] = True
    return chosen
