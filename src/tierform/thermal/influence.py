"""The influence model: tile temperatures as a linear map of tile powers, and the fixed point with leakage on top.

T = T_0 + A·P, where column j of A is the temperature rise of every tile for one watt in tile j.  A is not fitted: it is
the grid model's own answer, solved once per stack, so the map is exact for that grid.  A batch of power maps is one
matrix product.

Leakage grows with temperature, and temperature with leakage.  The fixed point T = T_0 + A·(P + L(T)) is found by
Newton steps from below.  With L convex and rising in T (as subthreshold leakage is) the steps rise monotonically to the
smallest solution and never pass it, so a loop gain, the spectral radius of A·dL/dT, of one or more at any iterate
proves that there is no solution: thermal runaway (Ortega and Rheinboldt's monotone Newton theorem).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tierform import __version__, files
from tierform.errors import TierformError, fail
from tierform.thermal.grid import GridModel, Powers, tile_powers
from tierform.thermal.network import Array
from tierform.thermal.solvers import SolverName
from tierform.thermal.stack import HeatSource, Stack
from tierform.thermal.threads import one_thread

# Counts up whenever a model change alters the matrices, so that kept ones are not taken for new.
_CACHE_FORMAT = "tierform.influence/1"
_COARSE, _FINE = 12, 48


@dataclass(frozen=True)
class FixedPoint:
    """Where temperature and leakage agree, or how they ran away.

    `loop_gain` is the spectral radius of A·dL/dT at the last iterate: below 1 small disturbances die out.
    """

    temperatures_K: Array
    leakage_W: Array
    iterations: int
    loop_gain: float
    runaway: bool

    @property
    def peak_K(self) -> float:
        """The hottest tile."""
        return float(self.temperatures_K.max())


def default_grid(stack: Stack) -> tuple[int, int]:
    """Rows and columns of a coarse grid whose cells divide the smallest regular tiles of `stack`."""
    wet = [layer.channels for layer in stack.layers if layer.channels]
    if wet:
        return len(wet[0].cells), len(wet[0].cells[0])
    tiles = [tile.region for tile in stack.tiles]

    def along(length_m: float, sizes: list[float]) -> int:
        across = max(1, round(length_m / min(sizes))) if sizes else 1
        return min(_FINE, across * max(1, -(-_COARSE // across)))

    return along(stack.height_m, [r.height_m for r in tiles]), along(stack.width_m, [r.width_m for r in tiles])


class InfluenceModel:
    """Built once per stack; see the module's text.

    `tiles` gives the order of every power and temperature vector, `matrix_K_per_W` is A (n, n), `base_K` is T_0 (n,).
    """

    def __init__(
        self,
        stack: Stack,
        rows: int | None = None,
        columns: int | None = None,
        *,
        solver: SolverName = "auto",
        cache: bool = True,
    ) -> None:
        coarse = default_grid(stack)
        self.stack = stack
        self.rows, self.columns = rows or coarse[0], columns or coarse[1]
        self.tiles: tuple[HeatSource, ...] = stack.tiles
        if not self.tiles:
            fail("the stack has no powered layer, so there is no tile to map", key="stack.layers")
        file = cache_folder() if cache else None
        path = file / f"{self._key()}.npy" if file else None
        both = _read(path, len(self.tiles))
        if both is None:
            with one_thread():
                matrix, base = GridModel(stack, self.rows, self.columns, solver=solver).influence()
            both = np.concatenate([matrix, base[:, None]], axis=1)
            _write(path, both)
        self.matrix_K_per_W: Array = both[:, :-1]
        self.base_K: Array = both[:, -1]

    def _key(self) -> str:
        text = f"{_CACHE_FORMAT}|{__version__}|{self.rows}x{self.columns}|{self.stack!r}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def powers(self, power_W: Powers) -> Array:
        """A mapping by tile name as a vector; TierformError names unknown tiles."""
        return tile_powers(self.stack, power_W)

    def temperatures_K(self, powers_W: Array) -> Array:
        """Tile temperatures for powers of shape (n,) or a batch (k, n); same shape out."""
        powers = np.asarray(powers_W, dtype=float)
        if powers.shape[-1:] != (len(self.tiles),):
            fail(f"one power per tile is needed ({len(self.tiles)})", key="powers_W", value=powers.shape)
        return np.asarray(powers @ self.matrix_K_per_W.T + self.base_K)

    def peaks_K(self, powers_W: Array) -> Array:
        """The hottest tile's temperature of each map of a batch (k, n)."""
        return np.asarray(self.temperatures_K(powers_W).max(axis=-1))

    def fixed_point(
        self,
        dynamic_power_W: Array,
        leakage_W: Callable[[Array], Array],
        *,
        tolerance_K: float = 1e-3,
        limit_K: float = 1000.0,
        max_iterations: int = 50,
    ) -> FixedPoint:
        """The temperatures at which leakage, given them, makes them; tile i's leakage depends on tile i alone.

        `leakage_W` maps temperatures (n,) to leakage (n,) and should rise with temperature.  Runaway is reported when
        the loop gain reaches 1 below the solution, or when a tile passes `limit_K`.
        """
        if not tolerance_K > 0:
            fail("must be positive", key="tolerance_K", value=tolerance_K)
        dynamic = np.asarray(dynamic_power_W, dtype=float)
        with one_thread():
            return self._newton(dynamic, leakage_W, tolerance_K, limit_K, max_iterations)

    def _newton(
        self,
        dynamic: Array,
        leakage_W: Callable[[Array], Array],
        tolerance_K: float,
        limit_K: float,
        max_iterations: int,
    ) -> FixedPoint:
        a = self.matrix_K_per_W
        temperature = self.temperatures_K(dynamic)
        gain = 0.0
        leak = np.asarray(leakage_W(temperature), dtype=float)
        for iteration in range(1, max_iterations + 1):
            residual = self.temperatures_K(dynamic + leak) - temperature
            rise = 0.01
            slope = np.maximum((np.asarray(leakage_W(temperature + rise), dtype=float) - leak) / rise, 0.0)
            loop = a * slope[None, :]
            gain = _spectral_radius(loop)
            if not np.isfinite(residual).all() or gain >= 1.0 or float(temperature.max()) > limit_K:
                return FixedPoint(temperature, leak, iteration, gain, True)
            step = np.linalg.solve(np.eye(len(dynamic)) - loop, residual)
            temperature = temperature + step
            leak = np.asarray(leakage_W(temperature), dtype=float)
            if float(np.abs(step).max()) <= tolerance_K and np.isfinite(leak).all():
                hot = bool(temperature.max() > limit_K)
                return FixedPoint(temperature, leak, iteration, gain, hot)
        return FixedPoint(temperature, leak, max_iterations, gain, True)


def _spectral_radius(matrix: Array) -> float:
    """Largest eigenvalue of a matrix without negative entries, by power iteration to a relative 1e-6."""
    vector = np.ones(matrix.shape[0])
    value = 0.0
    for _ in range(200):
        image = matrix @ vector
        before, value = value, float(image.max())
        if value == 0.0 or not np.isfinite(value):
            return value
        vector = image / value
        if abs(value - before) <= 1e-6 * value:
            break
    return value


def cache_folder() -> Path | None:
    """Where influence matrices are kept: the user's cache folder, or TIERFORM_CACHE; None when that is ``off``."""
    return files.cache_folder("thermal")


def _read(path: Path | None, tiles: int) -> Array | None:
    if path is None:
        return None
    try:
        both = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    good = both.shape == (tiles, tiles + 1) and both.dtype == np.float64 and bool(np.isfinite(both).all())
    return np.asarray(both) if good else None


def _write(path: Path | None, both: Array) -> None:
    if path is None:
        return
    from tierform.files import atomic_path, make_folder

    # A cache that cannot be written costs time, not the result.
    try:
        make_folder(path.parent, parents=True)
        with atomic_path(path) as temporary, temporary.open("wb") as out:
            np.save(out, both, allow_pickle=False)
    except (OSError, TierformError):
        return
