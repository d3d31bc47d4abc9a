"""The spectral solver: cosine transforms through uniform layers, exact package edges, conjugate gradients for the rest.

A stack whose layers are each uniform, with adiabatic side walls, is diagonal in the lateral cosine basis: what is left
is one tridiagonal system through the layers per lateral mode.  The overhanging plates add conductances at the edge
cells of a few layers only; the capacitance-matrix method (Sherman, Morrison and Woodbury) takes them in exactly, with a
dense system over the edge cells whose entries follow from one-dimensional transforms.  For stacks with uniform layers
the result is the answer, in two transforms; where floorplans mix materials it is the preconditioner of conjugate
gradients, with each layer's mean conductances.
"""

from __future__ import annotations

import numpy as np

from tierform.thermal.network import Array, Network
from tierform.thermal.package import SIDES
from tierform.thermal.solvers import conjugate_gradients

# The dense system's size grows with the edge cells; layers beyond this many are left to the iteration.
EDGE_CELLS = 2200


class SpectralSolver:
    """See the module's text.

    `basis_x`, `basis_y` are the cosine transforms, `rings` the edges treated exactly as (layer, side, package node,
    conductances), `capacitance` the dense matrix K of the correction A0⁻¹·E·K·Eᵀ·A0⁻¹.
    """

    name = "spectral"

    def __init__(self, network: Network, shift_per_s: float = 0.0, tolerance: float = 1e-11) -> None:
        self._network, self._tolerance = network, tolerance
        self._shape = layers, rows, columns = network.shape
        self._cells = layers * rows * columns
        self._diagonal = network.diagonal() + shift_per_s * network.capacity
        self.basis_x, self.basis_y = _cosines(columns), _cosines(rows)
        self._package_system(network)
        self.rings = self._choose_rings(network)
        self._factor(network, shift_per_s)
        self.capacitance = self._edges()

    def _package_system(self, network: Network) -> None:
        outer = network.link_from < self._cells
        self._edge_cell = network.link_from[outer]
        self._edge_node = network.link_to[outer] - self._cells
        self._edge_g = network.link[outer]
        package = np.diag(self._diagonal[self._cells :])
        i, j = network.link_from[~outer] - self._cells, network.link_to[~outer] - self._cells
        np.subtract.at(package, (i, j), network.link[~outer])
        np.subtract.at(package, (j, i), network.link[~outer])
        self._package = package
        self._package_inverse = np.linalg.inv(package) if len(package) else package

    def _choose_rings(self, network: Network) -> list[tuple[int, int, int, Array]]:
        """(layer, side, node, conductances) of the edges treated exactly: the strongest plates first."""
        rings = []
        for node, name in enumerate(network.node_names):
            own = self._edge_g[self._edge_node == node]
            if own.size:
                rings.append((int(network.node_layer[node]), SIDES.index(name.split()[-1]), node, own))
        strength = {layer: max(ring[3].sum() for ring in rings if ring[0] == layer) for layer, *_ in rings}
        chosen: set[int] = set()
        _, rows, columns = self._shape
        for layer in sorted(strength, key=lambda layer: -strength[layer]):
            if (len(chosen) + 1) * 2 * (rows + columns) <= EDGE_CELLS:
                chosen.add(layer)
        return [ring for ring in rings if ring[0] in chosen]

    def _factor(self, network: Network, shift_per_s: float) -> None:
        """Pivots of the tridiagonal system of every lateral mode, with each layer's mean conductances."""
        layers, rows, columns = self._shape
        along_x = network.lateral_x.mean(axis=(1, 2)) if columns > 1 else np.zeros(layers)
        along_y = network.lateral_y.mean(axis=(1, 2)) if rows > 1 else np.zeros(layers)
        self._upward = upward = network.vertical.mean(axis=(1, 2))
        local = (network.ambient + shift_per_s * network.capacity)[: self._cells].reshape(self._shape).mean(axis=(1, 2))
        # Edges that are not treated exactly lose heat as if it were spread over their layer.
        exact = {layer for layer, *_ in self.rings}
        layer_of = self._edge_cell // (rows * columns)
        lost = np.bincount(layer_of, self._edge_g, layers) / (rows * columns)
        local = local + np.where([layer in exact for layer in range(layers)], 0.0, lost)
        wave_x = 2 - 2 * np.cos(np.pi * np.arange(columns) / columns)
        wave_y = 2 - 2 * np.cos(np.pi * np.arange(rows) / rows)
        pivot = (
            local[:, None, None]
            + along_x[:, None, None] * wave_x[None, None, :]
            + along_y[:, None, None] * wave_y[None, :, None]
        )
        pivot[:-1] += upward[:, None, None]
        pivot[1:] += upward[:, None, None]
        self._lower = np.zeros_like(pivot)
        for layer in range(1, layers):
            self._lower[layer] = upward[layer - 1] / pivot[layer - 1]
            pivot[layer] -= upward[layer - 1] * self._lower[layer]
        self._pivot = 1.0 / pivot

    def through_layers(self, modes: Array) -> None:
        """Solve the tridiagonal systems in place."""
        for layer in range(1, self._shape[0]):
            modes[layer] += self._lower[layer] * modes[layer - 1]
        modes[-1] *= self._pivot[-1]
        for layer in range(self._shape[0] - 2, -1, -1):
            modes[layer] += self._upward[layer] * modes[layer + 1]
            modes[layer] *= self._pivot[layer]

    def at_edge(self, modes: Array, side: int) -> Array:
        """Values along an edge of modes (..., rows, columns) of one layer: (..., cells along the edge)."""
        if side < 2:
            return np.asarray((modes @ self.basis_x[:, -side]) @ self.basis_y)
        return np.asarray((modes.swapaxes(-1, -2) @ self.basis_y[:, side - 3]) @ self.basis_x)

    def _add_edge(self, modes: Array, side: int, values: Array) -> None:
        if side < 2:
            modes += np.outer(self.basis_y @ values, self.basis_x[:, -side])
        else:
            modes += np.outer(self.basis_y[:, side - 3], self.basis_x @ values)

    def _edges(self) -> Array:
        """K with (A0 + E·D·Eᵀ)⁻¹ = A0⁻¹ - A0⁻¹·E·K·Eᵀ·A0⁻¹, E the edge cells, D the package seen from them."""
        if not self.rings:
            return np.zeros((0, 0))
        sizes = [ring[3].size for ring in self.rings]
        start = np.concatenate([[0], np.cumsum(sizes)])
        green = np.zeros((start[-1], start[-1]))
        answers: dict[int, Array] = {}
        for layer in sorted({ring[0] for ring in self.rings}):
            modes = np.zeros(self._shape)
            modes[layer] = 1.0
            self.through_layers(modes)
            answers[layer] = modes
        bx, by = self.basis_x, self.basis_y
        for a, (layer_a, side_a, _, _) in enumerate(self.rings):
            for b, (layer_b, side_b, _, _) in enumerate(self.rings[: a + 1]):
                g = answers[layer_b][layer_a]
                if side_a < 2 and side_b < 2:
                    block = (by.T * (g @ (bx[:, -side_a] * bx[:, -side_b]))) @ by
                elif side_a >= 2 and side_b >= 2:
                    block = (bx.T * (g.T @ (by[:, side_a - 3] * by[:, side_b - 3]))) @ bx
                elif side_a < 2:
                    block = by.T @ (g * by[:, side_b - 3][:, None] * bx[:, -side_a][None, :]) @ bx
                else:
                    block = (by.T @ (g * by[:, side_a - 3][:, None] * bx[:, -side_b][None, :]) @ bx).T
                own, other = slice(start[a], start[a + 1]), slice(start[b], start[b + 1])
                green[own, other] = block
                green[other, own] = block.T
        weight = np.concatenate([ring[3] for ring in self.rings])
        node = np.concatenate([np.full(ring[3].size, ring[2]) for ring in self.rings])
        seen = np.diag(weight) - weight[:, None] * self._package_inverse[np.ix_(node, node)] * weight
        return np.asarray(np.linalg.solve(np.eye(weight.size) + seen @ green, seen))

    def _uniform(self, vector: Array) -> Array:
        """The exact answer for uniform layers with the package's edges, or the preconditioner for others."""
        from scipy.fft import dctn, idctn

        cells = vector[: self._cells].reshape(self._shape)
        tail = self._package_inverse @ vector[self._cells :]
        if self._edge_cell.size:
            cells = cells.copy()
            inward = np.bincount(self._edge_cell, self._edge_g * tail[self._edge_node], self._cells)
            cells += inward.reshape(self._shape)
        modes = dctn(cells, axes=(1, 2), norm="ortho")
        if self.rings:
            first = modes.copy()
            self.through_layers(first)
            there = np.concatenate([self.at_edge(first[layer], side) for layer, side, _, _ in self.rings])
            back = -self.capacitance @ there
            begin = 0
            for layer, side, _, own in self.rings:
                self._add_edge(modes[layer], side, back[begin : begin + own.size])
                begin += own.size
        self.through_layers(modes)
        result = np.empty_like(vector)
        result[: self._cells] = idctn(modes, axes=(1, 2), norm="ortho", overwrite_x=True).ravel()
        outward = np.bincount(self._edge_node, self._edge_g * result[self._edge_cell], tail.size)
        result[self._cells :] = tail + self._package_inverse @ outward
        return result

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
        if self._edge_cell.size:
            tail = vector[self._cells :]
            np.subtract.at(result, self._edge_cell, self._edge_g * tail[self._edge_node])
            outward = np.bincount(self._edge_node, self._edge_g * vector[self._edge_cell], tail.size)
            result[self._cells :] = self._package @ tail - outward
        return result

    def solve(self, right_hand_side: Array) -> Array:
        """See :class:`tierform.thermal.solvers.Solver`."""
        flat = right_hand_side.reshape(right_hand_side.shape[0], -1)
        columns = [
            conjugate_gradients(self._apply, self._uniform, flat[:, k], self._tolerance) for k in range(flat.shape[1])
        ]
        return np.stack(columns, axis=1).reshape(right_hand_side.shape)


def _cosines(count: int) -> Array:
    """The orthonormal cosine transform (type II): rows are modes, columns cells."""
    modes = np.cos(np.pi / count * np.outer(np.arange(count), np.arange(count) + 0.5)) * np.sqrt(2.0 / count)
    modes[0] /= np.sqrt(2.0)
    return np.asarray(modes)
