"""The chip's network for the schedule: what a transfer between two places costs, and which links it loads.

A place is a group of tiles, given for a few sample layers, since each layer's weights sit on their own tiles; costs are
means over the samples.  Two operators on the same group of tiles exchange nothing over the network.  What goes to
several places is one multicast: each byte to one tile of every place, over each link of the tree of routes once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tierform.chip.description import Chip
from tierform.network import AnalyticNetwork, RouterParameters, Topology, chiplets, energy_parameters, mesh, mesh_3d
from tierform.provenance import Assumption

if TYPE_CHECKING:
    from collections.abc import Sequence

_PIPELINE_MINIMUM = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A group of tiles by name; `samples` holds the tile numbers for each sample layer."""

    name: str
    samples: tuple[tuple[int, ...], ...]
    own: bool = False

    def at(self, index: int) -> tuple[int, ...]:
        """The tiles of a sample layer."""
        return self.samples[min(index, len(self.samples) - 1)]


@dataclass(frozen=True, slots=True)
class Route:
    """Mean cost of a transfer from one place to one or more `targets` at once.

    `energy_J_per_B` and `link_share` (the fraction of each byte on each link) are per byte delivered: with several
    targets each takes an equal part of what the tree costs.
    """

    name: str
    targets: tuple[Place, ...]
    head_s: float
    seconds_per_B: float
    energy_J_per_B: float
    link_share: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    own: bool = False


class Fabric:
    """The network of a chip, or nothing for a chip of one tile."""

    def __init__(self, chip: Chip) -> None:
        self.network: AnalyticNetwork | None = None
        self._routes: dict[tuple[str, ...], Route] = {}
        self._node: NDArray[np.int32] = np.zeros(1, dtype=np.int32)
        if chip.network is None or len(chip.tiles) < 2:
            return
        spec = chip.network
        topology, self._node = _topology(chip)
        router = RouterParameters(
            flit_bits=round(spec.width.value),
            routing_delay=max(0, spec.router_cycles - _PIPELINE_MINIMUM),
            crossbar_delay=1 if spec.router_cycles >= _PIPELINE_MINIMUM else 0,
        )
        self.network = AnalyticNetwork(topology, "default", router, spec.clock.value, energy_parameters())

    def nodes(self, tiles: tuple[int, ...]) -> NDArray[np.int32]:
        """The network nodes of tiles."""
        return self._node[list(tiles)]

    def apart(self, source: Place, target: Place) -> bool:
        """Whether bytes for `target` leave the tiles of `source`."""
        count = max(len(source.samples), len(target.samples))
        return self.network is not None and any(receivers(source, (target,), index) for index in range(count))

    def route(self, source: Place, targets: Sequence[Place]) -> Route:
        """The cost of moving the same bytes from one place to all `targets`, which are apart from it."""
        key = (source.name, *(target.name for target in targets))
        if key not in self._routes:
            self._routes[key] = self._cost(source, targets)
        return self._routes[key]

    def _cost(self, source: Place, targets: Sequence[Place]) -> Route:
        assert self.network is not None
        count = max(len(place.samples) for place in (source, *targets))
        costs = []
        for index in range(count):
            here, goals = source.at(index), receivers(source, targets, index)
            if len(goals) == 1:
                costs.append(self.network.flow_cost(self.nodes(here), self.nodes(goals[0])))
            elif goals:
                costs.append(self.network.multicast_cost(self.nodes(here), [self.nodes(goal) for goal in goals]))
        each = count * len(targets)
        return Route(
            f"{source.name} > {' + '.join(target.name for target in targets)}",
            tuple(targets),
            sum(cost.head_latency_s for cost in costs) / count,
            sum(cost.seconds_per_B for cost in costs) / count,
            sum(cost.energy_J_per_B for cost in costs) / each,
            sum((cost.link_share for cost in costs), np.zeros(self.network.topology.links)) / each,
            source.own or all(target.own for target in targets),
        )

    @property
    def leakage_W(self) -> float:
        """Static power of the routers."""
        return self.network.leakage_W if self.network else 0.0

    @property
    def area_m2(self) -> float:
        """Routers and vertical links."""
        return self.network.area_m2 if self.network else 0.0

    @property
    def link_B_per_s(self) -> NDArray[np.float64]:
        """(links,) bandwidth of each link."""
        return np.asarray(self.network.link_B_per_s if self.network else np.zeros(0), dtype=np.float64)

    def assumptions(self) -> Sequence[Assumption]:
        """The constants of routers and links."""
        return self.network.energy.assumptions if self.network else ()


def receivers(source: Place, targets: Sequence[Place], index: int) -> list[tuple[int, ...]]:
    """The groups of tiles in a sample layer to which bytes really travel: places on the same tiles are one."""
    here = source.at(index)
    return list(dict.fromkeys(target.at(index) for target in targets if target.at(index) != here))


def _topology(chip: Chip) -> tuple[Topology, NDArray[np.int32]]:
    """The topology of the package, and the network node of each tile."""
    assert chip.network is not None
    spec, dies = chip.network, chip.package.dies
    columns, rows = dies[0].grid
    width = round(spec.width.value)
    size = max(chip.die_size_m(die) for die in range(len(dies)))
    pitch = size[0] / columns
    if chip.package.kind == "3d" and spec.vertical is not None:
        topology = mesh_3d(
            (columns, rows, len(dies)),
            pitch_m=pitch,
            width_bits=width,
            vertical_width_bits=round(spec.vertical.width.value),
            vertical_latency_cycles=spec.vertical.latency_cycles,
        )
        places = [(tile.x, tile.y, tile.die) for tile in chip.tiles]
    elif chip.package.kind == "2.5d" and spec.interposer is not None:
        across, down = (max(die.at[axis] for die in dies) + 1 for axis in (0, 1))
        gap = chip.package.chiplet_gap
        topology = chiplets(
            (across, down),
            (columns, rows),
            pitch_m=pitch,
            gap_m=gap.value if gap else 1e-3,
            width_bits=width,
            interposer_width_bits=round(spec.interposer.width.value),
            interposer_latency_cycles=spec.interposer.latency_cycles,
        )
        places = [(dies[t.die].at[0] * columns + t.x, dies[t.die].at[1] * rows + t.y) for t in chip.tiles]  # type: ignore[misc]
    else:
        topology = mesh((columns, rows), pitch_m=pitch, width_bits=width)
        places = [(tile.x, tile.y) for tile in chip.tiles]  # type: ignore[misc]
    assert topology.grid is not None
    router = {tuple(int(v) for v in place): index for index, place in enumerate(topology.grid.coordinates)}
    first_node = {int(r): node for node, r in reversed(list(enumerate(topology.node_router)))}
    return topology, np.array([first_node[router[place]] for place in places], dtype=np.int32)
