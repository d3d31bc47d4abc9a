"""The methods by name: each takes what is known of one input and gives new weights for all matrices that read it.

| method | what it does | needs |
|---|---|---|
| rtn | rounds to nearest in groups, clipping searched | a format |
| gptq | rounds column by column, errors spread over what is left | a format |
| awq | scales by channel, then rounds | a format |
| hadamard, hadamard-gptq | rotates the inputs, then rounds (by GPTQ) | a format |
| smoothquant | scales by channel, rounds weights and, at run time, inputs | a format |
| magnitude, wanda | takes weights away | a density |
| sparsegpt | takes weights away, errors spread; rounds too where a format is given | a density |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tierform.compression import obs
from tierform.compression.formats import DENSE, FLOAT, Density, WeightFormat
from tierform.compression.pruning import magnitude_mask, wanda_mask
from tierform.compression.rounding import make_grid
from tierform.compression.transforms import Transform, awq_scale, hadamard, smooth_scale
from tierform.compression.walk import InputStatistics
from tierform.errors import fail


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: a format, a density, a seed for rotations."""

    format: WeightFormat = FLOAT
    density: Density = DENSE
    seed: int = 0


Method = Callable[[InputStatistics, Wanted], list[Tensor]]


def _rounded(matrix: Tensor, form: WeightFormat, weights: Tensor | None) -> Tensor:
    """To nearest; the clipping is searched only where the inputs' importance is known (without, it does harm)."""
    grid = make_grid(matrix, form, weights, search=weights is not None)
    return grid.values(grid.nearest(matrix))


def _each(found: InputStatistics, change: Callable[[Tensor], Tensor]) -> list[Tensor]:
    return [change(site.matrix) for site in found.sites]


def rtn(found: InputStatistics, wanted: Wanted) -> list[Tensor]:
    """To nearest."""
    return _each(found, lambda one: _rounded(one, wanted.format, None))


def _solved(found: InputStatistics, wanted: Wanted, transform: Transform) -> list[Tensor]:
    """All matrices that read the input, solved together."""
    hessian = transform.on_hessian(found.hessian)
    matrix = transform.on_weights(torch.cat([site.matrix for site in found.sites]))
    grid = None if wanted.format.kind == "float" else make_grid(matrix, wanted.format, hessian.diagonal())
    solved, _ = obs.solve(matrix, hessian, grid, wanted.density, key=found.sites[0].name)
    return list(torch.split(transform.back(solved), [site.shape[0] for site in found.sites]))


def gptq(found: InputStatistics, wanted: Wanted) -> list[Tensor]:
    """Column by column."""
    return _solved(found, Wanted(wanted.format), Transform())


def sparsegpt(found: InputStatistics, wanted: Wanted) -> list[Tensor]:
    """Weights taken away column by column, and the rest rounded where a format is given."""
    return _solved(found, wanted, Transform())


def awq(found: InputStatistics, wanted: Wanted) -> list[Tensor]:
    """Scales by channel, then to nearest."""
    form = wanted.format
    matrices = [site.matrix for site in found.sites]

    def plain(matrix: Tensor) -> Tensor:
        grid = make_grid(matrix, form, search=False)
        return grid.values(grid.nearest(matrix))

    transform = awq_scale(matrices, found.mean_abs, found.hessian, plain)
    weights = transform.on_hessian(found.hessian).diagonal()
    return [transform.back(_rounded(transform.on_weights(one), form, weights)) for one in matrices]


def rotated(found: InputStatistics, wanted: Wanted) -> list[Tensor]:
    """Inputs rotated, then to nearest."""
    transform = hadamard(found.hessian.shape[0], wanted.seed)
    return _each(found, lambda one: transform.back(_rounded(transform.on_weights(one), wanted.format, None)))


def rotated_gptq(found: InputStatistics, wanted: Wanted) -> list[Tensor]:
    """Inputs rotated, then column by column."""
    return _solved(found, Wanted(wanted.format), hadamard(found.hessian.shape[0], wanted.seed))


def smoothquant(found: InputStatistics, wanted: Wanted) -> list[Tensor]:
    """Scales by channel between inputs and weights, folded into the normalization before where there is one."""
    matrices = [site.matrix for site in found.sites]
    transform = smooth_scale(matrices, found.largest)
    rounded = [_rounded(transform.on_weights(one), wanted.format, None) for one in matrices]
    if found.norm is None or transform.scale is None:
        return [transform.back(one) for one in rounded]
    with torch.no_grad():
        found.norm.weight.div_(transform.scale)  # type: ignore[operator]
        if getattr(found.norm, "bias", None) is not None:
            found.norm.bias.div_(transform.scale)  # type: ignore[operator]
    return rounded


def magnitude(found: InputStatistics, wanted: Wanted) -> list[Tensor]:
    """The smallest weights taken away."""
    return _each(found, lambda one: one * magnitude_mask(one, wanted.density))


def wanda(found: InputStatistics, wanted: Wanted) -> list[Tensor]:
    """The weights of least size times input taken away."""
    return _each(found, lambda one: one * wanda_mask(one, found.norms, wanted.density))


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """A method with what it takes."""

    run: Method
    formats: bool
    densities: bool


METHODS: Mapping[str, MethodEntry] = {
    "rtn": MethodEntry(rtn, True, False),
    "gptq": MethodEntry(gptq, True, False),
    "awq": MethodEntry(awq, True, False),
    "hadamard": MethodEntry(rotated, True, False),
    "hadamard-gptq": MethodEntry(rotated_gptq, True, False),
    "smoothquant": MethodEntry(smoothquant, True, False),
    "magnitude": MethodEntry(magnitude, False, True),
    "wanda": MethodEntry(wanda, False, True),
    "sparsegpt": MethodEntry(sparsegpt, True, True),
}


def check_method(name: str, wanted: Wanted) -> MethodEntry:
    """The method; TierformError when it is unknown or cannot make what is wanted."""
    if name not in METHODS:
        fail("no such method", key="--method", value=name, choices=METHODS, fix=f"Known: {', '.join(METHODS)}.")
    entry = METHODS[name]
    rounds, thins = wanted.format.kind != "float", not wanted.density.dense
    if rounds and not entry.formats:
        fail(
            f"{name} takes weights away and rounds none",
            key="--format",
            value=str(wanted.format),
            fix="Leave it out, or use sparsegpt.",
        )
    if thins and not entry.densities:
        fail(
            f"{name} rounds weights and takes none away",
            key="--density",
            value=str(wanted.density),
            fix="Use sparsegpt for both.",
        )
    if not rounds and not thins:
        fail(
            f"{name} was asked for nothing", key="--method", value=name, fix="Give --format int4-g64z or --density 0.5."
        )
    if entry.formats and not entry.densities and not rounds:
        fail(f"{name} needs a format", key="--format", fix="For example --format int4-g64z.")
    if name == "smoothquant" and wanted.format.kind != "int":
        fail("smoothquant makes integers", key="--format", value=str(wanted.format))
    return entry
