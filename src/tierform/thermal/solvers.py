"""Solving the network's linear system: factor once, then any number of power maps.

Four solvers for (G + shift·C)·T = q, chosen by size and kind:

- ``blocks``: exact elimination of one cell layer after another with dense blocks; needs numpy alone, for coarse grids.
- ``direct``: sparse LU (SuperLU through scipy), any matrix, up to some ten thousand unknowns.
- ``spectral``: cosine transforms (``spectral.py``), exact for layers of one material each; the preconditioner of
  conjugate gradients where floorplans mix materials.
- ``multigrid``: conjugate gradients with algebraic multigrid (pyamg), for large and strongly mixed stacks.

Each has ``solve(right_hand_sides)`` for vectors of shape (nodes,) or (nodes, k).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from tierform.errors import MissingDependency, fail
from tierform.thermal.network import Array, Network

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

SolverName = Literal["auto", "blocks", "direct", "spectral", "multigrid"]
SOLVERS: tuple[SolverName, ...] = ("auto", "blocks", "direct", "spectral", "multigrid")
# Measured with benchmarks/thermal.py: below, dense blocks of numpy beat the import of scipy's solvers.
_BLOCK_CELLS = 400
# Up to here a sparse factorization takes about a second, and then answers in milliseconds whatever the materials.
_DIRECT_NODES = 30_000
MULTIGRID_NODES = 50_000
# Ratios of conductances within one layer: alike enough for an answer in a few steps; too unlike for the iteration.
_ALIKE, _UNEVEN = 3.0, 30.0


class Solver(Protocol):
    """A factored system."""

    name: str

    def solve(self, right_hand_side: Array) -> Array:
        """Temperatures for right-hand sides of shape (nodes,) or (nodes, k)."""


def make_solver(
    network: Network, name: SolverName = "auto", *, shift_per_s: float = 0.0, tolerance: float = 1e-11
) -> Solver:
    """Factor G + shift·C with the named solver, or the one that suits the size; `tolerance` is for iterative ones."""
    if name not in SOLVERS:
        fail("unknown solver", value=name, choices=SOLVERS, fix=f"Choose one of {', '.join(SOLVERS)}.")
    if name == "auto":
        name = choose(network)
    if name == "blocks":
        return BlockSolver(network, shift_per_s)
    if name == "direct":
        return DirectSolver(network, shift_per_s)
    if not network.symmetric:
        fail("conjugate gradients need a symmetric system; moving coolant makes it unsymmetric", value=name)
    if name == "spectral":
        from tierform.thermal.spectral import SpectralSolver

        return SpectralSolver(network, shift_per_s, tolerance)
    return MultigridSolver(network, shift_per_s, tolerance)


def choose(network: Network) -> SolverName:
    """The solver for this network: small ones exactly, large ones by iteration."""
    _, rows, columns = network.shape
    if rows * columns <= _BLOCK_CELLS:
        return "blocks"
    uneven = unevenness(network)
    if not network.symmetric or (network.nodes <= _DIRECT_NODES and uneven > _ALIKE) or min(rows, columns) < 2:
        return "direct"
    if network.nodes > MULTIGRID_NODES and uneven > _UNEVEN:
        import importlib.util

        if importlib.util.find_spec("pyamg"):
            return "multigrid"
    return "spectral"


def unevenness(network: Network) -> float:
    """The greatest ratio of lateral conductances within one layer of cells."""
    ratio = 1.0
    for group in (network.lateral_x, network.lateral_y, network.vertical):
        if group.size:
            flat = group.reshape(len(group), -1)
            low, high = flat.min(axis=1), flat.max(axis=1)
            live = low > 0
            if live.any():
                ratio = max(ratio, float((high[live] / low[live]).max()))
    return ratio


def matrix(network: Network, shift_per_s: float = 0.0) -> csr_matrix:
    """G + shift·C as a sparse matrix."""
    from scipy.sparse import csr_matrix

    first, second, value = network.edges()
    nodes = np.arange(network.nodes)
    off = network.carried_row != network.carried_column
    rows = np.concatenate([first, second, nodes, network.carried_row[off]])
    columns = np.concatenate([second, first, nodes, network.carried_column[off]])
    diagonal = network.diagonal() + shift_per_s * network.capacity
    values = np.concatenate([-value, -value, diagonal, network.carried[off]])
    return csr_matrix((values, (rows, columns)), shape=(network.nodes, network.nodes))


class BlockSolver:
    """Block elimination from the lowest layer up; exact, and unsymmetric coolant terms within a layer are allowed."""

    name = "blocks"

    def __init__(self, network: Network, shift_per_s: float = 0.0) -> None:
        layers, rows, columns = network.shape
        cells = rows * columns
        self._members = [
            np.concatenate(
                [
                    np.arange(layer * cells, (layer + 1) * cells),
                    layers * cells + np.flatnonzero(network.node_layer == layer),
                ]
            )
            for layer in range(layers)
        ]
        place = np.zeros(network.nodes, dtype=np.int64)
        home = np.zeros(network.nodes, dtype=np.int64)
        for layer, members in enumerate(self._members):
            place[members] = np.arange(members.size)
            home[members] = layer
        diagonal = network.diagonal() + shift_per_s * network.capacity
        first, second, value = network.edges()
        inside = home[first] == home[second]
        blocks = []
        for members in self._members:
            block = np.zeros((members.size, members.size))
            np.fill_diagonal(block, diagonal[members])
            blocks.append(block)
        for layer, block in enumerate(blocks):
            own = inside & (home[first] == layer)
            i, j = place[first[own]], place[second[own]]
            np.subtract.at(block, (i, j), value[own])
            np.subtract.at(block, (j, i), value[own])
            moved = (home[network.carried_row] == layer) & (network.carried_row != network.carried_column)
            np.add.at(
                block, (place[network.carried_row[moved]], place[network.carried_column[moved]]), network.carried[moved]
            )
        # Between layers every node has at most one partner, so the coupling is a list of pairs.
        self._pairs = []
        across = ~inside
        low = np.where(home[first] < home[second], first, second)[across]
        high = np.where(home[first] < home[second], second, first)[across]
        between = value[across]
        for layer in range(layers - 1):
            own = home[low] == layer
            self._pairs.append((place[low[own]], place[high[own]], between[own]))
        self._inverse: list[Array] = []
        for layer, block in enumerate(blocks):
            if layer:
                below, above, g = self._pairs[layer - 1]
                inverse = self._inverse[-1]
                block[np.ix_(above, above)] -= inverse[np.ix_(below, below)] * np.outer(g, g)
            self._inverse.append(np.asarray(np.linalg.inv(block), dtype=np.float64))

    def solve(self, right_hand_side: Array) -> Array:
        """See :class:`Solver`."""
        flat = right_hand_side.reshape(right_hand_side.shape[0], -1)
        sides = [flat[members].copy() for members in self._members]
        partial: list[Array] = []
        for layer, side in enumerate(sides):
            if layer:
                below, above, g = self._pairs[layer - 1]
                side[above] += g[:, None] * partial[-1][below]
            partial.append(self._inverse[layer] @ side)
        result = np.empty_like(flat)
        result[self._members[-1]] = partial[-1]
        for layer in range(len(sides) - 2, -1, -1):
            below, above, g = self._pairs[layer]
            upper = result[self._members[layer + 1]]
            push = np.zeros_like(sides[layer])
            push[below] = g[:, None] * upper[above]
            result[self._members[layer]] = partial[layer] + self._inverse[layer] @ push
        return result.reshape(right_hand_side.shape)


class DirectSolver:
    """Sparse LU."""

    name = "direct"

    def __init__(self, network: Network, shift_per_s: float = 0.0) -> None:
        from scipy.sparse.linalg import splu

        ordering = "MMD_AT_PLUS_A" if network.symmetric else "COLAMD"
        options = {"SymmetricMode": True} if network.symmetric else {}
        threshold = 0.01 if network.symmetric else 1.0
        self._factor = splu(
            matrix(network, shift_per_s).tocsc(), permc_spec=ordering, diag_pivot_thresh=threshold, options=options
        )

    def solve(self, right_hand_side: Array) -> Array:
        """See :class:`Solver`."""
        return np.asarray(self._factor.solve(right_hand_side))


class MultigridSolver:
    """Conjugate gradients preconditioned by classical algebraic multigrid (Ruge and Stüben)."""

    name = "multigrid"

    def __init__(self, network: Network, shift_per_s: float = 0.0, tolerance: float = 1e-11) -> None:
        try:
            import pyamg
        except ImportError:
            raise MissingDependency("pyamg", "the multigrid thermal solver", "thermal") from None
        self._matrix = matrix(network, shift_per_s)
        # Classical coarsening handles the strong anisotropy of thin layers better than aggregation does here.
        self._hierarchy: Any = pyamg.ruge_stuben_solver(self._matrix, strength=("classical", {"theta": 0.25}))
        self._tolerance = tolerance

    def solve(self, right_hand_side: Array) -> Array:
        """See :class:`Solver`."""
        flat = right_hand_side.reshape(right_hand_side.shape[0], -1)
        cycle = self._hierarchy.aspreconditioner(cycle="V")
        columns = [
            conjugate_gradients(lambda v: self._matrix @ v, lambda r: cycle @ r, flat[:, k], self._tolerance)
            for k in range(flat.shape[1])
        ]
        return np.stack(columns, axis=1).reshape(right_hand_side.shape)


def conjugate_gradients(
    apply: Any, precondition: Any, right_hand_side: Array, tolerance: float, limit: int = 1000
) -> Array:
    """Preconditioned conjugate gradients to a relative residual; TierformError when `limit` steps do not reach it."""
    solution = precondition(right_hand_side)
    residual = right_hand_side - apply(solution)
    goal = tolerance**2 * _dot(right_hand_side, right_hand_side)
    direction = np.zeros_like(residual)
    before = 1.0
    for step in range(limit):
        if _dot(residual, residual) <= goal:
            return np.asarray(solution)
        corrected = precondition(residual)
        size = _dot(residual, corrected)
        direction = corrected + (size / before if step else 0.0) * direction
        before = size
        image = apply(direction)
        length = size / _dot(direction, image)
        solution = solution + length * direction
        residual = residual - length * image
    return fail(f"the iterative thermal solver did not converge in {limit} steps", fix="Choose the solver 'direct'.")


def _dot(first: Array, second: Array) -> float:
    """Inner product without threads, which cost more than they gain at this length."""
    return float(np.einsum("i,i->", first, second))
