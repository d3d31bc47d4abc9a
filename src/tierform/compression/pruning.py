"""Masks that need no solving: by magnitude, and by magnitude times the norm of the input (Wanda).

Source: Sun et al., Wanda (ICLR 2024): the score of a weight is |w| times the norm of its input channel, and the least
are taken from each output.  Magnitude takes the least of the whole matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tierform.compression.formats import Density
from tierform.errors import fail


def magnitude_mask(matrix: Tensor, density: Density) -> Tensor:
    """True where a weight of (outputs, inputs) stays."""
    if density.of:
        return _pattern_mask(matrix.abs(), density)
    taken = round((1 - density.share) * matrix.numel())
    order = matrix.abs().flatten().argsort(stable=True)
    mask = torch.ones(matrix.numel(), dtype=torch.bool)
    mask[order[:taken]] = False
    return mask.view(matrix.shape)


def wanda_mask(matrix: Tensor, norms: Tensor, density: Density, *, over: str = "output") -> Tensor:
    """True where a weight of (outputs, inputs) stays, given the root mean square (inputs,) of its input channels.

    The least scores are taken from each output, as published, or from the whole matrix (`over` = ``matrix``).
    """
    score = matrix.abs() * norms
    if density.of:
        return _pattern_mask(score, density)
    if over == "matrix":
        return magnitude_mask(score, density)
    taken = int((1 - density.share) * matrix.shape[1])
    mask = torch.ones_like(matrix, dtype=torch.bool)
    return mask.scatter_(1, torch.argsort(score, dim=1, stable=True)[:, :taken], False)


def _pattern_mask(score: Tensor, density: Density) -> Tensor:
    outputs, inputs = score.shape
    if inputs % density.of:
        fail(f"{inputs} inputs are no whole groups of {density.of}", key="density", value=str(density))
    grouped = score.reshape(outputs, -1, density.of)
    mask = torch.zeros_like(grouped, dtype=torch.bool)
    mask.scatter_(2, grouped.topk(density.kept, dim=2).indices, True)
    return mask.reshape(outputs, inputs)
