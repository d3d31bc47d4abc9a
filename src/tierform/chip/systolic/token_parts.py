"""A product whose tokens come in parts: what an array computes each time, and what all parts together cost.

Between two parts an array does other work.  So it loads its stationary operand again for each of them, fills and drains
again, and parts of fewer rows than it has leave it partly empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import fsum

from tierform.chip.component import Cost, Share
from tierform.workload.operator import Operator, Origin


def in_parts(operator: Operator, parts: int, sequences: int = 1) -> list[tuple[Operator, int]]:
    """The sizes in which a product of at most so many parts comes, and how often each: sizes differ by one at most.

    Tokens are the rows of a product; of a gradient of weights they are what is summed.  A product of `sequences`, each
    with keys of its own, comes sequence by sequence: several whole ones at a time, or some rows of one.
    """
    if operator.origin is Origin.WEIGHT_GRADIENT:
        return [(replace(operator, k=size), times) for size, times in _evenly(operator.k, parts)]
    if sequences < 2:
        return [(replace(operator, m=size), times) for size, times in _evenly(operator.m, parts)]
    if sequences >= parts:
        return [(_some(operator, sequences, size), times) for size, times in _evenly(sequences, parts)]
    one = _some(operator, sequences, 1)
    return [(replace(one, m=size), times) for size, times in _evenly(sequences * operator.m, parts)]


def _evenly(tokens: int, parts: int) -> list[tuple[int, int]]:
    """(tokens of a part, how many such parts) of at most so many parts."""
    number = max(1, min(parts, tokens))
    size, more = divmod(tokens, number)
    return [(one, times) for one, times in ((size + 1, more), (size, number - more)) if times]


def _some(operator: Operator, sequences: int, number: int) -> Operator:
    """The product of some of its sequences."""
    inputs = tuple(replace(one, shape=(one.elements // sequences * number,)) for one in operator.inputs)
    return replace(operator, inputs=inputs, batch=operator.batch // sequences * number)


def cost_of_parts(operator: Operator, share: Share, whole: Cost, compute: Callable[[Operator], Cost]) -> Cost:
    """The cost of all parts of a product; never less than that of the `whole`, which is one of the ways to do them."""
    pieces = in_parts(operator, share.parts, share.sequences)
    if sum(times for _, times in pieces) < 2:
        return whole
    costs = [(compute(one), times) for one, times in pieces]
    seconds = max(whole.occupancy_s, fsum(times * cost.occupancy_s for cost, times in costs))
    energy_J = {
        name: max(own, fsum(times * cost.energy_J.get(name, 0.0) for cost, times in costs))
        for name, own in whole.energy_J.items()
    }
    used = whole.utilization * whole.occupancy_s / seconds if seconds else whole.utilization
    return replace(whole.scaled(seconds), energy_J=energy_J, utilization=used)
