"""The influence matrix of stacks with uniform layers, mode by mode: no large system, numpy alone.

In the lateral cosine basis the stack's inverse is a small matrix over the layers for each mode, and a rectangle is a
product of two vectors.  The influence of tile b on tile a is then one sum over modes, corrected for the package at the
edges with the same dense system as in ``spectral.py``.  The result is the grid model's own, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tierform.thermal.network import Array, Network
from tierform.thermal.solvers import unevenness
from tierform.thermal.spectral import EDGE_CELLS, SpectralSolver

# Conductances of a layer that differ by less than this are those of one material, but for rounding.
_ROUNDING = 1e-9


def is_uniform(network: Network) -> bool:
    """True where every layer is of one material, no coolant moves, and all of the package's edges fit in exactly."""
    layers, rows, columns = network.shape
    edges = np.unique(network.link_from[network.link_from < layers * rows * columns] // (rows * columns)).size
    small = edges * 2 * (rows + columns) <= EDGE_CELLS
    return network.symmetric and min(rows, columns) >= 2 and small and unevenness(network) <= 1 + _ROUNDING


def modal_influence(network: Network, parts: Sequence[tuple[Sequence[int], Array, Array]]) -> Array:
    """K/W of every tile on every other, (n, n).

    `parts` has one entry per powered layer: its layers of cells, and its tiles' shares of rows (t, rows) and of columns
    (t, columns).  The network must be uniform (:func:`is_uniform`).
    """
    solver = SpectralSolver(network)
    by, bx = solver.basis_y, solver.basis_x
    tiles, reach = [], []
    for slices, high, wide in parts:
        area = high.sum(axis=1) * wide.sum(axis=1)
        tiles.append((high @ by.T)[:, :, None] * ((wide / area[:, None]) @ bx.T)[:, None, :])
        modes = np.zeros(network.shape)
        modes[list(slices)] = 1.0 / len(slices)
        solver.through_layers(modes)
        reach.append(modes)
    rows = []
    for (slices, _, _), seen in zip(parts, tiles, strict=True):
        flat = seen.reshape(len(seen), -1)
        blocks = []
        for modes, source in zip(reach, tiles, strict=True):
            between = modes[list(slices)].mean(axis=0)
            blocks.append(flat @ (source * between).reshape(len(source), -1).T)
        rows.append(np.concatenate(blocks, axis=1))
    matrix = np.concatenate(rows, axis=0)
    if solver.rings:
        edges = np.concatenate(
            [
                np.concatenate(
                    [solver.at_edge(source * modes[layer], side) for layer, side, _, _ in solver.rings], axis=1
                )
                for modes, source in zip(reach, tiles, strict=True)
            ],
            axis=0,
        )
        matrix -= edges @ solver.capacitance @ edges.T
    return np.asarray(matrix)
