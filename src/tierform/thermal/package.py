"""The plates of a package beyond the die: a few nodes for their overhang, shared by the grid and the block model.

Where a plate of side s carries a die (or a smaller plate), its overhang is cut along the diagonals into four
trapezoids, west, east, north and south.  Each is one node with a lateral resistance to the edge it borders on and a
vertical one to the plate above or below; the sink beyond the spreader and the board beyond the solder balls are four
further nodes.  Convection is shared out by area.  This is the compact package of HotSpot (source: hotspot-7).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

from tierform.thermal.materials import at_temperature
from tierform.thermal.stack import Board, Plate, Sink, Stack

# Node number and resistance from its centre to the edge, for every node along an edge.
EdgeHalves = list[tuple[int, float]]
SIDES = ("west", "east", "north", "south")
# Where a plate ends flush with the one on it, its overhang has no extent; this stands for contact.
_CONTACT_K_PER_W = 1e-3


class Edges(Protocol):
    """Gives the nodes along an edge of a layer."""

    def __call__(self, layer: int, side: int, conductivity: float, thickness_m: float) -> EdgeHalves:
        """Nodes and half resistances for side 0..3 (west, east, north, south)."""


class PackageNodes:
    """The further nodes of a stack's package and what joins them; numbers start at `first`.

    `lumped` scales heat capacities, as the convention has it.
    """

    def __init__(self, stack: Stack, layers: int, first: int, edges: Edges, lumped: float) -> None:
        self._stack, self._layers, self._first, self._edges, self._lumped = stack, layers, first, edges, lumped
        self._centred = stack.convention == "centred"
        self.names: list[str] = []
        self.ambient: list[float] = []
        self.capacity: list[float] = []
        self.node_layer: list[int] = []
        self.link_from: list[int] = []
        self.link_to: list[int] = []
        self.link: list[float] = []
        if isinstance(stack.top, Sink):
            self._add_sink(stack.top)
        if isinstance(stack.bottom, Board):
            self._add_board(stack.bottom)

    def _add_sink(self, sink: Sink) -> None:
        spreader, plate = self._linear(sink.spreader), self._linear(sink.plate)
        top = self._layers - 1
        side_m, whole_m = spreader.side_m, plate.side_m
        ring = self._ring(spreader, side_m, top - 1, "spreader")
        under = self._ring(plate, side_m, top, "sink inner")
        outer = self._frame(plate, side_m, top, "sink outer")
        convection = sink.resistance_K_per_W * whole_m**2
        held = self._lumped * sink.capacity_J_per_K / whole_m**2
        rest = (whole_m**2 - side_m**2) / 4
        for side in range(4):
            area = self._trapezoid(side_m, side)
            lower, upper = _through(spreader, area), _through(plate, area)
            self._join(ring[side], under[side], lower / 2 + upper / 2 if self._centred else lower)
            self._cool(under[side], upper, convection, held, area)
            self._join(under[side], outer[side], self._outward(plate, side_m, side))
            self._cool(outer[side], _through(plate, rest), convection, held, rest)

    def _add_board(self, board: Board) -> None:
        substrate, solder, plate = self._linear(board.substrate), self._linear(board.solder), self._linear(board.board)
        side_m, whole_m = solder.side_m, plate.side_m
        ring = self._ring(substrate, substrate.side_m, 2, "substrate")
        balls = self._ring(solder, side_m, 1, "solder")
        inner = self._ring(plate, side_m, 0, "board inner")
        outer = self._frame(plate, side_m, 0, "board outer")
        convection = board.resistance_K_per_W * whole_m**2
        held = self._lumped * board.capacity_J_per_K / whole_m**2
        rest = (whole_m**2 - side_m**2) / 4
        for side in range(4):
            area = self._trapezoid(side_m, side)
            highest = _through(substrate, self._trapezoid(substrate.side_m, side))
            middle, lowest = _through(solder, area), _through(plate, area)
            # Where nodes lie on the lower face, the plate below counts whole, and the board's face is its node.
            self._join(ring[side], balls[side], highest / 2 + middle / 2 if self._centred else middle)
            self._join(balls[side], inner[side], middle / 2 + lowest / 2 if self._centred else lowest)
            self._cool(inner[side], lowest if self._centred else 0.0, convection, held, area)
            self._join(inner[side], outer[side], self._outward(plate, side_m, side))
            self._cool(outer[side], _through(plate, rest) if self._centred else 0.0, convection, held, rest)

    def _linear(self, plate: Plate) -> Plate:
        return replace(plate, material=at_temperature(plate.material, self._stack.conductivity_temperature_K))

    def _along(self, side: int) -> tuple[float, float]:
        """Die size along the way out of this side, and across it."""
        wide, high = self._stack.width_m, self._stack.height_m
        return (wide, high) if side < 2 else (high, wide)

    def _trapezoid(self, outer_m: float, side: int) -> float:
        along, across = self._along(side)
        return (outer_m + across) * (outer_m - along) / 4

    def _ring(self, plate: Plate, outer_m: float, layer: int, name: str) -> list[int]:
        """Four nodes around the die; the edge's nodes share the lateral resistance by their conductance."""
        nodes = []
        for side, compass in enumerate(SIDES):
            along, across = self._along(side)
            k = _lateral(plate, side)
            out = _prism((outer_m - along) / 4, k, (outer_m + 3 * across) / 4 * plate.thickness_m)
            node = self._node(f"{name} {compass}", layer, self._trapezoid(outer_m, side) * plate.thickness_m, plate)
            halves = self._edges(layer, side, k, plate.thickness_m)
            whole = math.fsum(1.0 / half for _, half in halves)
            for edge, half in halves:
                self._join(edge, node, half + half * whole * out)
            nodes.append(node)
        return nodes

    def _frame(self, plate: Plate, inner_m: float, layer: int, name: str) -> list[int]:
        volume = (plate.side_m**2 - inner_m**2) / 4 * plate.thickness_m
        return [self._node(f"{name} {compass}", layer, volume, plate) for compass in SIDES]

    def _outward(self, plate: Plate, inner_m: float, side: int) -> float:
        along, across = self._along(side)
        k, thick, outer_m = _lateral(plate, side), plate.thickness_m, plate.side_m
        near = _prism((inner_m - along) / 4, k, (3 * inner_m + across) / 4 * thick)
        return near + _prism((outer_m - inner_m) / 4, k, (outer_m + 3 * inner_m) / 4 * thick)

    def _node(self, name: str, layer: int, volume_m3: float, plate: Plate) -> int:
        self.names.append(name)
        self.node_layer.append(layer)
        self.ambient.append(0.0)
        self.capacity.append(self._lumped * plate.material.heat_capacity_J_per_m3K * volume_m3)
        return self._first + len(self.names) - 1

    def _join(self, first: int, second: int, resistance: float) -> None:
        self.link_from.append(first)
        self.link_to.append(second)
        self.link.append(1.0 / max(resistance, _CONTACT_K_PER_W))

    def _cool(self, node: int, through: float, convection: float, held: float, area_m2: float) -> None:
        own = through / 2 if self._centred else through
        if area_m2 > 0:
            self.ambient[node - self._first] += 1.0 / (own + convection / area_m2)
            self.capacity[node - self._first] += held * area_m2


def _lateral(plate: Plate, side: int) -> float:
    return plate.material.conductivity_x_W_per_mK if side < 2 else plate.material.conductivity_y_W_per_mK


def _through(plate: Plate, area_m2: float) -> float:
    return _prism(plate.thickness_m, plate.material.conductivity_z_W_per_mK, area_m2)


def _prism(length_m: float, conductivity: float, area_m2: float) -> float:
    """Resistance of a prism; none for no length, infinite for no area (a plate that does not overhang)."""
    if length_m <= 0:
        return 0.0
    return length_m / (conductivity * area_m2) if area_m2 > 0 else math.inf
