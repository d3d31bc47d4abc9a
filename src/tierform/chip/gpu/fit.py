"""Fitting kernel parameters to measured kernels: a pattern search over logarithms, deterministic for a seed.

The objective is the mean of |ln(ours / measured)|, each row's part capped so that a few odd kernels do not bend the
fit.  The model has steps (waves, choices of tiles), so derivatives are of no use: each parameter in turn is tried a
step up and down, steps grow when they help and shrink when they do not.  Further starts are the first one disturbed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tierform.chip.gpu.gemm import FITTED, ProductModel
from tierform.chip.gpu.parameters import Sheet
from tierform.chip.gpu.samples import Sample
from tierform.errors import fail

Array = NDArray[np.float64]
# With few rows only what they can tell is fitted, and the library's choice follows the same figures.
FEW = (
    "tensor_efficiency",
    "memory_efficiency",
    "launch",
    "prologue",
    "operand_feed",
    "step",
    "half_tile",
    "epilogue",
    "l2_share",
    "overlap",
)
_TIED = {
    "chosen_half_tile": "half_tile",
    "chosen_prologue": "prologue",
    "chosen_reduction": "reduction",
    "chosen_reduction_bandwidth": "reduction_bandwidth",
}
_MANY_ROWS, _FIRST_STEP, _LAST_STEP = 300, 0.1, 2e-3


@dataclass(frozen=True, slots=True)
class Fit:
    """Parameters by name, which of them the rows decided, and the relative errors (ours / measured - 1)."""

    parameters: dict[str, float]
    fitted: frozenset[str]
    fitted_errors: Array
    held_out_errors: Array


def search(
    objective: Callable[[Array], float], start: Array, *, starts: int = 1, rounds: int = 25, seed: int = 0
) -> tuple[Array, float]:
    """The best point and its objective; `start` in logarithms."""
    generator = np.random.default_rng(seed)
    best, lowest = start, objective(start)
    for number in range(starts):
        point = start + (generator.normal(0.0, 0.2, len(start)) if number else 0.0)
        value = objective(point)
        steps = np.full(len(point), _FIRST_STEP)
        for _ in range(rounds):
            for place in range(len(point)):
                for sign in (1.0, -1.0):
                    tried = point.copy()
                    tried[place] += sign * steps[place]
                    found = objective(tried)
                    if found < value:
                        point, value = tried, found
                        steps[place] *= 1.5
                        break
                else:
                    steps[place] *= 0.5
            if steps.max() < _LAST_STEP:
                break
            steps = np.maximum(steps, _LAST_STEP / 2)
        if value < lowest:
            best, lowest = point, value
    return best, lowest


def fit_products(
    sheet: Sheet,
    samples: Sequence[Sample],
    held_out: Sequence[Sample],
    start: dict[str, float],
    tiles: list[tuple[int, int]],
    tile_step: tuple[int, int] | None,
    *,
    copies: float,
    input_B: float = 2.0,
    cap: float = 0.3,
    starts: int = 1,
    rounds: int = 25,
    seed: int = 0,
) -> Fit:
    """Fit the product model on `samples`; all parameters with many rows, the FEW otherwise.

    Zeros in `start` stay zero.  TierformError when there are fewer rows than twice the parameters to fit.
    """
    many = len(samples) >= _MANY_ROWS
    free = [name for name in (FITTED if many else FEW) if start[name] > 0]
    if len(samples) < 2 * len(free) or len(held_out) < 4:
        fail(
            f"{len(samples)} measured products to fit {len(free)} parameters and {len(held_out)} held out are too few",
            fix=f"At least {2 * len(free)} to fit and 4 held out are needed: measure more shapes.",
        )
    rows = np.array([sample.shape for sample in samples], dtype=np.float64).T
    measured = np.array([sample.seconds for sample in samples])

    def named(point: Array) -> dict[str, float]:
        values = {**start, **dict(zip(free, np.exp(point).tolist(), strict=True))}
        if not many:
            values.update({tied: values[name] for tied, name in _TIED.items()})
        return values

    def seconds(values: dict[str, float], shape: Array) -> Array:
        model = ProductModel.with_values(sheet, tuple(values[name] for name in FITTED), tiles, tile_step)
        return model.seconds(*shape, copies=copies, input_B=input_B)

    def objective(point: Array) -> float:
        errors = np.abs(np.log(seconds(named(point), rows) / measured))
        return float(np.mean(np.minimum(errors, cap)))

    first = np.log([start[name] for name in free])
    point, _ = search(objective, first, starts=starts, rounds=rounds, seed=seed)
    values = named(point)
    rest = np.array([sample.shape for sample in held_out], dtype=np.float64).T
    apart = np.array([sample.seconds for sample in held_out])
    decided = frozenset(free) | (frozenset() if many else {tied for tied, name in _TIED.items() if name in free})
    return Fit(values, decided, seconds(values, rows) / measured - 1, seconds(values, rest) / apart - 1)
