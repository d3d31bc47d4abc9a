"""Who sends to whom: the field's synthetic patterns, hotspots with rates, and any matrix.

A :class:`Pattern` is one of four plain forms: a permutation, uniform, weights shared by all sources, or a weight per
pair.  ``matrix`` gives the probabilities that the analytic engine needs.  Patterns follow Dally and Towles, table 3.1;
bit patterns need a power of two of nodes, digit patterns a grid with equal sides.  Uniform traffic includes oneself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tierform.errors import fail
from tierform.network.topology import FloatArray, IntArray

PATTERNS = (
    "uniform",
    "transpose",
    "bit_complement",
    "bit_reverse",
    "shuffle",
    "tornado",
    "neighbor",
    "random_permutation",
    "hotspot",
    "background",
    "diagonal",
    "asymmetric",
    "matrix",
)


@dataclass(frozen=True, eq=False)
class Pattern:
    """A traffic pattern for a number of nodes: exactly one of the three arrays, or none for uniform traffic."""

    name: str
    nodes: int
    target: IntArray | None = None
    shared: FloatArray | None = None
    pairs: FloatArray | None = None

    def matrix(self) -> FloatArray:
        """(nodes, nodes) probability that a packet of a source goes to a destination; rows sum to 1."""
        if self.target is not None:
            result = np.zeros((self.nodes, self.nodes))
            result[np.arange(self.nodes), self.target] = 1.0
            return result
        if self.shared is not None:
            return np.tile(self.shared, (self.nodes, 1))
        if self.pairs is not None:
            return self.pairs
        return np.full((self.nodes, self.nodes), 1.0 / self.nodes)


def pattern(name: str, nodes: int, **options: Any) -> Pattern:
    """The pattern of this name.

    Options: `side` and `dimensions` for tornado and neighbor; `seed` for random_permutation; `hotspots` and `rates` for
    hotspot; `excluded` for background; `weights` (nodes, nodes) for matrix.
    """
    if name not in PATTERNS:
        fail("unknown traffic", key="traffic", value=name, choices=PATTERNS, fix=f"Known: {', '.join(PATTERNS)}.")
    if nodes < 1:
        fail("traffic needs at least one node", key="traffic", value=nodes)
    index = np.arange(nodes)
    if name == "uniform":
        return Pattern(name, nodes)
    if name in ("transpose", "bit_complement", "bit_reverse", "shuffle"):
        return Pattern(name, nodes, target=_bits(name, nodes, index))
    if name in ("tornado", "neighbor"):
        return Pattern(name, nodes, target=_digits(name, nodes, index, options))
    if name == "random_permutation":
        return Pattern(name, nodes, target=np.random.default_rng(options.get("seed", 0)).permutation(nodes))
    if name == "hotspot":
        return Pattern(name, nodes, shared=_hotspots(nodes, options.get("hotspots", ()), options.get("rates", ())))
    if name == "background":
        weights = np.ones(nodes)
        weights[_checked(nodes, options.get("excluded", ()), "excluded")] = 0
        if not weights.any():
            fail("every node is excluded", key="traffic", value=name)
        return Pattern(name, nodes, shared=weights / weights.sum())
    if name == "matrix":
        return Pattern(name, nodes, pairs=_rows(nodes, options.get("weights")))
    pairs = np.zeros((nodes, nodes))
    if name == "diagonal":
        pairs[index, (index + 1) % nodes] += 1 / 3
        pairs[index, index] += 2 / 3
    else:
        half = nodes // 2
        pairs[index, index % max(half, 1)] += 0.5
        pairs[index, index % max(half, 1) + half] += 0.5
    return Pattern(name, nodes, pairs=pairs)


def _bits(name: str, nodes: int, index: IntArray) -> IntArray:
    bits = nodes.bit_length() - 1
    if nodes != 1 << bits:
        fail(f"{name} traffic needs a power of two of nodes", key="traffic", value=nodes)
    if name == "bit_complement":
        return index ^ (nodes - 1)
    if name == "shuffle":
        return ((index << 1) | (index >> (bits - 1))) & (nodes - 1) if bits else index
    if name == "bit_reverse":
        result = np.zeros_like(index)
        for bit in range(bits):
            result |= ((index >> bit) & 1) << (bits - 1 - bit)
        return result
    if bits % 2:
        fail("transpose traffic needs an even power of two of nodes", key="traffic", value=nodes)
    half = bits // 2
    return (index >> half) | ((index << half) & (nodes - 1))


def _digits(name: str, nodes: int, index: IntArray, options: dict[str, Any]) -> IntArray:
    side, dimensions = int(options.get("side", 0)), int(options.get("dimensions", 0))
    if side < 1 or dimensions < 1 or side**dimensions != nodes:
        fail(f"{name} traffic needs a grid of equal sides", key="traffic", value=f"{side}^{dimensions}, {nodes} nodes")
    step = (side + 1) // 2 - 1 if name == "tornado" else 1
    result, place = np.zeros_like(index), 1
    for _ in range(dimensions):
        result += place * (((index // place) % side + step) % side)
        place *= side
    return result


def _hotspots(nodes: int, hotspots: Sequence[int], rates: Sequence[float]) -> FloatArray:
    spots = _checked(nodes, hotspots, "hotspot")
    if len(spots) == 0:
        fail("hotspot traffic needs at least one node", key="traffic")
    given = list(rates) or [1.0]
    if len(given) > len(spots) or min(given) <= 0:
        fail("hotspot rates must be positive, one per hotspot", key="traffic", value=tuple(rates))
    given += [given[-1]] * (len(spots) - len(given))
    weights = np.zeros(nodes)
    np.add.at(weights, spots, given)
    shares: FloatArray = weights / weights.sum()
    return shares


def _rows(nodes: int, weights: ArrayLike | None) -> FloatArray:
    matrix = np.asarray(weights, float)
    if matrix.shape != (nodes, nodes):
        fail(f"a traffic matrix needs the shape ({nodes}, {nodes})", key="weights", value=str(matrix.shape))
    if not np.isfinite(matrix).all() or (matrix < 0).any() or (matrix.sum(axis=1) <= 0).any():
        fail("traffic weights must be finite, not negative, and each row needs a destination", key="weights")
    shares: FloatArray = matrix / matrix.sum(axis=1, keepdims=True)
    return shares


def _checked(nodes: int, given: Sequence[int], what: str) -> IntArray:
    numbers = np.asarray(list(given), np.int64)
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= nodes):
        fail(f"a {what} node must be 0 to {nodes - 1}", key="traffic", value=int(numbers.max()))
    return numbers
