"""Adapters that take the largest weights over: what is left in the cells has a smaller range, and so smaller errors.

A crossbar's scale is its largest weight, and a cell's error, like the rounding of an ADC's code, is a share of that
scale.  A product of rank r that is digital and exact, as adapters are, can hold a matrix L so that the cells hold the
remainder W - L: here the L that makes the largest magnitude of W - L small in every crossbar.  The sum is the layer's
old product.  L depends on the base weights alone, so that cells which are written once serve every task, and it stays
as it is while adapters are trained beside it.

L is found by turns: what exceeds a cap, block by block, is fitted by a product of rank r (one step of subspace
iteration from the last one), and the cap falls by 1.5 % a turn; the best of all turns is kept, by the mean square of
the blocks' scales.  It is zero where no turn was better than that.

Limits: a heuristic, not the least scale that is possible.  The digital part costs r (inputs + outputs) products a
token.  It helps as far as a product of rank r can follow the large weights: much in small or strongly trained layers,
less in a large matrix of independent weights.
Sources: LoftQ (Li et al., ICLR 2024) and PiSSA (Meng et al., NeurIPS 2024) start adapters as a part of the weight so
that the rest is quantized with less error; they take the part of largest norm.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tierform.errors import fail
from tierform.numerics.emulation import crossbar_layers
from tierform.numerics.placement import role_of

_TURNS, _FALL = 200, 0.985


@dataclass(frozen=True, slots=True)
class Peaks:
    """What adapters take over: `up` (outputs, rank) times `down` (rank, inputs)."""

    up: Tensor
    down: Tensor

    @property
    def rank(self) -> int:
        """Columns of `up`, rows of `down`."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        return self.up.shape[0], self.down.shape[1]

    @property
    def product(self) -> Tensor:
        """(outputs, inputs), to be taken off the weight."""
        return self.up @ self.down


def take_peaks(
    model: nn.Module,
    rank: int,
    targets: Collection[str] = ("all",),
    *,
    energies: Mapping[str, Tensor] | None = None,
) -> dict[str, Peaks]:
    """For every emulated layer with one of the parts `targets`, by its name, what adapters of this rank take over.

    `energies` has the mean square of each layer's inputs, by which blocks are weighed (by default the layer's own,
    where the model was emulated with a calibration).  Layers with a scale by column have blocks of one output.  What
    of a layer is digital anyway (channels, single weights) does not count.
    TierformError when the model has no crossbars, whose blocks decide what is large.
    """
    layers = {layer.layer_name: layer for layer in crossbar_layers(model)}
    if not layers:
        fail(
            "only an emulated model has crossbars whose range can be made smaller",
            key="peak_rank",
            value=rank,
            fix="Call emulate first.",
        )
    if rank < 1:
        fail("what holds the large weights has a rank of at least 1", key="peak_rank", value=rank)
    wanted = set(targets)
    found = {}
    for name, layer in layers.items():
        if "all" not in wanted and not role_of(name)[1] & wanted:
            continue
        rest, energy = layer.matrix.float(), layer.energy if energies is None else energies.get(name)
        if layer.part is not None:
            rest = rest - layer.part.dense((layer.out_features, layer.in_features)).to(rest.device)
            if energy is not None:  # digital channels drive no cell
                energy = energy.index_fill(0, layer.part.channels.to(energy.device), 0.0)
        outputs = 1 if layer.quantizer.granularity == "column" else layer.form.weights_per_row
        found[name] = smallest_range(rest, rank, outputs, layer.form.rows, energy=energy)
    return found


def block_peaks(matrix: Tensor, outputs: int, inputs: int) -> Tensor:
    """The largest magnitude of its block of `outputs` x `inputs`, for every element of a matrix."""
    rows, columns = matrix.shape
    padded = nn.functional.pad(matrix.abs(), (0, -columns % inputs, 0, -rows % outputs))
    tall, wide = padded.shape[0] // outputs, padded.shape[1] // inputs
    peaks = padded.reshape(tall, outputs, wide, inputs).amax((1, 3))
    spread: Tensor = peaks.repeat_interleave(outputs, 0).repeat_interleave(inputs, 1)[:rows, :columns]
    return spread


def smallest_range(
    weight: Tensor, rank: int, outputs: int, inputs: int, *, turns: int = _TURNS, energy: Tensor | None = None
) -> Peaks:
    """The product of at most this rank without which the blocks of a weight (outputs, inputs) have small scales.

    `energy` (inputs,) is the mean square of each input: a block's scale then counts by the energy of the inputs that
    meet it, because a cell's error is multiplied by its input.
    """
    if energy is not None:
        # Every input of a block is weighed alike, so that the largest weight of a block stays the largest.
        padded = nn.functional.pad(energy.to(weight.device), (0, -len(energy) % inputs)).reshape(-1, inputs)
        by_input = padded.mean(1).clamp(min=1e-12).sqrt().repeat_interleave(inputs)[: weight.shape[1]]
        by_input = by_input / by_input.mean()
        found = smallest_range(weight * by_input, rank, outputs, inputs, turns=turns)
        return _balanced(Peaks(found.up, found.down / by_input), rank)
    rank_here = min(rank, *weight.shape)
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(weight.shape[1], rank_here, generator=generator).to(weight.device)
    for _ in range(4):  # the directions of largest norm, to begin with
        basis = torch.linalg.qr(weight.T @ (weight @ basis))[0]
    up, right = _fit(weight, basis)
    best = Peaks(torch.zeros_like(up), torch.zeros_like(right.T))
    peaks = block_peaks(weight, outputs, inputs)
    least = float(peaks.square().mean())
    cap = block_peaks(weight - up @ right.T, outputs, inputs)
    for _ in range(turns):
        rest = weight - up @ right.T
        size = float(block_peaks(rest, outputs, inputs).square().mean())
        if size < least:
            least, best = size, Peaks(up, right.T.contiguous())
        cap = cap * _FALL
        up, right = _fit(weight - rest.clamp(-cap, cap), right)
    return _balanced(best, rank)


def _fit(target: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """One step of subspace iteration: orthonormal `up` and the `right` that is best with it."""
    up = torch.linalg.qr(target @ basis)[0]
    return up, target.T @ up


def _balanced(peaks: Peaks, rank: int) -> Peaks:
    """The same product with factors of the same size, padded with zeros to the rank."""
    scale = peaks.down.norm(dim=1).clamp(min=1e-12).sqrt()
    up, down = peaks.up * scale, peaks.down / scale[:, None]
    missing = rank - down.shape[0]
    return Peaks(nn.functional.pad(up, (0, missing)), nn.functional.pad(down, (0, 0, 0, missing)))
