"""How long the products of one token take straight from planes, and the rule that chooses the planes, on this machine.

A token is run once and every matrix' input kept; then the matrices are gone through in the model's order, again and
again, so that each comes from where a decoding model finds it.  What is reported is the sum of each matrix' least time,
which other work on the machine disturbs least.

    tierform store nest smollm2-135m -o planes.tfs
    python benchmarks/channel_products.py planes.tfs
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
import torch

from tierform.arrays import Singles
from tierform.store.channel_decoding import PlaneLinear, PlaneModel, PlaneProducts, open_plane_model

REPEATS = 25
# (average planes, chosen by channel and token, tokens at once)
CASES = (
    *((planes, False, 1) for planes in (8, 4, 3)),
    *((planes, True, 1) for planes in (4, 3, 2.5)),
    *((8, False, tokens) for tokens in (2, 3, 4, 5)),
)


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


def inputs_of(opened: PlaneModel, ids: list[int]) -> list[tuple[PlaneProducts, Singles]]:
    """Each matrix with its inputs at the last of these tokens, in the order in which the model comes to them."""
    found: list[tuple[PlaneProducts, Singles]] = []

    def keep(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, PlaneLinear)
        if module.number == 0:  # one product for all matrices of the input
            products = module.products
            found.append((products, given[0].detach().float().reshape(-1, products.inputs)[-1:].contiguous().numpy()))

    handles = [one.register_forward_pre_hook(keep) for one in opened.model.modules() if isinstance(one, PlaneLinear)]
    try:
        with torch.no_grad():
            opened.model(input_ids=torch.tensor([ids]))
    finally:
        for handle in handles:
            handle.remove()
    return found


def product_times(
    opened: PlaneModel, inputs: list[tuple[PlaneProducts, Singles]], planes: float, *, dynamic: bool, tokens: int = 1
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


def main() -> None:
    """Print the table."""
    opened = open_plane_model(sys.argv[1], threads=1)
    inputs = inputs_of(opened, list(range(100, 132)))
    whole_s = 0.0
    print(f"{'planes':>6} {'chosen':>10} {'tokens':>6} {'products':>10} {'rule':>8} {'of 8':>6} {'GB/s':>6}")
    for planes, dynamic, tokens in CASES:
        found = product_times(opened, inputs, planes, dynamic=dynamic, tokens=tokens)
        whole_s = whole_s or found.total_s
        shares = f"{found.total_s / whole_s:6.2f} {found.planes_B / found.product_s / 1e9:6.2f}"
        times = f"{1e3 * found.product_s:7.1f} ms {1e3 * found.rule_s:5.1f} ms"
        print(f"{planes:6g} {'by channel' if dynamic else 'everywhere':>10} {tokens:6d} {times} {shares}")


if __name__ == "__main__":
    main()
