"""Which input channels stay digital: those whose cells' errors would cost the whole model's loss most.

Every layer's cells err independently, by a share of their crossbar's scale.  An error e in one output y of a layer
raises the loss by about half of g² e² in the mean, with g the gradient of the loss at y (the Gauss-Newton term; what is
linear in e is zero in the mean).  Cells of input channel k add errors with the variance (scale x_k)² to every output,
so that the channel's influence is

    sum over tokens t, outputs n of (g[t, n] * scale[n, k] * x[t, k])²,

with the scale of the crossbar column (or crossbar) that holds the weight of n and k.  A channel costs as many digital
products as its layer has outputs.  Channels of all layers are taken by influence over cost until a share of the model's
products is digital: layers on which the loss depends get many, others none.

Limits: gradients are those of the calibration text; scales are those of all channels (those of the ones that are left
can only be smaller); converters' rounding, which does not depend on a single channel, is left out.
Sources: LeCun et al., Optimal Brain Damage (1990), for second-order influence; Dettmers et al., LLM.int8() (2022), for
digital channels.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from tierform.errors import fail
from tierform.numerics.digital import DigitalShare
from tierform.numerics.placement import StaticLinear, static_linears
from tierform.numerics.remainder import block_peaks


def channel_influences(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], rows: int, outputs: int = 1
) -> dict[str, Tensor]:
    """By layer the influence (inputs,) of each input channel; `loss(model)` computes a loss on calibration inputs.

    `rows` and `outputs` are the block that shares a scale: a crossbar's rows, and one output (a scale by column) or as
    many as a crossbar holds.
    """
    found: dict[str, Tensor] = {}
    handles = []
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for linear in static_linears(model):
        weight = linear.module.weight
        assert isinstance(weight, Tensor)
        matrix = (weight.T if linear.transposed else weight).detach().float()
        found[linear.name] = torch.zeros(matrix.shape[1], device=matrix.device)
        handles.append(linear.module.register_forward_hook(_noting(found[linear.name], matrix, rows, outputs)))
    try:
        for parameter, _ in trained:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            loss(model).backward()  # type: ignore[no-untyped-call]
    finally:
        for handle in handles:
            handle.remove()
        for parameter, flag in trained:
            parameter.requires_grad_(flag)
    return found


def _noting(total: Tensor, matrix: Tensor, rows: int, outputs: int) -> Callable[..., Tensor]:
    """A hook that adds to `total` what a pass backwards says of one layer."""

    def note(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        x = given[0].detach().reshape(-1, matrix.shape[1]).float()

        def add(gradient: Tensor) -> None:
            g = gradient.detach().reshape(-1, matrix.shape[0]).float().square()
            for first in range(0, matrix.shape[1], rows):
                held = matrix[:, first : first + rows]
                scale = block_peaks(held, outputs, rows)[:, 0]
                total[first : first + rows] += (g @ scale.square()) @ x[:, first : first + rows].square()

        tracked = out + out.new_zeros(1, requires_grad=True)  # has a gradient though no weight has
        tracked.register_hook(add)  # type: ignore[no-untyped-call]
        return tracked

    return note


def share_by_influence(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    share: float,
    *,
    rows: int = 128,
    outputs: int = 1,
    beside: DigitalShare | None = None,
) -> DigitalShare:
    """At most this share of all products digital, as input channels by influence; `beside` says what else is digital.

    What is `beside` comes on top; its own `channels` are not counted twice, they are replaced.
    """
    if not 0 < share < 1:
        fail("a share between 0 and 1 is needed", key="digital_influence", value=share)
    influences = channel_influences(model, loss, rows, outputs)
    if not influences:
        fail("the model has no linear layer that crossbars could hold", value=type(model).__name__)
    for pattern in () if beside is None else beside.layers:  # these have no crossbars
        influences = {name: one for name, one in influences.items() if not fnmatch.fnmatchcase(name, pattern)}
    costs = {linear.name: _outputs_of(linear) for linear in static_linears(model)}
    places = [(name, channel) for name, found in influences.items() for channel in range(len(found))]
    worth = torch.cat([found.cpu() / costs[name] for name, found in influences.items()])
    left = share * sum(costs[name] * len(found) for name, found in influences.items())
    chosen: dict[str, list[int]] = {name: [] for name in influences}
    for place in worth.argsort(descending=True, stable=True).tolist():
        name, channel = places[place]
        if costs[name] > left:
            break
        left -= costs[name]
        chosen[name].append(channel)
    named = tuple((name, tuple(sorted(channels))) for name, channels in chosen.items())
    return replace(beside or DigitalShare(), channels=0, named=named)


def _outputs_of(linear: StaticLinear) -> int:
    weight = linear.module.weight
    assert isinstance(weight, Tensor)
    return int(weight.shape[1] if linear.transposed else weight.shape[0])
