"""Chiplets on a grid whose network follows from where they stand: the cost of PlaceIT, and a search for it.

Compute chiplets have a port on each side and pass on what is not for them; memory and I/O chiplets have one port, on
the side that they face.  Two neighbours are joined where facing sides both have a port.  Cost is the weighted sum of
latencies, inverse throughputs and area over four kinds of traffic, each normalized, as Iff et al. define it (PlaceIT,
arXiv 2502.01449).  Their best of ten runs of an hour is 7.9792 for 32 cores; the search here swaps, turns and moves
chiplets under annealing with a compiled cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.exploration.compiled_draws import below, compiled, start_draws, uniform

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
KINDS = "CMI"
FACES = "NESW"
COMPUTE, MEMORY, INPUT_OUTPUT = range(3)
# The kind in whose terms each traffic is told (C2C, C2M, C2I, M2I), and the kinds between which its routes are found.
TRAFFIC_FROM = np.array([COMPUTE, COMPUTE, COMPUTE, MEMORY])
_STARTS = np.array([[COMPUTE, COMPUTE], [MEMORY, COMPUTE], [INPUT_OUTPUT, COMPUTE], [INPUT_OUTPUT, MEMORY]])
FIGURES = ("c2c_lat", "c2c_tp", "c2m_lat", "c2m_tp", "c2i_lat", "c2i_tp", "m2i_lat", "m2i_tp", "area")
# Sides in ascending order of the neighbour's place: south, west, east, north.
_ASCENDING = np.array([2, 3, 1, 0])
_ROW = np.array([1, 0, -1, 0])
_COLUMN = np.array([0, 1, 0, -1])


@dataclass(frozen=True, slots=True, eq=False)
class ChipletCase:
    """A grid, how many chiplets of each kind, cycles of a relay, a PHY and a link, and the weights of the cost."""

    rows: int
    columns: int
    counts: tuple[int, int, int]
    relay_phy_link: tuple[float, float, float]
    weights: Floats  # (9,) in the order of FIGURES
    normalizers: Floats  # (9,)
    ports: tuple[int, int, int] = (4, 1, 1)
    area: float = 360.0

    @property
    def delays(self) -> Floats:
        """(3,) relay, PHY, link."""
        return np.array(self.relay_phy_link, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class ChipletDesign:
    """What stands where: rows of kinds and of faces (A: all sides), the first row in the south."""

    grid: tuple[str, ...]
    faces: tuple[str, ...]
    cost: float
    figures: Floats


@compiled
def _hops(kind: Ints, joined: Ints, source: int, hops: Ints, queue: Ints) -> int:
    hops[:] = -1
    hops[source] = 0
    queue[0] = source
    at, count = 0, 1
    while at < count:
        here = queue[at]
        at += 1
        if here != source and kind[here] != COMPUTE:
            continue
        for side in range(4):
            there = joined[here, side]
            if there >= 0 and hops[there] < 0:
                hops[there] = hops[here] + 1
                queue[count] = there
                count += 1
    return count


@compiled
def _join(kind: Ints, face: Ints, rows: int, columns: int, joined: Ints) -> None:
    """(places, 4) neighbours to the south, west, east and north that a link joins, in ascending order of place."""
    for place in range(rows * columns):
        row, column = place // columns, place % columns
        for index in range(4):
            side = _ASCENDING[index]
            r, c = row + _ROW[side], column + _COLUMN[side]
            joined[place, index] = -1
            if r < 0 or r >= rows or c < 0 or c >= columns:
                continue
            other = r * columns + c
            if (face[place] < 0 or face[place] == side) and (face[other] < 0 or face[other] == (side + 2) % 4):
                joined[place, index] = other


@compiled
def _class_figures(
    kind: Ints, joined: Ints, traffic: int, delays: Floats, ports: Ints, out: Floats
) -> bool:  # fmt: skip
    """Latency and throughput of one kind of traffic into `out`; False where a chiplet is cut off.

    Routes start at a compute chiplet for traffic among them, else at the memory or I/O chiplet.
    """
    places = kind.size
    from_kind, goal_kind = _STARTS[traffic, 0], _STARTS[traffic, 1]
    paths = np.zeros((places, 4), np.int64)
    hops, queue = np.empty(places, np.int64), np.empty(places, np.int64)
    edges = np.empty(places * places * 8, np.int32)
    ends = np.empty(places * places, np.int64)
    count, routes, summed = 0, 0, 0
    for source in range(places):
        if kind[source] != from_kind:
            continue
        _hops(kind, joined, source, hops, queue)
        for goal in range(places):
            if kind[goal] != goal_kind or goal == source:
                continue
            if hops[goal] < 0 or count + hops[goal] > edges.size:
                return False
            summed += hops[goal]
            here = goal
            while here != source:
                best, best_side, best_from = 1 << 60, -1, -1
                for index in range(4):
                    before = joined[here, index]
                    if before < 0 or hops[before] != hops[here] - 1:
                        continue
                    if before != source and kind[before] != COMPUTE:
                        continue
                    if paths[before, 3 - index] < best:  # the opposite side stands at the mirrored index
                        best, best_side, best_from = paths[before, 3 - index], 3 - index, before
                paths[best_from, best_side] += 1
                edges[count] = best_from * 4 + best_side
                count += 1
                here = best_from
            ends[routes] = count
            routes += 1
    told = 0
    for place in range(places):
        told += kind[place] == TRAFFIC_FROM[traffic]
    if routes == 0:
        return False
    carried, at = 0.0, 0
    for route in range(routes):
        most = 1
        while at < ends[route]:
            most = max(most, paths[edges[at] // 4, edges[at] % 4])
            at += 1
        carried += 1.0 / most
    mean = summed / routes
    out[2 * traffic] = (mean - 1) * delays[0] + 2 * mean * delays[1] + mean * delays[2]
    out[2 * traffic + 1] = carried / told / ports[TRAFFIC_FROM[traffic]]
    return True


@compiled
def figures_of(
    kind: Ints, face: Ints, rows: int, columns: int, delays: Floats, ports: Ints, out: Floats
) -> bool:  # fmt: skip
    """Latency and throughput of the four kinds of traffic into `out` (8,); False where something is cut off.

    `kind` and `face` are (rows * columns,); a face of -1 is a port on each side.
    """
    joined = np.empty((rows * columns, 4), np.int64)
    _join(kind, face, rows, columns, joined)
    fits = True
    for traffic in range(4):
        fits = fits and _class_figures(kind, joined, traffic, delays, ports, out)
    return fits


@compiled
def _part(figures: Floats, weights: Floats, normalizers: Floats, traffic: int) -> float:
    late, carried = 2 * traffic, 2 * traffic + 1
    cost = weights[late] * figures[late] / normalizers[late]
    return float(cost + weights[carried] * normalizers[carried] / figures[carried])


@compiled
def _anneal(
    kind: Ints, face: Ints, rows: int, columns: int, delays: Floats, ports: Ints, weights: Floats, normalizers: Floats,
    steps: int, warm: float, cold: float, seed: int,
) -> float:  # fmt: skip
    """Anneal from `kind` and `face`, which are left at the best; its cost without the area."""
    start_draws(seed)
    places = rows * columns
    now, turned = kind.copy(), face.copy()
    joined, figures = np.empty((places, 4), np.int64), np.zeros(8)
    best, cost, inner = np.inf, np.inf, 0.0
    for step in range(steps + 1):
        heat = warm * (cold / warm) ** (step / steps)
        one, other = below(places), below(places)
        old = now[one], turned[one], now[other], turned[other]
        if step > 0:
            if now[one] == COMPUTE:
                continue
            if uniform() < 0.7:
                if now[other] == now[one]:
                    continue
                now[one], now[other] = now[other], now[one]
                turned[one], turned[other] = turned[other], below(4)
                if now[one] != COMPUTE:
                    turned[one] = below(4)
            else:
                turned[one] = below(4)
        _join(now, turned, rows, columns, joined)
        allowed = cost - heat * np.log(uniform())
        # The traffic with few routes first: most moves are refused before the many routes are found.
        total, fits = 0.0, True
        for traffic in (3, 1, 2, 0):
            if traffic == 0 and total + 0.9 * inner > allowed:
                fits = False
            if not fits or not _class_figures(now, joined, traffic, delays, ports, figures):
                fits = False
                break
            total += _part(figures, weights, normalizers, traffic)
        if fits and (total <= allowed or step == 0):
            cost, inner = total, _part(figures, weights, normalizers, 0)
            if cost < best:
                best = cost
                kind[:], face[:] = now, turned
        elif step > 0:
            now[one], turned[one], now[other], turned[other] = old
    return best


def _numbers(case: ChipletCase, grid: Sequence[str], faces: Sequence[str]) -> tuple[Ints, Ints]:
    kinds: Ints = np.array([KINDS.index(letter) for row in grid for letter in row], np.int64)
    turned: Ints = np.array([FACES.find(letter) for row in faces for letter in row], np.int64)
    if len(kinds) != case.rows * case.columns or len(turned) != len(kinds):
        fail(f"a grid of {case.rows} rows and {case.columns} columns is needed", key="grid", value=list(grid))
    return kinds, turned


def chiplet_cost(case: ChipletCase, grid: Sequence[str], faces: Sequence[str]) -> ChipletDesign:
    """The cost of a design given as rows of letters, the south row first; TierformError where it is cut off."""
    kinds, turned = _numbers(case, grid, faces)
    figures = np.zeros(9)
    figures[8] = case.area
    ports = np.array(case.ports, np.int64)
    if not figures_of(kinds, turned, case.rows, case.columns, case.delays, ports, figures):
        fail("a chiplet cannot be reached", key="grid", value=list(grid))
    cost = case.weights[8] * case.area / case.normalizers[8]
    cost += sum(_part(figures, case.weights, case.normalizers, traffic) for traffic in range(4))
    return ChipletDesign(tuple(grid), tuple(faces), float(cost), figures)


def place_chiplets(case: ChipletCase, *, steps: int = 100_000, seed: int = 0) -> ChipletDesign:
    """The best design found from a random one; the optimum is not proven."""
    rng = np.random.default_rng(seed)
    places = case.rows * case.columns
    if sum(case.counts) != places:
        fail("the chiplets must fill the grid", key="counts", value=case.counts, fix=f"There are {places} places.")
    row, column = np.arange(places) // case.columns, np.arange(places) % case.columns
    # A start in which nothing is cut off: the others on the edge rows, facing inwards.
    edge = np.flatnonzero(((row == 0) | (row == case.rows - 1)) & (column > 0) & (column < case.columns - 1))
    others = case.counts[MEMORY] + case.counts[INPUT_OUTPUT]
    if others > len(edge):
        fail("there is no room on the edges for memory and I/O", key="counts", value=case.counts)
    chosen = rng.permutation(edge)[:others]
    kind, face = np.zeros(places, np.int64), np.full(places, -1, np.int64)
    kind[chosen[: case.counts[MEMORY]]] = MEMORY
    kind[chosen[case.counts[MEMORY] :]] = INPUT_OUTPUT
    face[chosen] = np.where(row[chosen] == 0, 0, 2)
    _anneal(
        kind, face, case.rows, case.columns, case.delays, np.array(case.ports, np.int64), case.weights,
        case.normalizers, steps, 0.05, 0.0005, seed,
    )  # fmt: skip
    letters = ["".join(KINDS[kind[r * case.columns + c]] for c in range(case.columns)) for r in range(case.rows)]
    sides = [
        "".join(
            "A" if face[place] < 0 else FACES[face[place]] for place in range(r * case.columns, (r + 1) * case.columns)
        )
        for r in range(case.rows)
    ]
    return chiplet_cost(case, letters, sides)
