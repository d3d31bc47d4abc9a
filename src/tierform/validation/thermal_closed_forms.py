"""Cases of heat conduction with closed forms, computed by the thermal models at several refinements.

Each function gives what the model finds and what the formula says; nothing here is fitted.  Formulas: H. S. Carslaw and
J. C. Jaeger, Conduction of Heat in Solids, 2nd edition, 1959 (slab with heat production, sources and images, composite
slab).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tierform.thermal.grid import GridModel
from tierform.thermal.materials import Material
from tierform.thermal.stack import Region, Stack, StackLayer, Surface

FIXED = Surface(math.inf)
_SILICON = Material.isotropic("silicon", 130.0, 1.63e6)
_PASTE = Material.isotropic("interface", 4.0, 4.0e6)


@dataclass(frozen=True)
class Refined:
    """A quantity at growing refinement: cells along the refined direction, the model's values, the closed form."""

    cells: tuple[int, ...]
    ours: tuple[float, ...]
    exact: tuple[float, ...]

    @property
    def errors(self) -> tuple[float, ...]:
        """Relative errors."""
        return tuple(abs(a - b) / abs(b) for a, b in zip(self.ours, self.exact, strict=True))

    @property
    def order(self) -> float:
        """Order of convergence between the two finest refinements."""
        fine, coarse = self.errors[-1], self.errors[-2]
        return math.log(coarse / fine) / math.log(self.cells[-1] / self.cells[-2])


def slab_with_heat_production(refinements: tuple[int, ...] = (8, 16, 32, 64)) -> Refined:
    """Mean rise of a slab that dissipates evenly, one face cold, the other insulated: q·L²/(3·k)."""
    thick, power, side = 2e-3, 50.0, 5e-3
    ours = []
    for slices in refinements:
        floor = (Region("all", 0, 0, side, side),)
        layer = StackLayer("slab", thick, _SILICON, floor, powered=True, slices=slices)
        field = GridModel(Stack(side, side, (layer,), FIXED, ambient_K=300.0), 2, 2).steady([power])
        ours.append(float(field.tiles_K()[0]) - 300.0)
    exact = power / (side * side * thick) * thick**2 / (3 * 130.0)
    return Refined(refinements, tuple(ours), (exact,) * len(ours))


def layered_slab() -> tuple[float, float]:
    """Rise of a thin heater under two layers and a cooled face: P·(Σ t/k + 1/h)/A; (ours, exact)."""
    side, power, h = 8e-3, 30.0, 2e4
    floor = (Region("all", 0, 0, side, side),)
    layers = (
        StackLayer("heater", 1e-9, _SILICON, floor, powered=True),
        StackLayer("silicon", 3e-4, _SILICON),
        StackLayer("paste", 5e-5, _PASTE),
    )
    field = GridModel(Stack(side, side, layers, Surface(h), ambient_K=300.0), 16, 16).steady([power])
    exact = power / side**2 * (0.5e-9 / 130.0 + 3e-4 / 130.0 + 5e-5 / 4.0 + 1 / h)
    return float(field.tiles_K()[0]) - 300.0, exact


def point_source(refinements: tuple[int, ...] = (80, 160, 320)) -> Refined:
    """Rise at the insulated face of an infinite slab of thickness H, at distance H from a point source on that face.

    Images of the source in the cold face and the insulated one: ΔT = Q/(2·pi·k)·Σ (-1)^n / sqrt(r² + (2nH)²).  The
    grid's slab is 10 H wide with insulated walls, which matter by less than 1e-5 there.
    """
    high, power, k = 1e-3, 2.0, 130.0
    side = 10 * high
    ours, exact = [], []
    for cells in refinements:
        # Cell centres straddle the middle, so the source is spread over the four cells around it.
        slices = cells // 10
        layer = StackLayer("slab", high, _SILICON, slices=slices)
        model = GridModel(Stack(side, side, (layer,), FIXED, ambient_K=0.001), cells, cells, solver="spectral")
        heat = np.zeros(model.network.shape)
        middle = cells // 2
        heat[0, middle - 1 : middle + 1, middle - 1 : middle + 1] = power / 4
        field = model.steady(cell_power_W=heat)
        away = cells // 10
        pair = field.cells_K[0, middle - 1 : middle + 1, middle + away - 1 : middle + away + 1]
        ours.append(float(pair.mean()) - 0.001)
        exact.append(_images(high, power, k, high))
    return Refined(refinements, tuple(ours), tuple(exact))


def _images(r: float, power: float, k: float, high: float, terms: int = 4000) -> float:
    n = np.arange(-terms, terms + 1)
    signs = np.where(n % 2 == 0, 1.0, -1.0)
    values = signs / np.sqrt(r**2 + (2 * n * high) ** 2)
    # The alternating tail is halved at its ends, which leaves an error of the order of its curvature.
    values[0] /= 2
    values[-1] /= 2
    return float(power / (2 * math.pi * k) * values.sum())


def two_layer_transient(refinements: tuple[int, ...] = (16, 32, 64)) -> Refined:
    """Mean rise of a silicon layer that begins to dissipate, under interface material with a cold face, at 2 ms.

    The composite slab's eigenfunctions: cos(p·z) below, sin(q·(L - z)) above, with p²·α₁ = q²·α₂ = λ, joined by equal
    temperature and flux; the rise is the steady state less the sum of the decaying modes.
    """
    below, above, side, power, time_s = 5e-4, 5e-4, 4e-3, 10.0, 2e-3
    ours = []
    for slices in refinements:
        floor = (Region("all", 0, 0, side, side),)
        layers = (
            StackLayer("silicon", below, _SILICON, floor, powered=True, slices=slices),
            StackLayer("paste", above, _PASTE, slices=slices),
        )
        model = GridModel(Stack(side, side, layers, FIXED, ambient_K=300.0), 1, 1, solver="direct")
        after = model.transient([[power]] * 10, time_s / 10, steps_per_interval=slices)
        ours.append(float(after.tiles_K[-1, 0]) - 300.0)
    exact = composite_rise(below, above, power / (side * side * below), time_s)
    return Refined(refinements, tuple(ours), (exact,) * len(ours))


def composite_rise(below_m: float, above_m: float, heat_W_per_m3: float, time_s: float, modes: int = 60) -> float:
    """Mean rise of the lower layer after `time_s` of even heat production in it, from the eigenfunctions."""
    k1, c1, k2, c2 = 130.0, 1.63e6, 4.0, 4.0e6
    steady = heat_W_per_m3 * (below_m**2 / (3 * k1) + below_m * above_m / k2)
    total = 0.0
    for rate in _rates(below_m, above_m, k1, c1, k2, c2, modes):
        p, q = math.sqrt(rate * c1 / k1), math.sqrt(rate * c2 / k2)
        # X = cos(p z) below; X = B sin(q (L - z)) above, continuous at the joint.
        b = math.cos(p * below_m) / math.sin(q * above_m)
        norm = c1 * (below_m / 2 + math.sin(2 * p * below_m) / (4 * p))
        norm += c2 * b**2 * (above_m / 2 - math.sin(2 * q * above_m) / (4 * q))
        source = heat_W_per_m3 * math.sin(p * below_m) / p
        mean = math.sin(p * below_m) / (p * below_m)
        total += source / (norm * rate) * mean * math.exp(-rate * time_s)
    return steady - total


def _rates(below_m: float, above_m: float, k1: float, c1: float, k2: float, c2: float, count: int) -> list[float]:
    """Decay rates: the roots of k1·p·sin(p a)·sin(q b) = k2·q·cos(p a)·cos(q b), by bisection in sqrt(rate)."""

    def joint(root: NDArray[np.float64] | float) -> NDArray[np.float64]:
        p, q = root * math.sqrt(c1 / k1), root * math.sqrt(c2 / k2)
        return np.asarray(
            k1 * p * np.sin(p * below_m) * np.sin(q * above_m) - k2 * q * np.cos(p * below_m) * np.cos(q * above_m)
        )

    spacing = math.pi / (below_m * math.sqrt(c1 / k1) + above_m * math.sqrt(c2 / k2))
    grid = np.linspace(1e-6 * spacing, (count + 1) * spacing, 200 * (count + 1))
    values = joint(grid)
    roots = []
    for index in np.flatnonzero(values[:-1] * values[1:] < 0)[:count].tolist():
        low, high = float(grid[index]), float(grid[index + 1])
        for _ in range(80):
            middle = (low + high) / 2
            if float(joint(low)) * float(joint(middle)) <= 0:
                high = middle
            else:
                low = middle
        roots.append(((low + high) / 2) ** 2)
    return roots
