"""The chip's network for the schedule: what a transfer between two places costs, and which links it loads.

A place is a group of tiles, given for each layer, since each layer's weights sit on their own tiles; a transfer's cost
is the mean over the layers, so that bytes times layers load every link exactly.  Two operators on the same group of
tiles exchange nothing over the network.  What goes to several places is one multicast: each byte to one tile of every
place, over each link of the tree of routes once.  Memory behind the chip is reached through the tiles where it is
attached.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from math import fsum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tierform.chip.description import Chip
from tierform.network import LINK_KINDS, AnalyticNetwork
from tierform.network.ways import Way, remembered
from tierform.provenance import Assumption
from tierform.simulation.package_network import network_of
from tierform.simulation.remember import Bounded

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_TREES = 400
Floats = NDArray[np.float64]
Tiles = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A group of tiles; `samples` holds the tile numbers for each layer, or once where all layers share them.

    `own` says that each layer has tiles or crossbars of its own; `where` (tiles,) is each tile's share of what is done
    there.  A fabric makes each place once: equal places are the same object.
    """

    samples: tuple[Tiles, ...]
    own: bool
    where: Floats

    def at(self, index: int) -> Tiles:
        """The tiles of a layer."""
        return self.samples[min(index, len(self.samples) - 1)]


@dataclass(frozen=True, slots=True)
class Route:
    """Mean cost of a transfer from one place to one or more `targets` at once.

    `energy_J_per_B`, `link_share` (the fraction of each byte on each link) and `where` (the fraction of the energy
    that each tile dissipates) are per byte delivered: with several targets each takes an equal part of what the tree
    costs.
    """

    name: str
    targets: tuple[Place, ...]
    head_s: float
    seconds_per_B: float
    energy_J_per_B: float
    link_share: Floats = field(default_factory=lambda: np.zeros(0))
    where: Floats | None = None
    own: bool = False
    source: Place | None = None

    def between(self, tiles: int) -> Floats:
        """(tiles, tiles) the fraction of each byte delivered that goes from tile to tile (a multicast: to each target).

        All layers, not the samples of a very wide multicast.
        """
        made = np.zeros((tiles, tiles))
        if self.source is None:
            return made
        count = max(len(place.samples) for place in (self.source, *self.targets))
        for index in range(count):
            here = self.source.at(index)
            for goal in receivers(self.source, self.targets, index):
                made[np.ix_(here, goal)] += 1.0 / (count * len(self.targets) * len(here) * len(goal))
        return made

    def port_s_per_B(self, port_B_per_s: float) -> float:
        """Seconds that a byte takes at the ports of its tiles alone, as `seconds_per_B` counts those of all links."""
        if self.source is None:
            return 0.0
        count = max(len(place.samples) for place in (self.source, *self.targets))
        total = 0.0
        for index in range(count):
            here = self.source.at(index)
            goals = receivers(self.source, self.targets, index)
            if goals:
                total += 1.0 / min(len(here), *(len(goal) for goal in goals))
        return total / count / port_B_per_s


@dataclass(frozen=True, slots=True)
class LinkEnds:
    """Of each link the tile that drives it, the tile that it leads to (-1: a router without one), and its kind."""

    source: list[int]
    target: list[int]
    kind: list[str]


class Fabric:
    """The network of a chip, or nothing for a chip of one tile."""

    def __init__(self, chip: Chip) -> None:
        self.network: AnalyticNetwork | None = None
        self._places: dict[tuple[tuple[Tiles, ...], bool, Tiles], Place] = {}
        self._apart: dict[tuple[Place, Place], bool] = {}
        self._routes: dict[tuple[Place, ...], Route] = {}
        self._ways: dict[tuple[object, ...], Way] = Bounded(20_000)
        self._node: NDArray[np.int32] = np.zeros(1, dtype=np.int32)
        self._tiles = len(chip.tiles)
        made = network_of(chip)
        if made is not None:
            self.network, self._node = made
            self._link_tile = self._tile_of_links()
        self._nodes_key = self._node.tobytes()

    def _tile_of_links(self) -> NDArray[np.int64]:
        """(links,) the tile at the router that drives each link, or -1."""
        assert self.network is not None
        topology = self.network.topology
        tile_of_router = np.full(topology.routers, -1, dtype=np.int64)
        for tile, node in enumerate(self._node):
            tile_of_router[topology.node_router[node]] = tile
        return tile_of_router[topology.link_source]

    def link_ends(self) -> LinkEnds:
        """The tiles at both ends of each link, and what kind of link it is."""
        if self.network is None:
            return LinkEnds([], [], [])
        topology = self.network.topology
        tile_of_router = {int(topology.node_router[node]): tile for tile, node in enumerate(self._node)}
        return LinkEnds(
            source=[tile_of_router.get(int(router), -1) for router in topology.link_source],
            target=[tile_of_router.get(int(router), -1) for router in topology.link_target],
            kind=[LINK_KINDS[int(kind)] for kind in topology.link_kind],
        )

    def nodes(self, tiles: Tiles) -> NDArray[np.int32]:
        """The network nodes of tiles."""
        return self._node[list(tiles)]

    def place(self, samples: tuple[Tiles, ...], own: bool = False, units: Tiles = ()) -> Place:
        """The place of these tiles, given for each layer or once for all.

        `units`: what each tile has of a component, which divides what is done there; left empty, all tiles are alike.
        """
        if len(set(units)) < 2:
            units = ()
        key = (samples, own, units)
        found = self._places.get(key)
        if found is None:
            where = np.zeros(self._tiles)
            for tiles in samples:
                each = sum(units) / np.array(units) if units else float(len(tiles))
                where[list(tiles)] += 1.0 / (each * len(samples))
            found = self._places[key] = Place(samples, own, where)
        return found

    def apart(self, source: Place, target: Place) -> bool:
        """Whether bytes for `target` leave the tiles of `source`."""
        if self.network is None or source is target:
            return False
        key = (source, target)
        found = self._apart.get(key)
        if found is None:
            count = max(len(source.samples), len(target.samples))
            found = self._apart[key] = any(source.at(index) != target.at(index) for index in range(count))
        return found

    def route(self, source: Place, targets: Sequence[Place]) -> Route:
        """The cost of moving the same bytes from one place to all `targets`, which are apart from it."""
        key = (source, *targets)
        found = self._routes.get(key)
        if found is None:
            found = self._routes[key] = self._cost(source, targets)
        return found

    def _cost(self, source: Place, targets: Sequence[Place]) -> Route:
        assert self.network is not None
        layers = _layers_of(source, targets)
        ways = []
        for index in layers:
            goals = receivers(source, targets, index)
            if goals:
                ways.append(self._way(source.at(index), goals))
        costs = self.network.costs(ways or [self._find_way(source.at(0), [source.at(0)])])  # or nothing travels
        count, each = len(layers), len(layers) * len(targets)
        share = costs.link_share.sum(axis=0) / each
        return Route(
            name=f"{number_of(source)} > {' + '.join(number_of(target) for target in targets)}",
            targets=tuple(targets),
            head_s=fsum(costs.head_s) / count,
            seconds_per_B=fsum(costs.seconds_per_B) / count,
            energy_J_per_B=fsum(costs.router_J_per_B + costs.link_J_per_B) / each,
            link_share=share,
            where=self._where(share),
            own=source.own or all(target.own for target in targets),
            source=source,
        )

    def _way(self, here: Tiles, goals: list[Tiles]) -> Way:
        """The way from the tiles of one layer; equal wirings with equal nodes share it."""
        assert self.network is not None
        network, key = self.network, (self._nodes_key, here, *goals)
        found = self._ways.get(key)
        if found is None:
            find = partial(self._find_way, here, goals)
            found = self._ways[key] = remembered(network.routing, key, find)
        return found

    def _find_way(self, here: Tiles, goals: list[Tiles]) -> Way:
        assert self.network is not None
        if len(goals) == 1:
            return self.network.flow_way(self.nodes(here), self.nodes(goals[0]))
        return self.network.multicast_way(self.nodes(here), [self.nodes(goal) for goal in goals])

    def _where(self, share: Floats) -> Floats:
        """(tiles,) where the energy of a transfer is spent: at the routers whose links it crosses."""
        at = self._link_tile
        spent = np.bincount(at[at >= 0], weights=share[at >= 0], minlength=self._tiles)
        total = spent.sum()
        return spent / total if total > 0 else np.full(self._tiles, 1.0 / self._tiles)

    @property
    def leakage_W(self) -> float:
        """Static power of the routers."""
        return self.network.leakage_W if self.network else 0.0

    @property
    def area_m2(self) -> float:
        """Routers and vertical links."""
        return self.network.area_m2 if self.network else 0.0

    @property
    def link_B_per_s(self) -> Floats:
        """(links,) bandwidth of each link."""
        return np.asarray(self.network.link_B_per_s if self.network else np.zeros(0), dtype=np.float64)

    def assumptions(self) -> Sequence[Assumption]:
        """The constants of routers and links."""
        return self.network.energy.assumptions if self.network else ()


def _layers_of(source: Place, targets: Sequence[Place]) -> list[int]:
    """The layers whose transfers are costed: all, or of very wide multicasts as many as :data:`MOST_TREES` allows.

    A multicast to groups of many tiles is as many trees as its groups have tiles; then evenly chosen layers stand for
    all.
    """
    count = max(len(place.samples) for place in (source, *targets))
    trees = sum(len(target.at(0)) for target in targets) if len(targets) > 1 else 1
    chosen = min(count, max(4, MOST_TREES // trees))
    return sorted({round(index * (count - 1) / max(chosen - 1, 1)) for index in range(chosen)})


def number_of(place: Place) -> str:
    """Tiles of a place in a few characters, for the timeline."""
    first, last = place.samples[0], place.samples[-1]
    return f"tile {first[0]}" if first == last and len(first) == 1 else f"tiles {min(first)} to {max(last)}"


def receivers(source: Place, targets: Sequence[Place], index: int) -> list[Tiles]:
    """The groups of tiles in a layer to which bytes really travel: places on the same tiles are one."""
    here = source.at(index)
    return list(dict.fromkeys(target.at(index) for target in targets if target.at(index) != here))
