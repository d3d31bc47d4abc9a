"""The stack as a network of conductances: cells of a grid, peripheral package nodes, and ways to the ambient.

Finite volumes on a uniform grid: one cell per layer slice, row and column.  Heat between neighbours i and j is
g_ij·(T_i - T_j) with g the series of the two half cells (conduction of anisotropic, piecewise constant materials), and
a node may have a conductance to the ambient.  Where a plate of the package reaches beyond the die, its overhang is four
trapezoids (one lateral and one vertical resistance each), and that of the sink or board beyond the plate on it four
more: the compact package of W. Huang et al., HotSpot (source: hotspot-7).  Coolant adds one-sided coefficients.

Everything here is numpy; the solvers are in ``solvers.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.thermal.materials import Material, at_temperature
from tierform.thermal.package import EdgeHalves, PackageNodes
from tierform.thermal.stack import Board, Plate, Region, Sink, Stack, StackLayer, Surface

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# HotSpot lumps distributed capacities with this factor (hotspot-7).
LUMPED_CAPACITY = 0.333
# HotSpot's heterogeneous mode gives a cell to one block from this share of its area on (hotspot-7).
_LOCKED = 0.95


@dataclass(frozen=True)
class Network:
    """Conductances (W/K) and capacities (J/K) of all nodes.

    Node number of cell (layer, row, column) is (layer·rows + row)·columns + column, rows counted from the south;
    package nodes follow.  `lateral_x` is (layers, rows, columns-1), `lateral_y` (layers, rows-1, columns), `vertical`
    (layers-1, rows, columns), `ambient` and `capacity` one number per node.  `link_from`, `link_to`, `link` are the
    further conductances of the package, `node_layer` the layer that each package node belongs to.  `carried_*` are
    the coefficients of moving coolant: row, column and value to add to the matrix; `inflow_W` the heat it brings.
    """

    lateral_x: Array
    lateral_y: Array
    vertical: Array
    ambient: Array
    capacity: Array
    link_from: Indices
    link_to: Indices
    link: Array
    node_layer: Indices
    node_names: tuple[str, ...]
    ambient_K: float
    source_layer: tuple[int, ...]
    carried_row: Indices
    carried_column: Indices
    carried: Array
    inflow_W: Array

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers of cells, rows, columns."""
        layers, rows, less = self.lateral_x.shape
        return layers, rows, less + 1

    @property
    def nodes(self) -> int:
        """Number of unknowns."""
        return self.ambient.size

    @property
    def symmetric(self) -> bool:
        """False when coolant moves."""
        return self.carried.size == 0

    def diagonal(self) -> Array:
        """The diagonal of the conductance matrix, one number per node."""
        layers, rows, columns = self.shape
        total = self.ambient.copy()
        cells = total[: layers * rows * columns].reshape(layers, rows, columns)
        cells[:, :, :-1] += self.lateral_x
        cells[:, :, 1:] += self.lateral_x
        cells[:, :-1] += self.lateral_y
        cells[:, 1:] += self.lateral_y
        cells[:-1] += self.vertical
        cells[1:] += self.vertical
        np.add.at(total, self.link_from, self.link)
        np.add.at(total, self.link_to, self.link)
        own = self.carried_row == self.carried_column
        np.add.at(total, self.carried_row[own], self.carried[own])
        return total

    def edges(self) -> tuple[Indices, Indices, Array]:
        """Every conductance between two nodes once: from, to, W/K."""
        layers, rows, columns = self.shape
        number = np.arange(layers * rows * columns, dtype=np.int64).reshape(layers, rows, columns)
        first = [number[:, :, :-1].ravel(), number[:, :-1].ravel(), number[:-1].ravel(), self.link_from]
        second = [number[:, :, 1:].ravel(), number[:, 1:].ravel(), number[1:].ravel(), self.link_to]
        value = [self.lateral_x.ravel(), self.lateral_y.ravel(), self.vertical.ravel(), self.link]
        return np.concatenate(first), np.concatenate(second), np.concatenate(value)

    def sources_W(self, power_W: Array) -> Array:
        """Right-hand side: power per node plus what the ambient and the coolant bring."""
        return power_W + self.ambient * self.ambient_K + self.inflow_W

    def heat_out_W(self, temperature_K: Array) -> float:
        """Heat that leaves to the ambient and with the coolant, for temperatures of all nodes."""
        leaving = float(np.dot(self.ambient, temperature_K - self.ambient_K))
        if self.symmetric:
            return leaving
        # Column sums of the coolant's coefficients are what it carries away in the end.
        carried = float(np.dot(self.carried, temperature_K[self.carried_column]))
        return leaving + carried - float(self.inflow_W.sum())


@dataclass(frozen=True)
class _Slab:
    """One layer of cells: thickness, conductivities and heat capacity per cell (rows, columns)."""

    thickness_m: float
    kx: Array
    ky: Array
    kz: Array
    heat: Array
    lateral: bool
    source: int
    fluid: NDArray[np.bool_] | None = None


def build_network(stack: Stack, rows: int, columns: int, temperature_K: Array | None = None) -> Network:
    """The network of `stack` on a grid of rows × columns cells per layer slice.

    `temperature_K` (node layers, rows, columns) evaluates the temperature-dependent conductivities cell by cell;
    without it they are taken at the stack's `conductivity_temperature_K`.
    """
    for key, value in (("rows", rows), ("columns", columns)):
        if value < 1:
            fail("a grid needs at least one cell each way", key=key, value=value)
    slabs = _slabs(stack, rows, columns, temperature_K)
    dx, dy = stack.width_m / columns, stack.height_m / rows
    layers = len(slabs)
    lateral_x = np.zeros((layers, rows, columns - 1))
    lateral_y = np.zeros((layers, rows - 1, columns))
    vertical = np.zeros((layers - 1, rows, columns))
    film = _film(stack)
    for index, slab in enumerate(slabs):
        if not slab.lateral:
            continue
        half_x = dx / (2 * slab.kx * dy * slab.thickness_m)
        half_y = dy / (2 * slab.ky * dx * slab.thickness_m)
        if stack.convention == "hotspot-detailed":
            # That mode takes each of the two where the other belongs; it shows on cells that are not square.
            half_x, half_y = half_y, half_x
        lateral_x[index] = _series(half_x, 1, slab.fluid, film / (dy * slab.thickness_m))
        lateral_y[index] = _series(half_y, 0, slab.fluid, film / (dx * slab.thickness_m))
    cell = dx * dy
    through = np.stack([slab.thickness_m / (slab.kz * cell) for slab in slabs])
    top_extra = np.zeros(())
    if isinstance(stack.top, Sink):
        top_extra = np.asarray(stack.top.resistance_K_per_W * stack.top.plate.side_m**2 / cell)
    for index in range(layers - 1):
        below, above = through[index], through[index + 1]
        if stack.convention == "hotspot":
            resistance = below
        elif stack.convention == "hotspot-detailed":
            # In that mode the sink's own resistance includes convection, and the lowest layer counts whole.
            if index + 1 == layers - 1:
                above = above + top_extra
            resistance = (below if index == 0 else below / 2) + above / 2
        else:
            resistance = below / 2 + above / 2
        lower, upper = slabs[index].fluid, slabs[index + 1].fluid
        if lower is not None or upper is not None:
            none = np.zeros((rows, columns), dtype=bool)
            wet_below, wet_above = (none if lower is None else lower), (none if upper is None else upper)
            whole_below = 1.0 if stack.convention == "hotspot-detailed" and index == 0 else 0.5
            solid = np.where(wet_below, above / 2, below * whole_below)
            resistance = np.where(wet_below != wet_above, solid + film / cell, resistance)
        vertical[index] = 1.0 / resistance
    ambient = np.zeros((layers, rows, columns))
    share = 1.0 if stack.convention != "centred" else 0.5
    if isinstance(stack.top, Sink):
        ambient[-1] += 1.0 / (through[-1] * share + top_extra)
    elif isinstance(stack.top, Surface):
        ambient[-1] += 1.0 / (through[-1] * share + 1.0 / (stack.top.heat_transfer_W_per_m2K * cell))
    if isinstance(stack.bottom, Board):
        convection = stack.bottom.resistance_K_per_W * stack.bottom.board.side_m**2 / cell
        ambient[0] += 1.0 / (through[0] * (1.0 - share) + convection)
    elif isinstance(stack.bottom, Surface):
        # A node of the HotSpot conventions lies on the lower face already.
        ambient[0] += 1.0 / (through[0] * (1.0 - share) + 1.0 / (stack.bottom.heat_transfer_W_per_m2K * cell))
    lumped = 1.0 if stack.convention == "centred" else LUMPED_CAPACITY
    capacity = np.stack([slab.heat * slab.thickness_m * cell * lumped for slab in slabs])
    if isinstance(stack.top, Sink):
        capacity[-1] += lumped * stack.top.capacity_J_per_K * cell / stack.top.plate.side_m**2
    if isinstance(stack.bottom, Board):
        capacity[0] += lumped * stack.bottom.capacity_J_per_K * cell / stack.bottom.board.side_m**2
    package = PackageNodes(stack, layers, layers * rows * columns, _GridEdges(stack, rows, columns), lumped)
    network = Network(
        lateral_x=lateral_x,
        lateral_y=lateral_y,
        vertical=vertical,
        ambient=np.concatenate([ambient.ravel(), package.ambient]),
        capacity=np.concatenate([capacity.ravel(), package.capacity]),
        link_from=np.asarray(package.link_from, dtype=np.int64),
        link_to=np.asarray(package.link_to, dtype=np.int64),
        link=np.asarray(package.link, dtype=float),
        node_layer=np.asarray(package.node_layer, dtype=np.int64),
        node_names=tuple(package.names),
        ambient_K=stack.ambient_K,
        source_layer=tuple(slab.source for slab in slabs),
        carried_row=np.zeros(0, dtype=np.int64),
        carried_column=np.zeros(0, dtype=np.int64),
        carried=np.zeros(0),
        inflow_W=np.zeros(layers * rows * columns + len(package.names)),
    )
    if any(layer.channels for layer in stack.layers):
        from tierform.thermal.channels import with_coolant

        network = with_coolant(network, stack, rows, columns)
    return network


class _GridEdges:
    """The cells along the four edges of a layer, for the package nodes."""

    def __init__(self, stack: Stack, rows: int, columns: int) -> None:
        self._rows, self._columns = rows, columns
        self._steps = (stack.width_m / columns, stack.height_m / rows)

    def __call__(self, layer: int, side: int, conductivity: float, thickness_m: float) -> EdgeHalves:
        number = np.arange(self._rows * self._columns).reshape(self._rows, self._columns)
        number = number + layer * self._rows * self._columns
        cells = (number[:, 0], number[:, -1], number[-1, :], number[0, :])[side]
        dx, dy = self._steps
        step, face = (dx, dy) if side < 2 else (dy, dx)
        half = step / (2 * conductivity * face * thickness_m)
        return [(int(cell), half) for cell in cells]


def overlap(regions: tuple[Region, ...], stack: Stack, rows: int, columns: int) -> tuple[Array, Array]:
    """Shares of grid rows (n, rows) and columns (n, columns) that each region covers, between 0 and 1."""
    return (
        _shares(np.array([(r.y_m, r.height_m) for r in regions]).reshape(-1, 2), stack.height_m, rows),
        _shares(np.array([(r.x_m, r.width_m) for r in regions]).reshape(-1, 2), stack.width_m, columns),
    )


def _shares(spans: Array, length_m: float, cells: int) -> Array:
    step = length_m / cells
    edges = np.arange(cells) * step
    start, end = spans[:, :1], spans[:, :1] + spans[:, 1:]
    shares = (np.minimum(end, edges + step) - np.maximum(start, edges)) / step
    # Coordinates in files are rounded: a sliver is no cover, and a cell but for a sliver is covered.
    shares = np.where(shares < 1e-6, 0.0, np.where(shares > 1 - 1e-6, 1.0, shares))
    return np.asarray(shares)


def _film(stack: Stack) -> float:
    wet = [layer.channels for layer in stack.layers if layer.channels]
    return 1.0 / wet[0].heat_transfer_W_per_m2K if wet else 0.0


def _series(half: Array, axis: int, fluid: NDArray[np.bool_] | None, film: float) -> Array:
    """Conductance between neighbours along `axis` from the half resistances of the cells (rows, columns)."""
    lower = [slice(None), slice(None)]
    upper = [slice(None), slice(None)]
    lower[axis], upper[axis] = slice(None, -1), slice(1, None)
    low, high = tuple(lower), tuple(upper)
    resistance = half[low] + half[high]
    if fluid is not None:
        solid = np.where(fluid[low], half[high], half[low])
        resistance = np.where(fluid[low] != fluid[high], solid + film, resistance)
    return np.asarray(1.0 / resistance)


def _slabs(stack: Stack, rows: int, columns: int, temperature_K: Array | None) -> list[_Slab]:
    slabs: list[_Slab] = []
    if isinstance(stack.bottom, Board):
        slabs += [
            _plate(stack, plate, rows, columns, temperature_K, index)
            for index, plate in enumerate((stack.bottom.board, stack.bottom.solder, stack.bottom.substrate))
        ]
    for number, layer in enumerate(stack.layers):
        whole = _fill(stack, layer, rows, columns)
        for _ in range(layer.slices):
            slab = replace(whole, thickness_m=layer.thickness_m / layer.slices, source=number)
            slabs.append(
                slab if temperature_K is None else _warm(stack, layer, slab, temperature_K[len(slabs)], rows, columns)
            )
    if isinstance(stack.top, Sink):
        for plate in (stack.top.spreader, stack.top.plate):
            slabs.append(_plate(stack, plate, rows, columns, temperature_K, len(slabs)))
    return slabs


def _plate(stack: Stack, plate: Plate, rows: int, columns: int, temperature_K: Array | None, index: int) -> _Slab:
    layer = StackLayer("plate", plate.thickness_m, plate.material)
    slab = _fill(stack, layer, rows, columns)
    return slab if temperature_K is None else _warm(stack, layer, slab, temperature_K[index], rows, columns)


def _fill(stack: Stack, layer: StackLayer, rows: int, columns: int) -> _Slab:
    base = at_temperature(layer.material, stack.conductivity_temperature_K)
    values = [np.full((rows, columns), value) for value in _numbers(base)]
    other = tuple(region for region in layer.regions if region.material not in (None, layer.material))
    if other:
        by_row, by_column = overlap(other, stack, rows, columns)
        locking = stack.convention == "hotspot-detailed"
        for region, high, wide in zip(other, by_row, by_column, strict=True):
            assert region.material is not None
            share = np.outer(high, wide)
            if locking:
                share = np.where(share >= _LOCKED, 1.0, share)
            own = _numbers(at_temperature(region.material, stack.conductivity_temperature_K))
            # HotSpot keeps the layer's heat capacity in cells that no block fills.
            shares = [share, share, share, np.where(share >= _LOCKED, 1.0, 0.0) if locking else share]
            for value, inside, outside, part in zip(values, own, _numbers(base), shares, strict=True):
                value += part * (inside - outside)
        if locking:
            _lock_to_base(stack, layer, values, base, rows, columns)
    fluid = None
    if layer.channels is not None:
        fluid = _wet(layer, rows, columns)
        coolant = layer.channels.coolant
        for value, wet in zip(values, _numbers(coolant), strict=True):
            value[fluid] = wet
    lateral = layer.lateral or stack.convention == "hotspot-detailed"
    kx, ky, kz, heat = values
    return _Slab(thickness_m=layer.thickness_m, kx=kx, ky=ky, kz=kz, heat=heat, lateral=lateral, source=-1, fluid=fluid)


def _lock_to_base(
    stack: Stack, layer: StackLayer, values: list[Array], base: Material, rows: int, columns: int
) -> None:
    plain = tuple(region for region in layer.regions if region.material in (None, layer.material))
    if not plain:
        return
    by_row, by_column = overlap(plain, stack, rows, columns)
    for high, wide in zip(by_row, by_column, strict=True):
        locked = np.outer(high, wide) >= _LOCKED
        for value, own in zip(values, _numbers(base), strict=True):
            value[locked] = own


def _wet(layer: StackLayer, rows: int, columns: int) -> NDArray[np.bool_]:
    assert layer.channels is not None
    cells = layer.channels.cells
    if (len(cells), len(cells[0])) != (rows, columns):
        fail(
            f"the channel pattern has {len(cells)} rows of {len(cells[0])}, the grid {rows} of {columns}",
            key=f"{layer.name}.channels.cells",
            fix="Use a grid of the pattern's size.",
        )
    return np.array([[digit != "0" for digit in row] for row in cells])


def _numbers(material: Material) -> tuple[float, float, float, float]:
    return (
        material.conductivity_x_W_per_mK,
        material.conductivity_y_W_per_mK,
        material.conductivity_z_W_per_mK,
        material.heat_capacity_J_per_m3K,
    )


def _warm(stack: Stack, layer: StackLayer, slab: _Slab, temperature_K: Array, rows: int, columns: int) -> _Slab:
    """Scale conductivities from the linear temperature to each cell's own; regions weigh in by their share."""
    ratio = temperature_K / stack.conductivity_temperature_K
    factor = ratio**layer.material.conductivity_exponent
    other = tuple(region for region in layer.regions if region.material not in (None, layer.material))
    if other:
        by_row, by_column = overlap(other, stack, rows, columns)
        for region, high, wide in zip(other, by_row, by_column, strict=True):
            assert region.material is not None
            own = ratio**region.material.conductivity_exponent
            factor = factor + np.outer(high, wide) * (own - ratio**layer.material.conductivity_exponent)
    if slab.fluid is not None:
        factor = np.where(slab.fluid, 1.0, factor)
    return replace(slab, kx=slab.kx * factor, ky=slab.ky * factor, kz=slab.kz * factor)
