"""What of a layer stays digital beside its crossbars: input channels, single weights, or the whole layer.

An input channel with massive activations makes the scale of a token's inputs coarse, and its column errors large; a few
such channels of a layer are multiplied digitally and their rows in the crossbars hold zero.  A few single weights of
largest size (outliers) are likewise taken off: what is left in each crossbar has a smaller range.  Channels are chosen
by the energy that they bring into the layer's error, (root mean square of the input)^2 times the square of its largest
weight, measured on calibration inputs; weights by magnitude times input.

Sources: Dettmers et al., LLM.int8() (NeurIPS 2022), for outlier channels; Dettmers et al., SpQR (ICLR 2024), for single
weights; Sun et al., Massive Activations (COLM 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tierform.errors import fail
from tierform.numerics.placement import StaticLinear


@dataclass(frozen=True, slots=True)
class DigitalShare:
    """What stays digital: input `channels` of every layer, a share of single `weights`, `layers` by name patterns.

    `named` names the channels of single layers, which then have no other ones (`tierform.numerics.influence`).
    """

    channels: int = 0
    weights: float = 0.0
    layers: tuple[str, ...] = ()
    named: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        if self.channels < 0:
            fail("a number of input channels is needed", key="digital_channels", value=self.channels)
        if not 0 <= self.weights < 1:
            fail("a share from 0 to below 1 is needed", key="digital_weights", value=self.weights)

    @property
    def none(self) -> bool:
        """Whether no part of an emulated layer is digital."""
        return self.channels == 0 and self.weights == 0 and not self.named

    def channels_of(self, layer: str) -> tuple[int, ...] | None:
        """The channels that a layer was given by name; None where its energies decide."""
        return next((channels for name, channels in self.named if name == layer), None)


@dataclass(slots=True)
class DigitalPart:
    """One layer's digital part: its channels and their weights (outputs, channels), and single weights (sparse)."""

    channels: Tensor
    columns: Tensor
    single: Tensor | None
    singles: int

    @property
    def products(self) -> int:
        """Digital multiplications of one input vector."""
        return self.columns.numel() + self.singles

    def times(self, x: Tensor) -> Tensor:
        """What inputs (M, inputs) give with the digital part, (M, outputs)."""
        y = x[:, self.channels] @ self.columns.T
        if self.single is not None:
            y = y + torch.sparse.mm(self.single, x.T.contiguous()).T
        return y

    def dense(self, shape: tuple[int, int]) -> Tensor:
        """As a matrix (outputs, inputs)."""
        found = torch.zeros(shape) if self.single is None else self.single.to_dense()
        found[:, self.channels] += self.columns
        return found


def take_digital(
    matrix: Tensor, share: DigitalShare, energy: Tensor | None, layer: str = ""
) -> tuple[Tensor, DigitalPart]:
    """The matrix (outputs, inputs) of a `layer` without its digital part, and that part.

    `energy` (inputs,) is the mean square of each input; without it all inputs count the same.
    """
    outputs, inputs = matrix.shape
    size = torch.ones(inputs) if energy is None else energy.to(matrix.device)
    rest = matrix.clone()
    named = share.channels_of(layer)
    if named is None:
        count = min(share.channels, inputs)
        chosen = (size * matrix.abs().amax(0).square()).topk(count).indices.sort().values
    else:
        chosen = torch.tensor(named, dtype=torch.int64, device=matrix.device)
        if wrong := [channel for channel in named if not 0 <= channel < inputs]:
            fail("the layer has no such input channel", key=layer, value=wrong[0], fix=f"It has {inputs}.")
    columns = rest[:, chosen].contiguous()
    rest[:, chosen] = 0
    singles = round(share.weights * matrix.numel())
    single = None
    if singles:
        score = (rest * size.sqrt()).abs().flatten()
        places = score.topk(singles).indices
        index = torch.stack([places // inputs, places % inputs])
        single = torch.sparse_coo_tensor(index, rest.flatten()[places], (outputs, inputs)).coalesce().to_sparse_csr()
        rest.view(-1)[places] = 0
    return rest, DigitalPart(chosen, columns, single, singles)


def input_energies(
    model: nn.Module, linears: list[StaticLinear], run: Callable[[nn.Module], object]
) -> dict[str, Tensor]:
    """The mean square (inputs,) of every layer's inputs while `run(model)` computes on calibration inputs."""
    sums: dict[str, tuple[Tensor, int]] = {}
    handles = []
    for linear in linears:

        def note(_: nn.Module, given: tuple[Tensor, ...], name: str = linear.name) -> None:
            flat = given[0].detach().reshape(-1, given[0].shape[-1]).float()
            found, count = sums.get(name, (torch.zeros(flat.shape[1], device=flat.device), 0))
            sums[name] = found + flat.square().sum(0), count + len(flat)

        handles.append(linear.module.register_forward_pre_hook(note))
    try:
        with torch.no_grad():
            run(model)
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / count for name, (total, count) in sums.items()}


def digital_shares(products: Mapping[str, tuple[int, int]]) -> float:
    """The share of all multiplications that is digital, from (digital, all) of each layer."""
    total = sum(every for _, every in products.values())
    return sum(digital for digital, _ in products.values()) / total if total else 0.0
