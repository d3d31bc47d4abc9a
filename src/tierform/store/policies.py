"""Policies: which precision each group of weights is read at, for a token.

``uniform``     every group at the same whole number of bits.
``static``      by sensitivity from calibration, once for all tokens.
``shuffled``    the static policy's bits given to groups of the same size by lot: what the mix of bits does by itself.
``activation``  as static, and in the columns of out_proj and fc2 token by token by the energy of the activation that
                comes in, which is known before the matrix is read.
``predictor``   the same by an energy that a low-rank map predicts from the input of the layer before (in the manner of
                Deja Vu, Liu et al., ICML 2023), early enough to fetch ahead.

Only columns change from token to token: what a group of columns adds to the result is proportional to what comes in.
For rows nothing like it holds: keys and values serve later tokens, a query's weight is not its head's output, and an
error in a neuron that is off does not shrink with its activation.  Giving rows bits by activity was tried and raised
the perplexity, even with the true activity.

All but ``uniform`` take a budget in average bits.  The static allocation gives every matrix its share in whole bits;
each token then spends exactly that share within the matrix, so every token reads the same number of bytes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.store.importance import PrecisionTrace, Predictor, allocate, allocate_steps, fit_predictor
from tierform.store.language_model import Calibration, PlanedModel, Site, group_energy

Kind = Literal["uniform", "shuffled", "static", "activation", "predictor"]
KINDS: tuple[Kind, ...] = ("uniform", "shuffled", "static", "activation", "predictor")


class Predictors:
    """One low-rank predictor for each layer and half of it (attention, feed-forward), from the layer before's input."""

    def __init__(self, planed: PlanedModel, calibration: Calibration, rank: int = 8) -> None:
        """Fit on the calibration's material; `explained` has each one's share of variance on held-out tokens."""
        self.of: dict[str, Predictor] = {}
        self.explained: dict[str, float] = {}
        for site in planed.sites:
            if not site.by_columns:
                continue
            inputs = calibration.inputs[max(site.layer - 1, 0)]
            relative = calibration.energies[site.name] / calibration.mean_energy[site.name]
            self.of[site.name], self.explained[site.name] = fit_predictor(inputs, relative, rank)


class Policy:
    """Decides precisions while a :class:`PlanedModel` runs, and keeps the trace of its decisions."""

    def __init__(
        self,
        kind: Kind,
        planed: PlanedModel,
        average_bits: float,
        calibration: Calibration | None = None,
        predictors: Predictors | None = None,
        seed: int = 0,
    ) -> None:
        """`average_bits` is whole for ``uniform``; the others need the calibration, ``predictor`` its predictors.

        `seed` draws the lots of ``shuffled``.
        """
        if kind not in KINDS:
            fail("unknown policy", key="policy", value=kind, choices=KINDS, fix=f"One of {', '.join(KINDS)}.")
        if kind != "uniform" and calibration is None:
            fail("this policy needs a calibration", key="policy", value=kind)
        if kind == "predictor" and predictors is None:
            fail("this policy needs predictors", key="policy", value=kind)
        self.kind, self.planed, self.average_bits = kind, planed, average_bits
        self._calibration, self._predictors = calibration, predictors
        sizes = [group.weights for group in planed.groups]
        if kind == "uniform":
            if average_bits != int(average_bits):
                fail("uniform precision is a whole number of bits", key="average_bits", value=average_bits)
            whole = np.full(len(sizes), int(average_bits), np.uint8)
        else:
            assert calibration is not None
            whole = allocate(calibration.sensitivity, sizes, planed.error, planed.lowest, average_bits)
            if kind == "shuffled":
                lot, each = np.random.default_rng(seed), np.array(sizes)
                for size in np.unique(each):
                    whole[each == size] = lot.permutation(whole[each == size])
        self.whole = whole
        self._static: dict[str, NDArray[np.uint8]] = {}
        self._sensitivity: dict[str, NDArray[np.float64]] = {}
        at = 0
        for site in planed.sites:
            self._static[site.name] = whole[at : at + site.count]
            if calibration is not None:
                self._sensitivity[site.name] = calibration.sensitivity[at : at + site.count]
            at += site.count
        self._trace: dict[str, list[NDArray[np.uint8]]] = {site.name: [] for site in planed.sites}
        self._entering: dict[int, NDArray[np.float32]] = {}

    def bits_of(self, site: Site, inputs: torch.Tensor) -> torch.Tensor:
        """The precision of each of the site's groups for each token of `inputs` ([token or 1, group])."""
        relative = self._relative_energy(site, inputs)
        if relative is None:
            bits = self._static[site.name][None, :]
        else:
            importance = relative * self._sensitivity[site.name]
            total = int(self._static[site.name].sum())
            bits = allocate_steps(importance, self.planed.error, self.planed.lowest, total)
        self._trace[site.name].append(np.broadcast_to(bits, (len(inputs), site.count)))
        return torch.from_numpy(bits.astype(np.int64))

    def _relative_energy(self, site: Site, inputs: torch.Tensor) -> NDArray[np.float64] | None:
        calibration = self._calibration
        if self.kind not in ("activation", "predictor") or calibration is None or not site.by_columns:
            return None
        if self.kind == "predictor":
            assert self._predictors is not None
            return self._predictors.of[site.name](self._entering[max(site.layer - 1, 0)])
        return group_energy(site, inputs).numpy().astype(np.float64) / calibration.mean_energy[site.name]

    def perplexity(self, windows: int) -> float:
        """The test text's perplexity under this policy; the trace of it is kept."""
        return float(np.exp(self.losses(windows).mean()))

    def losses(self, windows: int) -> NDArray[np.float64]:
        """The mean loss of each window of the test text under this policy; the trace of it is kept."""
        handles = []
        for number, layer in enumerate(self.planed.layers):

            def enter(
                _: object, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor], n: int = number
            ) -> None:
                states = given[0] if given else named["hidden_states"]
                self._entering[n] = states.detach().reshape(-1, states.shape[-1]).numpy()

            handles.append(layer.register_forward_pre_hook(enter, with_kwargs=True))
        try:
            with self.planed.reading(self.bits_of):
                return self.planed.losses(windows)
        finally:
            for handle in handles:
                handle.remove()

    def trace(self, steps: int | None = None) -> PrecisionTrace:
        """What was read, all tokens or the first `steps`."""
        lines = [np.concatenate(self._trace[site.name]) for site in self.planed.sites]
        bits = np.concatenate(lines, axis=1)[:steps]
        return PrecisionTrace(self.planed.groups, bits, 16)
