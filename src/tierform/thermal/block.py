"""The block model: one node per floorplan block in every layer, for a planar chip under spreader and sink.

Neighbouring blocks exchange heat across the edge that they share; each block conducts straight up through the layers;
plates beyond the die are the nodes of ``package.py``.  A few hundred unknowns, so everything is dense: steady states by
Cholesky's method, and transients exactly, by the eigenvectors of C^-1/2·G·C^-1/2 (power is constant in an interval).
With the convention ``hotspot`` this is HotSpot's block mode (source: hotspot-7).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tierform.errors import Problem, TierformError, fail
from tierform.thermal.grid import Powers, tile_powers
from tierform.thermal.materials import at_temperature
from tierform.thermal.network import LUMPED_CAPACITY, Array
from tierform.thermal.package import EdgeHalves, PackageNodes
from tierform.thermal.stack import Region, Sink, Stack, StackLayer, region_problems

_EDGE = 1e-6


@dataclass(frozen=True)
class BlockTemperatures:
    """Temperatures of all nodes: per layer and block, then the package."""

    model: BlockModel
    nodes_K: Array

    def layer_K(self, name: str) -> Array:
        """One temperature per block in a layer; ``spreader`` and ``sink`` too."""
        names = self.model.layer_names
        if name not in names:
            fail("the stack has no such layer", value=name, choices=names)
        count, number = len(self.model.blocks), names.index(name)
        return self.nodes_K[number * count : (number + 1) * count]

    @property
    def tiles_K(self) -> Array:
        """One temperature per tile."""
        return self.layer_K(self.model.powered)

    @property
    def package_K(self) -> dict[str, float]:
        """Temperatures of the package nodes by name."""
        names = self.model.package_names
        return dict(zip(names, self.nodes_K[self.nodes_K.size - len(names) :].tolist(), strict=True))

    @property
    def peak_K(self) -> float:
        """The hottest node."""
        return float(self.nodes_K.max())

    @property
    def heat_out_W(self) -> float:
        """Heat that leaves to the ambient."""
        model = self.model
        return float(model.ambient_W_per_K @ (self.nodes_K - model.stack.ambient_K))


class BlockModel:
    """A planar stack with one floorplan; see the module's text.  TierformError when the stack is of another kind."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        layer = self._suitable(stack)
        self.powered = layer.name
        self.blocks: tuple[Region, ...] = layer.regions
        plates: tuple[tuple[str, StackLayer], ...] = ()
        if isinstance(stack.top, Sink):
            spreader, sink = stack.top.spreader, stack.top.plate
            plates = (
                ("spreader", StackLayer("spreader", spreader.thickness_m, spreader.material)),
                ("sink", StackLayer("sink", sink.thickness_m, sink.material)),
            )
        self._layers = [*stack.layers, *(plate for _, plate in plates)]
        self.layer_names = [entry.name for entry in self._layers]
        self._build()

    @staticmethod
    def _suitable(stack: Stack) -> StackLayer:
        powered = [layer for layer in stack.layers if layer.powered]
        problems: list[Problem] = []
        if len(powered) != 1:
            problems.append(Problem("the block model has one powered layer", key="stack.layers", value=len(powered)))
        if stack.bottom is not None or not isinstance(stack.top, Sink):
            problems.append(Problem("the block model has a sink above and nothing below", key="stack"))
        if any(layer.channels for layer in stack.layers):
            problems.append(Problem("the block model has no microchannels", key="stack.layers"))
        if not problems:
            only = powered[0]
            problems += region_problems(only.regions, stack.width_m, stack.height_m, where=only.name, cover=True)
        if problems:
            raise TierformError([*problems, Problem("this stack needs the grid model", fix="Use GridModel.")])
        return powered[0]

    def _build(self) -> None:
        stack, blocks = self.stack, self.blocks
        count, layers = len(blocks), len(self._layers)
        x = np.array([block.x_m for block in blocks])
        y = np.array([block.y_m for block in blocks])
        self._w = np.array([block.width_m for block in blocks])
        self._h = np.array([block.height_m for block in blocks])
        area = self._w * self._h
        slack = _EDGE * max(stack.width_m, stack.height_m)
        west, south, east, north = x, y, x + self._w, y + self._h
        self._edges = [
            np.flatnonzero(np.abs(west) <= slack),
            np.flatnonzero(np.abs(east - stack.width_m) <= slack),
            np.flatnonzero(np.abs(north - stack.height_m) <= slack),
            np.flatnonzero(np.abs(south) <= slack),
        ]
        shared_y = np.minimum(north[:, None], north) - np.maximum(south[:, None], south)
        shared_x = np.minimum(east[:, None], east) - np.maximum(west[:, None], west)
        touch_x = (np.abs(east[:, None] - west) <= slack) & (shared_y > slack)
        touch_y = (np.abs(north[:, None] - south) <= slack) & (shared_x > slack)
        package = PackageNodes(stack, layers, layers * count, self._edge, self._lumped)
        total = layers * count + len(package.names)
        g = np.zeros((total, total))
        ambient = np.zeros(total)
        capacity = np.zeros(total)
        above: Array | None = None
        for number in range(layers - 1, -1, -1):
            layer = self._layers[number]
            k = at_temperature(layer.material, stack.conductivity_temperature_K)
            own = slice(number * count, (number + 1) * count)
            thick = layer.thickness_m
            if layer.lateral:
                half_x, half_y = self._w / (2 * k.conductivity_x_W_per_mK), self._h / (2 * k.conductivity_y_W_per_mK)
                across = np.where(touch_x, shared_y * thick / (half_x[:, None] + half_x), 0.0)
                across += np.where(touch_y, shared_x * thick / (half_y[:, None] + half_y), 0.0)
                g[own, own] += across + across.T
            through = thick / (k.conductivity_z_W_per_mK * area)
            capacity[own] = self._lumped * k.heat_capacity_J_per_m3K * thick * area
            centred = stack.convention == "centred"
            if above is None:
                assert isinstance(stack.top, Sink)
                sink, whole = stack.top, stack.top.plate.side_m**2
                ambient[own] = 1.0 / ((through / 2 if centred else through) + sink.resistance_K_per_W * whole / area)
                capacity[own] += self._lumped * sink.capacity_J_per_K * area / whole
            else:
                link = 1.0 / (through / 2 + above / 2 if centred else through)
                upper = np.arange((number + 1) * count, (number + 2) * count)
                g[upper - count, upper] = g[upper, upper - count] = link
            above = through
        np.add.at(g, (package.link_from, package.link_to), package.link)
        np.add.at(g, (package.link_to, package.link_from), package.link)
        ambient[layers * count :] = package.ambient
        capacity[layers * count :] = package.capacity
        self.package_names = tuple(package.names)
        self.ambient_W_per_K, self.capacity_J_per_K = ambient, capacity
        self.conductance_W_per_K: Array = np.diag(g.sum(axis=1) + ambient) - g

    @property
    def _lumped(self) -> float:
        return 1.0 if self.stack.convention == "centred" else LUMPED_CAPACITY

    def _edge(self, layer: int, side: int, conductivity: float, thickness_m: float) -> EdgeHalves:
        blocks = self._edges[side]
        length, face = (self._w, self._h) if side < 2 else (self._h, self._w)
        half = length / (2 * conductivity * face * thickness_m)
        return [(layer * len(self.blocks) + int(block), float(half[block])) for block in blocks]

    @cached_property
    def _inverse(self) -> Array:
        return np.asarray(np.linalg.inv(self.conductance_W_per_K))

    @cached_property
    def _modes(self) -> tuple[Array, Array, Array]:
        # Nodes without capacity (plates flush with the die) follow at once; a trace of one keeps the algebra regular.
        root = np.sqrt(np.maximum(self.capacity_J_per_K, 1e-12 * self.capacity_J_per_K.max()))
        rates, vectors = np.linalg.eigh(self.conductance_W_per_K / np.outer(root, root))
        return root, rates, vectors

    def power_vector(self, power_W: Powers) -> Array:
        """Power of every node for powers of the blocks."""
        result = np.zeros(self.ambient_W_per_K.size)
        start = self.layer_names.index(self.powered) * len(self.blocks)
        result[start : start + len(self.blocks)] = tile_powers(self.stack, power_W)
        return result

    def steady(self, power_W: Powers) -> BlockTemperatures:
        """Steady temperatures for powers of the blocks."""
        sources = self.power_vector(power_W) + self.ambient_W_per_K * self.stack.ambient_K
        return BlockTemperatures(self, self._inverse @ sources)

    def transient(
        self, powers_W: Iterable[Powers], interval_s: float, *, start: Array | float | None = None
    ) -> tuple[Array, Array, BlockTemperatures]:
        """Times (n,), block temperatures (n, blocks) at the end of each interval, and all nodes at the last.

        `start` is one temperature, one per node, or None for the ambient.
        """
        if not 0 < interval_s < float("inf"):
            fail("the interval must be positive", key="interval_s", value=interval_s)
        root, rates, vectors = self._modes
        decay = np.exp(-rates * interval_s)
        nodes = np.full(root.size, self.stack.ambient_K) if start is None else np.zeros(root.size) + start
        rows = []
        for powers in powers_W:
            target = self.steady(powers).nodes_K
            nodes = target + (vectors @ (decay * (vectors.T @ (root * (nodes - target))))) / root
            rows.append(BlockTemperatures(self, nodes).tiles_K)
        times = np.asarray(interval_s * np.arange(1, len(rows) + 1), dtype=np.float64)
        return times, np.array(rows).reshape(len(rows), len(self.blocks)), BlockTemperatures(self, nodes)
