"""Optimal brain surgeon, column by column: GPTQ's rounding and SparseGPT's pruning in one loop.

A matrix W is changed so that (W - W') X stays small over the calibration inputs.  Columns (inputs) are taken one after
another; each one's error is spread over the columns not yet taken, by the rows of the upper Cholesky factor U of the
inverse Hessian: W[:, k:] -= e U[k, k:] with e = (w_k - w'_k) / U[k, k].  A block of columns is finished before the
rest of the matrix is updated.  Pruning chooses in each block the weights with the least w^2 / U[k, k]^2.
Sources: Frantar et al., GPTQ (ICLR 2023); Frantar and Alistarh, SparseGPT (ICML 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tierform.compression.formats import Density
from tierform.compression.rounding import Grid
from tierform.errors import fail

BLOCK = 128
DAMPING = 0.01


def inverse_factor(hessian: Tensor, damping: float = DAMPING, key: str = "hessian") -> Tensor:
    """The upper Cholesky factor of the damped inverse of a Hessian (inputs, inputs).

    Inputs that never were anything but zero get the mean of the diagonal; damping is raised until it can be inverted.
    """
    if not bool(torch.isfinite(hessian).all()):
        fail("the inputs of the layer hold NaN or infinity", key=key)
    matrix = hessian.double()
    diagonal = matrix.diagonal()
    mean = float(diagonal.mean()) or 1.0
    dead = diagonal <= 0
    for raised in range(6):
        tried = matrix + torch.diag(torch.where(dead, mean, damping * 10**raised * mean))
        lower, wrong = torch.linalg.cholesky_ex(tried)
        if int(wrong) == 0:
            upper, wrong = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if int(wrong) == 0:
                factor: Tensor = upper.float()
                return factor
    return fail("the Hessian of the layer's inputs cannot be inverted", key=key, fix="Give more calibration text.")


def solve(
    matrix: Tensor,
    hessian: Tensor,
    grid: Grid | None = None,
    density: Density | None = None,
    *,
    in_order: bool = False,
    key: str = "matrix",
) -> tuple[Tensor, Tensor | None]:
    """The changed matrix (outputs, inputs) and, where a grid is given, its codes.

    With a grid the weights that stay are on it; with a density below 1 weights are taken away.  Inputs of largest
    energy come first, unless `in_order` or a pattern such as 2:4 needs the inputs as they stand.
    """
    density = density or Density()
    inputs = matrix.shape[1]
    if density.of and inputs % density.of:
        fail(f"{inputs} inputs are no whole groups of {density.of}", key=key, value=str(density))
    keep_order = in_order or bool(density.of)
    order = torch.arange(inputs) if keep_order else torch.argsort(hessian.diagonal(), descending=True)
    factor = inverse_factor(hessian[order][:, order], key=key)
    work = matrix[:, order].clone()
    dead = hessian.diagonal()[order] <= 0
    work[:, dead] = 0
    result = torch.zeros_like(work)
    codes = torch.zeros_like(work) if grid is not None else None
    columns = order.tolist()
    for first in range(0, inputs, BLOCK):
        last = min(first + BLOCK, inputs)
        block, part = work[:, first:last].clone(), factor[first:last, first:last]
        mask = _mask(block, part.diagonal(), density)
        errors = torch.zeros_like(block)
        for k in range(last - first):
            value = block[:, k]
            if density.of and k % density.of == 0:
                mask[:, k : k + density.of] = _pattern(
                    block[:, k : k + density.of], part.diagonal()[k : k + density.of], density.kept
                )
            new = value
            if grid is not None:
                group = columns[first + k] // grid.size
                code = grid.code_of(value, grid.scale[:, group], grid.zero[:, group])
                new = grid.value_of(code, group)
                if codes is not None:
                    codes[:, first + k] = torch.where(mask[:, k], code, grid.zero[:, group])
            new = torch.where(mask[:, k], new, torch.zeros_like(new))
            result[:, first + k] = new
            error = (value - new) / part[k, k]
            errors[:, k] = error
            if k + 1 < last - first:
                block[:, k + 1 :] -= error[:, None] * part[k, k + 1 :]
        if last < inputs:
            work[:, last:] -= errors @ factor[first:last, last:]
    back = torch.argsort(order)
    return result[:, back], None if codes is None else codes[:, back]


def _mask(block: Tensor, diagonal: Tensor, density: Density) -> Tensor:
    """True where a weight of the block stays, by the share of the density (a pattern is chosen as it goes)."""
    if density.dense or density.of:
        return torch.ones_like(block, dtype=torch.bool)
    loss = block.square() / diagonal.square()
    taken = round((1 - density.share) * loss.numel())
    if taken == 0:
        return torch.ones_like(block, dtype=torch.bool)
    threshold = loss.flatten().kthvalue(taken).values
    return loss > threshold


def _pattern(block: Tensor, diagonal: Tensor, kept: int) -> Tensor:
    """The `kept` weights of each output in a group of inputs that are dearest to lose."""
    loss = block.square() / diagonal.square()
    mask = torch.zeros_like(block, dtype=torch.bool)
    return mask.scatter_(1, loss.topk(kept, dim=1).indices, True)
