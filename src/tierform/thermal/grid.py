"""The grid model: temperatures of every cell of a stack, steady and over time.

Finite volumes of any number of rows and columns (``network.py``); the system is factored at the first solve and kept
for all further power maps.  Steady: G·T = P + g_amb·T_amb.  Over time: C·dT/dt = P - G·T by TR-BDF2 (trapezoidal rule,
then second-order backward difference; second order and damping, R. E. Bank et al. 1985), whose two halves share one
factorization.  Conductivities that depend on temperature are found by repeated substitution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from tierform.errors import Problem, TierformError, fail, nearest
from tierform.thermal.network import Array, Network, build_network, overlap
from tierform.thermal.solvers import Solver, SolverName, make_solver
from tierform.thermal.stack import Board, Region, Sink, Stack
from tierform.thermal.threads import one_thread

Powers = Mapping[str, float] | Sequence[float] | Array
Reduction = Literal["mean", "max", "min", "center", "touched"]


def tile_powers(stack: Stack, power_W: Powers) -> Array:
    """Powers as one number per tile of `stack.tiles`; TierformError names every block that the stack lacks.

    A mapping may name tiles by region or by ``layer/region`` and leaves the others at 0; a sequence has one number
    per tile.
    """
    tiles = stack.tiles
    if not isinstance(power_W, Mapping):
        vector = np.asarray(power_W, dtype=float)
        if vector.shape != (len(tiles),):
            fail(f"one power per tile is needed ({len(tiles)})", key="power_W", value=vector.shape)
    else:
        index = stack.tile_index()
        unknown = [name for name in power_W if name not in index]
        if unknown:
            raise TierformError(
                Problem("power for a block that the stack does not have", None, None, None, name, nearest(name, index))
                for name in unknown
            )
        vector = np.zeros(len(tiles))
        for name, value in power_W.items():
            vector[index[name]] += value
    if not np.isfinite(vector).all():
        fail("a power is not finite", key="power_W", value=tiles[int(np.flatnonzero(~np.isfinite(vector))[0])].key)
    return vector


@dataclass(frozen=True)
class TemperatureField:
    """Temperatures of all nodes of a grid model; cells as (node layers, rows, columns), rows from the south."""

    model: GridModel
    nodes_K: Array

    @property
    def cells_K(self) -> Array:
        """Temperatures of the cells."""
        layers, rows, columns = self.model.network.shape
        return self.nodes_K[: layers * rows * columns].reshape(layers, rows, columns)

    @property
    def package_K(self) -> dict[str, float]:
        """Temperatures of the peripheral package nodes by name."""
        count = len(self.model.network.node_names)
        tail = self.nodes_K[self.nodes_K.size - count :]
        return dict(zip(self.model.network.node_names, tail.tolist(), strict=True))

    @property
    def peak_K(self) -> float:
        """The hottest cell."""
        return float(self.cells_K.max())

    @property
    def heat_out_W(self) -> float:
        """Heat that leaves the stack."""
        return self.model.network.heat_out_W(self.nodes_K)

    def layer_K(self, name: str) -> Array:
        """Temperatures (rows, columns) of a layer (the mean over its slices)."""
        return np.asarray(self.cells_K[self.model.node_layers(name)].mean(axis=0))

    def tiles_K(self, reduction: Reduction = "mean") -> Array:
        """One temperature per tile of the stack."""
        return np.concatenate(
            [self.regions_K(layer.name, layer.regions, reduction) for layer in self.model.stack.layers if layer.powered]
            or [np.zeros(0)]
        )

    def regions_K(self, layer: str, regions: tuple[Region, ...], reduction: Reduction = "mean") -> Array:
        """Temperatures of rectangles of a layer: area mean, extreme, centre, or mean of all cells touched."""
        return reduce_regions(self.model.stack, self.layer_K(layer), regions, reduction)


def reduce_regions(stack: Stack, map_K: Array, regions: tuple[Region, ...], reduction: Reduction) -> Array:
    """One temperature per region from a map (rows, columns)."""
    rows, columns = map_K.shape
    high, wide = overlap(regions, stack, rows, columns)
    if reduction == "mean":
        weighted = ((high @ map_K) * wide).sum(axis=1)
        return np.asarray(weighted / (high.sum(axis=1) * wide.sum(axis=1)))
    result = np.empty(len(regions))
    for number in range(len(regions)):
        i, j = np.flatnonzero(high[number]), np.flatnonzero(wide[number])
        inside = map_K[i[0] : i[-1] + 1, j[0] : j[-1] + 1]
        if reduction == "center":
            r, c = inside.shape
            inside = inside[(r - 1) // 2 : r // 2 + 1, (c - 1) // 2 : c // 2 + 1]
        result[number] = {"max": inside.max, "min": inside.min}.get(reduction, inside.mean)()
    return result


@dataclass(frozen=True)
class Transient:
    """Tile temperatures over time: `time_s` (n,), `tiles_K` (n, tiles), and the field at the end."""

    time_s: Array
    tiles_K: Array
    end: TemperatureField


class GridModel:
    """A stack on a grid; see the module's text.  `solver` is one of ``solvers.SOLVERS``."""

    def __init__(
        self, stack: Stack, rows: int, columns: int, *, solver: SolverName = "auto", tolerance: float = 1e-11
    ) -> None:
        self.stack, self.rows, self.columns = stack, rows, columns
        self.tolerance = tolerance
        self.solver_name: SolverName = solver
        self.network: Network = build_network(stack, rows, columns)
        self._regions = [layer.regions for layer in stack.layers if layer.powered]
        self._place = [number for number, layer in enumerate(stack.layers) if layer.powered]
        self._shares = [overlap(regions, stack, rows, columns) for regions in self._regions]
        self._stepper: tuple[float, Solver] | None = None

    @cached_property
    def solver(self) -> Solver:
        """The factored steady system."""
        with one_thread():
            return make_solver(self.network, self.solver_name, tolerance=self.tolerance)

    def node_layers(self, name: str) -> list[int]:
        """Numbers of the cell layers of a layer; ``spreader``, ``sink``, ``substrate``, ``solder``, ``board`` too."""
        names = [layer.name for layer in self.stack.layers]
        last = self.network.shape[0] - 1
        plates: dict[str, int] = {}
        if isinstance(self.stack.top, Sink):
            plates |= {"spreader": last - 1, "sink": last}
        if isinstance(self.stack.bottom, Board):
            plates |= {"board": 0, "solder": 1, "substrate": 2}
        if name in names:
            number = names.index(name)
            return [index for index, source in enumerate(self.network.source_layer) if source == number]
        if name in plates:
            return [plates[name]]
        return fail("the stack has no such layer", value=name, choices=[*names, *plates])

    def power_map(self, power_W: Powers) -> Array:
        """Power of every node (W) for tile powers; what a region dissipates is spread evenly over its area."""
        return self._spread(tile_powers(self.stack, power_W)[:, None])[:, 0]

    def _spread(self, tiles_W: Array) -> Array:
        layers, rows, columns = self.network.shape
        cases = tiles_W.shape[1]
        result = np.zeros((self.network.nodes, cases))
        cells = result[: layers * rows * columns].reshape(layers, rows, columns, cases)
        start = 0
        for place, regions, (high, wide) in zip(self._place, self._regions, self._shares, strict=True):
            stop = start + len(regions)
            area = high.sum(axis=1) * wide.sum(axis=1)
            share = tiles_W[start:stop] / area[:, None]
            slices = self.node_layers(self.stack.layers[place].name)
            density = np.einsum("nr,nc,nk->rck", high, wide, share, optimize=True) / len(slices)
            cells[slices] += density
            start = stop
        return result

    def steady(
        self, power_W: Powers | None = None, *, cell_power_W: Array | None = None, nonlinear: bool = False
    ) -> TemperatureField:
        """Steady temperatures for tile powers and/or powers of the cells (node layers, rows, columns).

        `nonlinear` evaluates temperature-dependent conductivities at each cell's own temperature (within 1 mK).
        """
        power = self._power(power_W, cell_power_W)
        solver = self.solver
        with one_thread():
            nodes = solver.solve(self.network.sources_W(power))
            self._check(power, nodes)
            if nonlinear:
                nodes = self._substitute(power, nodes)
        return TemperatureField(self, nodes)

    def _check(self, power: Array, nodes: Array) -> None:
        """Refuse an answer that does not conserve energy: the system is singular for practical purposes."""
        given = float(power.sum())
        scale = float(np.abs(power).sum()) + float(np.abs(self.network.ambient * (nodes - self.stack.ambient_K)).sum())
        if not np.isfinite(nodes).all() or abs(self.network.heat_out_W(nodes) - given) > 1e-6 * scale:
            fail(
                "heat in and heat out do not agree, because next to nothing leads from the stack to the ambient",
                key="stack.top",
                fix="Look at the convective resistance and at layers that conduct next to nothing.",
            )

    def _power(self, power_W: Powers | None, cell_power_W: Array | None) -> Array:
        power = np.zeros(self.network.nodes) if power_W is None else self.power_map(power_W)
        if cell_power_W is not None:
            cells = np.asarray(cell_power_W, dtype=float)
            if cells.shape != self.network.shape:
                fail(f"cell powers of shape {self.network.shape} are needed", key="cell_power_W", value=cells.shape)
            power[: cells.size] += cells.ravel()
        return power

    def _substitute(self, power: Array, nodes: Array) -> Array:
        layers, rows, columns = self.network.shape
        for _ in range(50):
            cells = nodes[: layers * rows * columns].reshape(layers, rows, columns)
            network = build_network(self.stack, rows, columns, cells)
            after = make_solver(network, self.solver_name, tolerance=self.tolerance).solve(network.sources_W(power))
            change = float(np.abs(after - nodes).max())
            nodes = after
            if not math.isfinite(change):
                break
            if change < 1e-3:
                return np.asarray(nodes)
        return fail(
            "conductivities that depend on temperature do not settle",
            fix="The power is beyond what this stack can carry away; cool it better or lower the power.",
        )

    def influence(self) -> tuple[Array, Array]:
        """Exact linear map of tile powers to tile temperatures: (matrix K/W (n, n), temperatures at no power (n,)).

        The matrix's row is the tile whose temperature it is.
        """
        count = len(self.stack.tiles)
        if self.solver_name == "auto":
            from tierform.thermal.modal import is_uniform, modal_influence

            if is_uniform(self.network):
                layers_of = [self.node_layers(self.stack.layers[place].name) for place in self._place]
                parts = [(own, high, wide) for own, (high, wide) in zip(layers_of, self._shares, strict=True)]
                return modal_influence(self.network, parts), np.full(count, self.stack.ambient_K)
        sides = np.concatenate(
            [self._spread(np.eye(count)), self.network.sources_W(np.zeros(self.network.nodes))[:, None]], 1
        )
        answer = self.solver.solve(sides)
        result = np.empty((count, count + 1))
        layers, rows, columns = self.network.shape
        cells = answer[: layers * rows * columns].reshape(layers, rows, columns, count + 1)
        start = 0
        for place, regions, (high, wide) in zip(self._place, self._regions, self._shares, strict=True):
            stop = start + len(regions)
            area = high.sum(axis=1) * wide.sum(axis=1)
            mean = cells[self.node_layers(self.stack.layers[place].name)].mean(axis=0)
            by_row = np.tensordot(high, mean, axes=(1, 0))
            result[start:stop] = np.einsum("nck,nc->nk", by_row, wide) / area[:, None]
            start = stop
        return result[:, :count], result[:, count]

    def transient(
        self,
        powers_W: Iterable[Powers],
        interval_s: float,
        *,
        start: TemperatureField | float | None = None,
        steps_per_interval: int = 4,
        reduction: Reduction = "mean",
    ) -> Transient:
        """Temperatures at the end of each interval of `interval_s`, over which the power is constant.

        `start` is a field of this model, one temperature for all, or None for the ambient.
        """
        rows = []
        end = self._start(start)
        with one_thread():
            for end in self.march(powers_W, interval_s, start=end, steps_per_interval=steps_per_interval):  # noqa: B020
                rows.append(end.tiles_K(reduction))
        times = np.asarray(interval_s * np.arange(1, len(rows) + 1), dtype=np.float64)
        return Transient(times, np.array(rows).reshape(len(rows), len(self.stack.tiles)), end)

    def _start(self, start: TemperatureField | float | None) -> TemperatureField:
        if isinstance(start, TemperatureField):
            return start
        value = self.stack.ambient_K if start is None else float(start)
        return TemperatureField(self, np.full(self.network.nodes, value))

    def march(
        self,
        powers_W: Iterable[Powers],
        interval_s: float,
        *,
        start: TemperatureField | float | None = None,
        steps_per_interval: int = 4,
    ) -> Iterator[TemperatureField]:
        """As :meth:`transient`, yielding the whole field after each interval."""
        if not (interval_s > 0 and math.isfinite(interval_s)) or steps_per_interval < 1:
            fail("the interval must be positive and have at least one step", key="interval_s", value=interval_s)
        step = interval_s / steps_per_interval
        gamma = 2 - math.sqrt(2)
        shift = 2 / (gamma * step)
        if self._stepper is None or self._stepper[0] != shift:
            self._stepper = (
                shift,
                make_solver(self.network, self.solver_name, shift_per_s=shift, tolerance=self.tolerance),
            )
        solver, network = self._stepper[1], self.network
        nodes = self._start(start).nodes_K
        heat = shift * network.capacity
        # The second stage is a backward difference over the two known points; its weights let both share one matrix.
        old, mid = (1 - gamma) ** 2 / (gamma * (2 - gamma)), 1 / (gamma * (2 - gamma))
        scale = (1 - gamma) / (2 - gamma) * step
        for powers in powers_W:
            sources = network.sources_W(self.power_map(powers))
            for _ in range(steps_per_interval):
                middle = solver.solve(heat * nodes + 2 * sources - self._conduct(nodes))
                nodes = solver.solve(network.capacity * (mid * middle - old * nodes) / scale + sources)
            yield TemperatureField(self, nodes)

    @cached_property
    def _diagonal(self) -> Array:
        return self.network.diagonal()

    def _conduct(self, nodes: Array) -> Array:
        """G·T without scipy."""
        network = self.network
        layers, rows, columns = network.shape
        result = self._diagonal * nodes
        t = nodes[: layers * rows * columns].reshape(layers, rows, columns)
        out = result[: layers * rows * columns].reshape(layers, rows, columns)
        out[:, :, :-1] -= network.lateral_x * t[:, :, 1:]
        out[:, :, 1:] -= network.lateral_x * t[:, :, :-1]
        out[:, :-1] -= network.lateral_y * t[:, 1:]
        out[:, 1:] -= network.lateral_y * t[:, :-1]
        out[:-1] -= network.vertical * t[1:]
        out[1:] -= network.vertical * t[:-1]
        np.subtract.at(result, network.link_from, network.link * nodes[network.link_to])
        np.subtract.at(result, network.link_to, network.link * nodes[network.link_from])
        off = network.carried_row != network.carried_column
        np.add.at(result, network.carried_row[off], network.carried[off] * nodes[network.carried_column[off]])
        return np.asarray(result)
