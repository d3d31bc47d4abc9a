"""Builders of grids: meshes, tori, stacks and chiplets; other graphs are in :mod:`tierform.network.graphs`.

Lengths come from the tile pitch unless given.  Defaults are a 1 mm pitch, 256-bit links of one cycle; a chip
description gives its own.  Vertical links have the tier pitch as their length, interposer links the chiplet gap plus
one tile pitch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from tierform.errors import fail
from tierform.network.topology import (
    INTERPOSER,
    LINK_KINDS,
    PLANAR,
    VERTICAL,
    FloatArray,
    Grid,
    IntArray,
    Structure,
    Topology,
)

TILE_PITCH_M = 1e-3
WIDTH_BITS = 256
LARGEST = 1 << 20


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
    pillars: Iterable[tuple[int, ...]] | None = None,
    pitch_m: float = TILE_PITCH_M,
    tier_pitch_m: float = 50e-6,
    width_bits: int = WIDTH_BITS,
    vertical_width_bits: int | None = None,
    latency_cycles: int = 1,
    vertical_latency_cycles: int = 1,
    nodes_per_router: int = 1,
) -> Topology:
    """Stacked meshes (x, y, tiers), joined by vertical links at every place or only at those given.

    A place is (x, y), through the whole stack, or (x, y, tier), from that tier to the next one alone.
    """
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
    open_place = np.ones((width, height, max(tiers - 1, 0)), bool)
    if pillars is not None:
        chosen = sorted(set(pillars))
        outside = [
            p
            for p in chosen
            if not (0 <= p[0] < width and 0 <= p[1] < height and all(0 <= tier < tiers - 1 for tier in p[2:]))
        ]
        if outside or (not chosen and tiers > 1):
            fail("pillars must lie on the mesh, and tiers need at least one", key="pillars", value=outside or chosen)
        open_place[:] = False
        for x, y, *tier in chosen:
            open_place[x, y, tier or slice(None)] = True
    vertical = place[full.link_source, 2] != place[full.link_target, 2]
    lower = np.minimum(place[full.link_source], place[full.link_target])
    keep = ~vertical
    keep[vertical] = open_place[tuple(lower[vertical].T)]
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
        labels={"shape": sizes, "pillars": int(open_place.any(axis=2).sum())},
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


def _sizes(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in shape)
    total = 1
    for size in sizes:
        total *= size
    if not sizes or min(sizes) < 1 or total > LARGEST:
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
    count = int(np.prod(sizes))
    if not 1 <= nodes_per_router <= LARGEST // count:
        what = f"each router has at least one node, and a network at most {LARGEST:,}"
        fail(what, key="nodes_per_router", value=nodes_per_router)
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
    return plain_topology(
        name,
        node_router,
        position,
        joined_links(source),
        joined_links(target),
        np.full(used, length_m),
        width_bits,
        latency_cycles,
        {"shape": sizes, "nodes_per_router": nodes_per_router},
        grid,
    )


def plain_topology(
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
    structure: Structure | None = None,
) -> Topology:
    """A topology of planar links on one die; widths and latencies may be one value for all."""
    links = len(source)
    return Topology(
        name=name,
        node_router=np.asarray(node_router, np.int32),
        position_m=np.asarray(position, float),
        link_source=np.asarray(source, np.int32),
        link_target=np.asarray(target, np.int32),
        link_length_m=np.asarray(length, float),
        link_width_bits=np.broadcast_to(np.asarray(width, np.int32), links).copy(),
        link_latency_cycles=np.broadcast_to(np.asarray(latency).astype(np.int32), links).copy(),
        link_kind=np.full(links, LINK_KINDS.index("planar"), np.int32),
        chiplet=np.zeros(len(position), np.int32),
        grid=grid,
        labels=labels,
        structure=structure,
    )


def joined_links(parts: list[IntArray]) -> IntArray:
    """The parts one after the other, as link ends are stored."""
    return np.concatenate(parts).astype(np.int32) if parts else np.zeros(0, np.int32)


def _even(size: int, count: int | None) -> np.ndarray:
    chosen = np.zeros(size, bool)
    wanted = size if count is None else count
    if not 1 <= wanted <= size:
        fail(f"between 1 and {size} links fit on this edge", key="links_per_edge", value=count)
    chosen[((np.arange(wanted) + 0.5) * size / wanted).astype(int)] = True
    return chosen
