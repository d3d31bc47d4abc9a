"""How good a compressed model is, with intervals over windows of a test text.

Per window: the mean loss a token (its exponential is the perplexity), how often the most likely token is the
reference model's, the Kullback-Leibler divergence from it, and the acceptance as a draft, the sum over tokens of
min(p, q) (Leviathan et al., 2023, corollary 3.6).  Intervals are Student's t at 95 % over windows; differences of
losses are paired by window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tierform.arrays import Floats
from tierform.errors import fail
from tierform.numerics.accuracy import interval

_SHARE_PER_PASS = 64  # tokens whose probabilities are compared at once: bounds the memory


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over windows and the half width of its 95 % interval."""

    mean: float
    half_width: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Estimate:
        """From one value a window."""
        return cls(*interval([float(one) for one in values]))

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return abs(self.mean) > self.half_width > 0


@dataclass(frozen=True, slots=True)
class Quality:
    """Losses of each window, and the comparison with a reference where there was one."""

    losses: tuple[float, ...]
    agreement: Estimate | None = None
    divergence: Estimate | None = None
    acceptance: Estimate | None = None

    @property
    def loss(self) -> Estimate:
        """Nats a token."""
        return Estimate.of(self.losses)

    @property
    def perplexity(self) -> float:
        """The exponential of the mean loss."""
        return math.exp(sum(self.losses) / len(self.losses))

    @property
    def perplexity_interval(self) -> tuple[float, float]:
        """The 95 % interval of the perplexity, from that of the loss."""
        loss = self.loss
        return math.exp(loss.mean - loss.half_width), math.exp(loss.mean + loss.half_width)

    def worse_than(self, other: Quality) -> Estimate:
        """Nats a token more than another model on the same windows, paired."""
        if len(other.losses) != len(self.losses):
            fail("the two models were measured on different windows", value=(len(self.losses), len(other.losses)))
        return Estimate.of(a - b for a, b in zip(self.losses, other.losses, strict=True))

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        low, high = self.perplexity_interval
        return {**asdict(self), "perplexity": self.perplexity, "perplexity_low": low, "perplexity_high": high}


def window_losses(model: nn.Module, windows: Tensor) -> Floats:
    """The mean loss a token of each window (count, length), in nats."""
    found = []
    with torch.no_grad():
        for ids in windows:
            logits = model(input_ids=ids[None]).logits[0, :-1].float()
            found.append(float(nn.functional.cross_entropy(logits, ids[1:])))
    return np.array(found)


def measure(
    model: nn.Module,
    windows: Tensor,
    reference: nn.Module | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> Quality:
    """The quality of a language model on windows (count, length), beside a reference model where one is given."""
    losses, agreements, divergences, acceptances = [], [], [], []
    with torch.no_grad():
        for number, ids in enumerate(windows):
            logits = model(input_ids=ids[None]).logits[0, :-1].float()
            if not bool(torch.isfinite(logits).all()):
                fail("the model's answers hold NaN or infinity", key=f"window {number}")
            losses.append(float(nn.functional.cross_entropy(logits, ids[1:])))
            if reference is not None:
                wanted = reference(input_ids=ids[None]).logits[0, :-1].float()
                same, apart, shared = _compare(logits, wanted)
                agreements.append(same)
                divergences.append(apart)
                acceptances.append(shared)
            if progress is not None:
                progress(number + 1)
    if reference is None:
        return Quality(tuple(losses))
    return Quality(tuple(losses), Estimate.of(agreements), Estimate.of(divergences), Estimate.of(acceptances))


def _compare(logits: Tensor, wanted: Tensor) -> tuple[float, float, float]:
    """(agreement of the first choice, divergence from `wanted` in nats, sum of min(p, q)), means over tokens."""
    same = float((logits.argmax(-1) == wanted.argmax(-1)).float().mean())
    apart = shared = 0.0
    for first in range(0, len(logits), _SHARE_PER_PASS):
        q = logits[first : first + _SHARE_PER_PASS].log_softmax(-1)
        p = wanted[first : first + _SHARE_PER_PASS].log_softmax(-1)
        apart += float((p.exp() * (p - q)).sum())
        shared += float(torch.minimum(p.exp(), q.exp()).sum())
    return same, apart / len(logits), shared / len(logits)


def neighbours_right(features: Tensor, labels: Tensor, kept: Tensor, kept_labels: Tensor, count: int = 5) -> float:
    """Share of images whose `count` nearest neighbours (by cosine) among those kept vote for their label.

    features (n, d) and labels (n,) are tested against `kept` (m, d) and `kept_labels` (m,).
    """
    near = nn.functional.normalize(features, dim=-1) @ nn.functional.normalize(kept, dim=-1).T
    votes = kept_labels[near.topk(min(count, len(kept)), -1).indices]
    return float((votes.mode(-1).values == labels).float().mean())
