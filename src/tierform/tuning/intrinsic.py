"""In how few dimensions can training go on?  Random-subspace training after Li et al. (ICLR 2018).

From the present weights w, train z in w + P z with a random P and d numbers in z, for rising d; the intrinsic dimension
is the smallest d whose loss falls by at least `share` of what training the same weights in full achieves in as many
steps.  P has one entry of random sign in each row (a sparse projection with orthogonal columns), so its memory is one
number per weight.  Limits: measured on a few recent batches and with dropout off; when full training lowers the loss no
further, or no d tried is enough, the dimension is unknown (None).  The model and the random generators are left as
they were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def intrinsic_dimension(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    batches: Sequence[object],
    weights: Sequence[str],
    *,
    dimensions: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    steps: int = 20,
    learning_rate: float = 1e-2,
    share: float = 0.9,
    seed: int = 0,
) -> int | None:
    """The smallest of `dimensions` that is enough for the named parameters, or None."""
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            start = _mean(model, loss, batches, {})
            start_values = {name: model.get_parameter(name).detach() for name in weights}
            full = {name: one.clone().requires_grad_(True) for name, one in start_values.items()}
            aim = share * (
                start - _train(model, loss, batches, list(full.values()), lambda: full, steps, learning_rate)
            )
            if not aim > 0:
                return None
            for dimension in sorted(dimensions):
                if (
                    start - _in_subspace(model, loss, batches, start_values, dimension, steps, learning_rate, seed)
                    >= aim
                ):
                    return dimension
            return None
    finally:
        model.train(was_training)


def _in_subspace(
    model: nn.Module,
    loss: object,
    batches: Sequence[object],
    start: dict[str, Tensor],
    dimension: int,
    steps: int,
    learning_rate: float,
    seed: int,
) -> float:
    generator = torch.Generator().manual_seed(seed)
    z = torch.zeros(dimension, device=next(iter(start.values())).device, requires_grad=True)
    maps = {}
    for name, one in start.items():
        place = torch.randint(dimension, (one.numel(),), generator=generator).to(one.device)
        sign = (2 * torch.randint(2, (one.numel(),), generator=generator) - 1).to(one)
        maps[name] = (place, sign)

    def values() -> dict[str, Tensor]:
        return {name: one + (z[maps[name][0]] * maps[name][1]).view_as(one) for name, one in start.items()}

    return _train(model, loss, batches, [z], values, steps, learning_rate)


def _train(
    model: nn.Module,
    loss: Any,
    batches: Sequence[Any],
    learning: list[Tensor],
    values: Callable[[], dict[str, Tensor]],
    steps: int,
    learning_rate: float,
) -> float:
    optimizer = torch.optim.Adam(learning, lr=learning_rate)
    best = _mean(model, loss, batches, {name: one.detach() for name, one in values().items()})
    for step in range(steps):
        value = loss(_Bound(model, values()), batches[step % len(batches)])
        for one, gradient in zip(learning, torch.autograd.grad(value, learning), strict=True):
            one.grad = gradient
        optimizer.step()
        if (step + 1) % len(batches) == 0 or step + 1 == steps:
            best = min(best, _mean(model, loss, batches, {name: one.detach() for name, one in values().items()}))
    return best


class _Bound:
    """The model with some parameters replaced, callable as the model is."""

    def __init__(self, model: nn.Module, values: dict[str, Tensor]) -> None:
        self._model, self._values = model, values

    def __call__(self, *args: object, **kwargs: object) -> object:
        return functional_call(self._model, self._values, args, kwargs)


def _mean(model: nn.Module, loss: Any, batches: Sequence[Any], values: dict[str, Tensor]) -> float:
    with torch.no_grad():
        return float(sum(loss(_Bound(model, values), batch) for batch in batches) / len(batches))
