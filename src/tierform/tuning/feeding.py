"""Samples to batches by step, the loss of the applications, and their test error.

The batch of a step depends on the step and the seed alone: each epoch is a new permutation, so a run can go on at any
step.  The loss is the mean squared error of the scaled targets; the Nash-Sutcliffe efficiency (hydrology's R squared)
is one less the ratio of squared error to the targets' variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tierform.errors import fail
from tierform.tuning.tables import Samples


class ShuffledBatches:
    """Batches of `size` samples; what is left of an epoch that does not fill a batch is skipped."""

    def __init__(self, samples: Samples, size: int = 1, seed: int = 0) -> None:
        if not 1 <= size <= len(samples):
            fail(
                "a batch holds at least one and at most all samples",
                key="batch",
                value=size,
                fix=f"There are {len(samples)} samples.",
            )
        self.inputs, self.targets = torch.from_numpy(samples.inputs), torch.from_numpy(samples.targets)
        self.size, self.seed = size, seed
        self.per_epoch = len(samples) // size
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.inputs))
        rows = torch.from_numpy(self._order[place * self.size : (place + 1) * self.size])
        return self.inputs[rows], self.targets[rows]


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared error of a batch."""
    return nn.functional.mse_loss(model(batch[0]), batch[1])


def error_on(
    model: nn.Module, samples: Samples, size: int = 64, loss: Callable[[Any, Any], Tensor] = squared_error
) -> dict[str, float]:
    """Root mean squared error in the targets' own unit, mean squared error as scaled, Nash-Sutcliffe efficiency."""
    was, total = model.training, 0.0
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        for start in range(0, len(samples), size):
            part = slice(start, start + size)
            inputs, targets = (torch.from_numpy(one[part]).to(device) for one in (samples.inputs, samples.targets))
            total += float(loss(model, (inputs, targets))) * len(inputs)
    model.train(was)
    mse = total / len(samples)
    return {"mse": mse, "rmse": samples.scale * mse**0.5, "nse": 1 - mse / float(np.var(samples.targets))}
