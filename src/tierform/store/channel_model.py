"""A model whose matrices are nested integers, read at a precision by input channel and token, run for real.

``uniform`` reads every channel at the same number of planes; ``static`` decides once, by the mean square of each
channel's input on calibration text; ``dynamic`` decides for every token by the token's own inputs.  ``together``
channels may share one depth, and ``batch`` tokens, which are computed at once, one reading of the weights: then the sum
of their squared inputs decides.  Every token spends the same planes: equally in every matrix, or ``shared`` over the
matrices as their outputs matter (:mod:`tierform.store.channel_shares`), which calibration decides once.

Embeddings, head, normalizations and biases stay exact.  Models are any decoder or encoder that
:mod:`tierform.compression.sites` can take apart.  Products are made in float32, once a depth: this measures quality;
speed is measured by :mod:`tierform.store.channel_decoding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tierform.arrays import Floats
from tierform.compression.sites import Site, anatomy
from tierform.errors import fail
from tierform.store.channel_rule import allocate, plane_worth
from tierform.store.channel_shares import error_curve, share
from tierform.store.nested import PLANES, NestedMatrix, nest

Rule = Literal["uniform", "static", "dynamic"]
SAMPLE = 128  # tokens on which curves of error are measured
RULES: tuple[Rule, ...] = ("uniform", "static", "dynamic")


@dataclass(slots=True)
class ChannelSite:
    """One matrix: its nested integers, the worth of each channel's planes, and what calibration saw.

    `mean_square` of each channel's input; `squares` [token, channel] of some tokens' inputs; `sensitivity`, the mean
    square of the loss' gradient at an output.
    """

    site: Site
    nested: NestedMatrix
    worth: NDArray[np.float32]
    mean_square: NDArray[np.float32] | None = None
    squares: NDArray[np.float32] | None = None
    sensitivity: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """How weights are read: a rule, the average planes, channels that share a depth, tokens that share a reading.

    `shared`: matrices have different averages, so that all of them together have `planes`.
    """

    rule: Rule
    planes: float
    together: int = 1
    batch: int = 1
    shared: bool = False

    def check(self) -> None:
        """TierformError when it cannot be."""
        if self.rule not in RULES:
            fail("unknown rule", key="rule", value=self.rule, choices=RULES, fix=f"Known: {', '.join(RULES)}.")
        if self.rule == "uniform" and self.planes != int(self.planes):
            fail("a uniform depth is a whole number of planes", key="planes", value=self.planes)
        if self.rule == "uniform" and self.shared:
            fail("a uniform depth is not shared over matrices", key="shared", value=self.shared)
        if not 0 < self.planes <= PLANES or self.together < 1 or self.batch < 1:
            fail(f"above 0 and at most {PLANES} planes, and whole groups, are read", key="planes", value=self.planes)


class ChannelModel:
    """A model with its matrices as nested integers; :meth:`reading` sets how they are read."""

    def __init__(self, model: nn.Module, group: int = 64, *, say: Callable[[str], None] | None = None) -> None:
        """The model itself is not changed."""
        self.model = model
        self.sites: list[ChannelSite] = []
        self._averages: dict[Reading, Floats] = {}
        for site in anatomy(model).sites:
            if say is not None:
                say(f"nested integers: {site.name}")
            exact = site.matrix.numpy()
            nested = nest(exact, group)
            self.sites.append(ChannelSite(site, nested, plane_worth(nested.channel_errors(exact))))

    @property
    def weights(self) -> int:
        """Weights of all matrices."""
        return sum(one.nested.codes.size for one in self.sites)

    def calibrate(self, run: Callable[[], object]) -> None:
        """Note the mean square of each channel's input while `run` runs the model on calibration inputs."""
        sums: dict[int, tuple[NDArray[np.float64], int]] = {}
        handles = []
        for number, one in enumerate(self.sites):

            def note(_: nn.Module, given: tuple[Tensor, ...], number: int = number) -> None:
                flat = given[0].detach().reshape(-1, given[0].shape[-1])
                found, tokens = sums.get(number, (np.zeros(flat.shape[1]), 0))
                sums[number] = found + flat.square().sum(0).double().numpy(), tokens + len(flat)

            handles.append(one.site.module.register_forward_pre_hook(note))
        try:
            with torch.no_grad():
                run()
        finally:
            for handle in handles:
                handle.remove()
        for number, one in enumerate(self.sites):
            total, tokens = sums[number]
            one.mean_square = (total / tokens).astype(np.float32)

    def weigh(self, run: Callable[[int], Tensor], times: int = 1) -> None:
        """Note how much the outputs of each matrix matter: by the gradients of the scalar that `run` gives.

        Of a decoder that is the loss of labels drawn from its own answers (the Fisher matrix' diagonal).  `run` is
        called so many `times`, with the number of the time, and squares are averaged.
        """
        sums = np.zeros(len(self.sites))
        inputs: list[list[NDArray[np.float32]]] = [[] for _ in self.sites]
        tokens = np.zeros(len(self.sites))
        handles = []
        for number, one in enumerate(self.sites):

            def note(_: nn.Module, given: tuple[Tensor, ...], out: Tensor, number: int = number) -> None:
                flat = given[0].detach().reshape(-1, given[0].shape[-1])
                tokens[number] += len(flat)
                if not inputs[number]:
                    inputs[number].append(flat[:: max(1, len(flat) // SAMPLE)].square().numpy())

                def arrived(gradient: Tensor) -> None:
                    sums[number] += float(gradient.square().mean(dim=-1).sum())

                out.register_hook(arrived)  # type: ignore[no-untyped-call]

            handles.append(one.site.module.register_forward_hook(note))
        try:
            with torch.enable_grad():
                for time in range(times):
                    run(time).backward()  # type: ignore[no-untyped-call]
                    self.model.zero_grad(set_to_none=True)
        finally:
            for handle in handles:
                handle.remove()
            self.model.zero_grad(set_to_none=True)
        for number, one in enumerate(self.sites):
            one.sensitivity = sums[number] / max(tokens[number], 1)
            one.squares = np.ascontiguousarray(np.concatenate(inputs[number])[:SAMPLE], np.float32)
        self._averages.clear()

    def averages(self, how: Reading) -> Floats:
        """Average planes of each matrix."""
        if not how.shared:
            return np.full(len(self.sites), how.planes)
        if how not in self._averages:
            costs = []
            for one in self.sites:
                if one.squares is None:
                    fail("planes are shared by what calibration weighed", key="shared", value=how.shared)
                curve = error_curve(one.squares, one.worth, together=how.together, static=how.rule == "static")
                costs.append(curve * one.sensitivity)
            self._averages[how] = share(costs, [one.nested.codes.size for one in self.sites], how.planes)
        return self._averages[how]

    @contextmanager
    def reading(self, how: Reading) -> Iterator[None]:
        """Within this block the model computes with weights read as told."""
        how.check()
        handles = []
        for one, planes in zip(self.sites, self.averages(how).tolist(), strict=True):

            def replaced(
                _: nn.Module, given: tuple[Tensor, ...], __: object, one: ChannelSite = one, planes: float = planes
            ) -> Tensor:
                inputs = given[0]
                depth = self.depths(one, inputs, replace(how, planes=planes))
                y = product(one.nested, inputs.reshape(-1, inputs.shape[-1]), depth)
                bias: Any = one.site.module.bias
                y = y if bias is None else y + bias
                return y.view(*inputs.shape[:-1], -1)

            handles.append(one.site.module.register_forward_hook(replaced))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def depths(self, one: ChannelSite, inputs: Tensor, how: Reading) -> NDArray[np.uint8]:
        """Planes of each channel, [token or 1, channel], for inputs (..., channel)."""
        channels = inputs.shape[-1]
        if how.rule == "uniform":
            return np.full((1, channels), int(how.planes), np.uint8)
        if how.rule == "static":
            if one.mean_square is None:
                fail("a static rule needs a calibration", key="rule", value=how.rule)
            return allocate(one.mean_square[None], one.worth, how.planes, together=how.together)
        squares = inputs.detach().square()
        if how.batch > 1:  # sequences stand along the first axis: the same place of `batch` of them is one reading
            sequences = squares.shape[0]
            if sequences % how.batch:
                fail("whole batches of sequences are needed", key="batch", value=(sequences, how.batch))
            summed = squares.reshape(-1, how.batch, *squares.shape[1:]).sum(1, keepdim=True)
            squares = summed.expand(-1, how.batch, *squares.shape[1:])
        importance = squares.reshape(-1, channels).contiguous().numpy()
        return allocate(importance, one.worth, how.planes, together=how.together)


def product(nested: NestedMatrix, x: Tensor, depth: NDArray[np.uint8]) -> Tensor:
    """Inputs [token, channel] times the matrix read at `depth` [token or 1, channel]: a product for each depth."""
    chosen = torch.from_numpy(depth)
    y = torch.zeros(len(x), nested.shape[0])
    for planes in np.flatnonzero(np.bincount(depth.reshape(-1), minlength=PLANES + 1)).tolist():
        if planes:
            y += (x * (chosen == planes)) @ torch.from_numpy(nested.values(planes)).T
    return y
