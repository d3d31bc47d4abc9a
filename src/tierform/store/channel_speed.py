"""How long the products of one token take straight from planes, and the rule that chooses the planes, on this machine.

A token is run once and every matrix' input kept; then the matrices are gone through in the model's order, again and
again, so that each comes from where a decoding model finds it.  What is reported is the sum of each matrix' least time,
which other work on the machine disturbs least.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from tierform.arrays import Singles
from tierform.store.channel_decoding import PlaneLinear, PlaneModel

REPEATS = 25


@dataclass(frozen=True, slots=True)
class ProductTimes:
    """Seconds of all products of a token and of the rule, and the bytes of the planes read."""

    product_s: float
    rule_s: float
    planes_B: int

    @property
    def total_s(self) -> float:
        """Products and rule."""
        return self.product_s + self.rule_s


def inputs_of(opened: PlaneModel, ids: list[int]) -> list[tuple[PlaneLinear, Singles]]:
    """Each matrix with its inputs at the last of these tokens, in the order in which the model comes to them."""
    found: list[tuple[PlaneLinear, Singles]] = []

    def keep(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, PlaneLinear)
        found.append((module, given[0].detach().float().reshape(-1, module.inputs)[-1:].contiguous().numpy()))

    handles = [one.register_forward_pre_hook(keep) for one in opened.model.modules() if isinstance(one, PlaneLinear)]
    try:
        with torch.no_grad():
            opened.model(input_ids=torch.tensor([ids]))
    finally:
        for handle in handles:
            handle.remove()
    return found


def product_times(
    opened: PlaneModel, inputs: list[tuple[PlaneLinear, Singles]], planes: float, *, dynamic: bool, tokens: int = 1
) -> ProductTimes:
    """The least times over some repeats at an average of `planes`, for so many equal tokens at once."""
    opened.at(planes, dynamic=dynamic)
    given = [(one, np.repeat(x, tokens, axis=0)) for one, x in inputs]
    least = np.full((2, len(given)), np.inf)
    for _ in range(REPEATS):
        for number, (one, x) in enumerate(given):
            begin = time.perf_counter()
            depths = one.depths(x[0])
            middle = time.perf_counter()
            one.multiply(x, depths)
            end = time.perf_counter()
            least[:, number] = np.minimum(least[:, number], (end - middle, middle - begin))
    planes_B = sum(one.plane_B // one.inputs * int(one.depths(x[0]).sum()) for one, x in given)
    return ProductTimes(float(least[0].sum()), float(least[1].sum()), planes_B)


def read_B_per_s(size_B: int = 2**28) -> float:
    """Bytes a second that one thread reads from memory: the best of some sums over an array larger than the caches."""
    content = np.zeros(size_B // 8)
    content[:] = 1.0
    best = np.inf
    for _ in range(5):
        begin = time.perf_counter()
        content.sum()
        best = min(best, time.perf_counter() - begin)
    return float(content.nbytes / best)
