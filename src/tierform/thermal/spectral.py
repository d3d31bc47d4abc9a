"""The spectral solver: conjugate gradients with a cosine-transform preconditioner.

A stack whose layers are each uniform, with adiabatic side walls, is diagonal in the lateral cosine basis: what is left
is one tridiagonal system through the layers per lateral mode.  Real stacks differ from it by the materials of their
floorplans and by overhanging plates; conjugate gradients take up the difference, in steps that cost two transforms.
"""

from __future__ import annotations

import numpy as np

from tierform.thermal.network import Array, Network
from tierform.thermal.solvers import conjugate_gradients


class SpectralSolver:
    """See the module's text; keeps the factored modal systems and the last solution as a start."""

    name = "spectral"

    def __init__(self, network: Network, shift_per_s: float = 0.0, tolerance: float = 1e-11) -> None:
        layers, rows, columns = network.shape
        self._network, self._tolerance = network, tolerance
        self._shape = (layers, rows, columns)
        self._cells = layers * rows * columns
        self._diagonal = network.diagonal() + shift_per_s * network.capacity
        self._lower, self._pivot, self._upper = self._factor(network, shift_per_s)
        outer = network.link_from < self._cells
        self._edge = (network.link_from[outer], network.link_to[outer] - self._cells, network.link[outer])
        inner = ~outer
        nodes = network.nodes - self._cells
        package = np.diag(self._diagonal[self._cells :])
        i, j = network.link_from[inner] - self._cells, network.link_to[inner] - self._cells
        np.subtract.at(package, (i, j), network.link[inner])
        np.subtract.at(package, (j, i), network.link[inner])
        self._package = package
        self._package_inverse = np.linalg.inv(package) if nodes else package
        self.steps = 0

    def _factor(self, network: Network, shift_per_s: float) -> tuple[Array, Array, Array]:
        layers, rows, columns = self._shape
        # The mean conductance keeps the preconditioner's scale right for constant fields.
        along_x = network.lateral_x.mean(axis=(1, 2)) if columns > 1 else np.zeros(layers)
        along_y = network.lateral_y.mean(axis=(1, 2)) if rows > 1 else np.zeros(layers)
        upward = network.vertical.mean(axis=(1, 2))
        local = (network.ambient + shift_per_s * network.capacity)[: self._cells].reshape(self._shape).mean(axis=(1, 2))
        # Heat that leaves sideways into the package nodes, spread over the layer, as if they were at the ambient.
        outer = network.link_from < self._cells
        per_layer = np.bincount(network.link_from[outer] // (rows * columns), network.link[outer], layers)
        local = local + per_layer / (rows * columns)
        wave_x = 2 - 2 * np.cos(np.pi * np.arange(columns) / columns)
        wave_y = 2 - 2 * np.cos(np.pi * np.arange(rows) / rows)
        pivot = (
            local[:, None, None]
            + along_x[:, None, None] * wave_x[None, None, :]
            + along_y[:, None, None] * wave_y[None, :, None]
        )
        pivot[:-1] += upward[:, None, None]
        pivot[1:] += upward[:, None, None]
        lower = np.zeros_like(pivot)
        for layer in range(1, layers):
            lower[layer] = upward[layer - 1] / pivot[layer - 1]
            pivot[layer] -= upward[layer - 1] * lower[layer]
        return lower, 1.0 / pivot, upward

    def _apply(self, vector: Array) -> Array:
        network = self._network
        result = self._diagonal * vector
        t = vector[: self._cells].reshape(self._shape)
        out = result[: self._cells].reshape(self._shape)
        out[:, :, :-1] -= network.lateral_x * t[:, :, 1:]
        out[:, :, 1:] -= network.lateral_x * t[:, :, :-1]
        out[:, :-1] -= network.lateral_y * t[:, 1:]
        out[:, 1:] -= network.lateral_y * t[:, :-1]
        out[:-1] -= network.vertical * t[1:]
        out[1:] -= network.vertical * t[:-1]
        cell, node, g = self._edge
        if cell.size:
            tail = vector[self._cells :]
            np.subtract.at(result, cell, g * tail[node])
            result[self._cells :] = self._package @ tail - np.bincount(node, g * vector[cell], tail.size)
        return result

    def _precondition(self, vector: Array) -> Array:
        from scipy.fft import dctn, idctn

        modes = dctn(vector[: self._cells].reshape(self._shape), axes=(1, 2), norm="ortho")
        for layer in range(1, self._shape[0]):
            modes[layer] += self._lower[layer] * modes[layer - 1]
        modes[-1] *= self._pivot[-1]
        for layer in range(self._shape[0] - 2, -1, -1):
            modes[layer] += self._upper[layer] * modes[layer + 1]
            modes[layer] *= self._pivot[layer]
        result = np.empty_like(vector)
        result[: self._cells] = idctn(modes, axes=(1, 2), norm="ortho").ravel()
        result[self._cells :] = self._package_inverse @ vector[self._cells :]
        return result

    def solve(self, right_hand_side: Array) -> Array:
        """See :class:`tierform.thermal.solvers.Solver`."""
        flat = right_hand_side.reshape(right_hand_side.shape[0], -1)
        columns = [
            conjugate_gradients(self._apply, self._precondition, flat[:, k], self._tolerance)
            for k in range(flat.shape[1])
        ]
        return np.stack(columns, axis=1).reshape(right_hand_side.shape)
