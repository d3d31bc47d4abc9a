"""What is done to a matrix's inputs so that it is rounded with less error: scales by channel, and rotations.

A transform T keeps the product: W x = (W T) (T^-1 x).  The matrix W T is rounded, and its inputs are transformed.

- AWQ: T is diagonal, mean|x|^a with the a of least output error among twenty.
- SmoothQuant: T is diagonal, max|x|^a / max|w|^(1-a), so that inputs, too, can be rounded to 8 bits.
- Hadamard: T is orthogonal, Walsh-Hadamard blocks with random signs, which spreads outliers over all channels.

Sources: Lin et al., AWQ (MLSys 2024); Xiao et al., SmoothQuant (ICML 2023); Ashkboos et al., QuaRot (NeurIPS 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 20


@dataclass(frozen=True, slots=True)
class Transform:
    """A diagonal (`scale`, (inputs,)) or an orthogonal (`rotation`, (inputs, inputs)) change of a matrix's inputs."""

    scale: Tensor | None = None
    rotation: Tensor | None = None

    def on_weights(self, matrix: Tensor) -> Tensor:
        """W T."""
        if self.scale is not None:
            return matrix * self.scale
        return matrix if self.rotation is None else matrix @ self.rotation

    def back(self, matrix: Tensor) -> Tensor:
        """W from W T: what the rounded matrix amounts to on the inputs as they are."""
        if self.scale is not None:
            return matrix / self.scale
        return matrix if self.rotation is None else matrix @ self.rotation.T

    def on_hessian(self, hessian: Tensor) -> Tensor:
        """X^T X of the transformed inputs."""
        if self.scale is not None:
            return hessian / self.scale[:, None] / self.scale
        return hessian if self.rotation is None else self.rotation.T @ hessian @ self.rotation


def output_error(difference: Tensor, hessian: Tensor) -> float:
    """The mean squared error of the outputs, sum over outputs, for a change of the weights (outputs, inputs)."""
    return float(((difference @ hessian) * difference).sum())


def awq_scale(
    matrices: list[Tensor], mean_abs: Tensor, hessian: Tensor, rounded: Callable[[Tensor], Tensor]
) -> Transform:
    """The scale by channel, shared by all matrices that read the input, with the least output error."""
    best, least = torch.ones_like(mean_abs), float("inf")
    base = mean_abs.clamp(min=1e-6)
    for step in range(STEPS):
        scale = base ** (step / STEPS)
        scale = (scale / (scale.max() * scale.min()).sqrt()).clamp(1e-4, 1e4)
        error = sum(output_error(rounded(one * scale) / scale - one, hessian) for one in matrices)
        if error < least:
            least, best = error, scale
    return Transform(scale=best)


def smooth_scale(matrices: list[Tensor], largest: Tensor, strength: float = 0.5) -> Transform:
    """SmoothQuant's scale by channel: what the inputs are divided by and the weights multiplied with."""
    weights = torch.stack([one.abs().amax(0) for one in matrices]).amax(0).clamp(min=1e-5)
    scale = largest.clamp(min=1e-5) ** strength / weights ** (1 - strength)
    return Transform(scale=scale.clamp(1e-4, 1e4))


def hadamard(inputs: int, seed: int = 0) -> Transform:
    """Random signs, then Walsh-Hadamard blocks of the largest power of two that divides the number of inputs."""
    size = inputs & -inputs
    block = torch.ones(1, 1)
    while block.shape[0] < size:
        block = torch.cat([torch.cat([block, block], 1), torch.cat([block, -block], 1)], 0)
    signs = torch.randint(0, 2, (inputs,), generator=torch.Generator().manual_seed(seed)).float() * 2 - 1
    whole = torch.kron(torch.eye(inputs // size), block / size**0.5)
    return Transform(rotation=signs[:, None] * whole)
