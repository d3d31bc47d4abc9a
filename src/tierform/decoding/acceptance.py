"""Which drafted tokens are accepted, so that what comes out has exactly the target's distribution.

A drafted token x with draft probability q(x) and target probability p(x) is accepted with min(1, p(x) / q(x)); at the
first rejection the token is drawn from max(p - q, 0), scaled to one; after k acceptances one more is drawn from p.
Where tokens are not drawn at random (greedy), p and q are points: a token is accepted if it is the target's choice.
Source: Leviathan et al., Fast Inference from Transformers via Speculative Decoding (2023); Chen et al. (2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float64]
Tokens = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of each row: how many drafted tokens stay, and the token after them."""

    accepted: Tokens
    following: Tokens


def verify(p: Probabilities, q: Probabilities, drafted: Tokens, random: np.random.Generator) -> Verdict:
    """Rows of k drafted tokens: p (rows, k + 1, vocabulary), q (rows, k, vocabulary), drafted (rows, k)."""
    rows, count = drafted.shape
    every = np.arange(rows)
    places = np.arange(count)
    chosen_p = p[every[:, None], places, drafted]
    chosen_q = q[every[:, None], places, drafted]
    stays = random.random((rows, count)) * chosen_q < chosen_p
    accepted = np.where(stays.all(1), count, np.argmin(stays, 1)) if count else np.zeros(rows, np.int64)
    last = p[every, accepted]
    rejected = accepted < count
    if rejected.any():
        at = every[rejected]
        last = last.copy()
        last[rejected] = residual(p[at, accepted[rejected]], q[at, accepted[rejected]])
    return Verdict(accepted.astype(np.int64), draw(last, random))


def residual(p: Probabilities, q: Probabilities) -> Probabilities:
    """What remains of the target's distribution where a drafted token was rejected, scaled to one."""
    left = np.maximum(p - q, 0.0)
    total = left.sum(-1, keepdims=True)
    # p and q can only be equal here by rounding: then nothing was to be rejected, and p is right
    return np.where(total > 0, left / np.where(total > 0, total, 1.0), p)


def draw(p: Probabilities, random: np.random.Generator) -> Tokens:
    """One token of each row's distribution."""
    edges = np.cumsum(p, -1)
    points = random.random(len(p))[:, None] * edges[:, -1:]
    found: Tokens = np.minimum((edges <= points).sum(-1), p.shape[-1] - 1).astype(np.int64)
    return found


def overlap(p: Probabilities, q: Probabilities) -> NDArray[np.float64]:
    """The probability that a token drawn from q is accepted: the sum of min(p, q)."""
    found: NDArray[np.float64] = np.minimum(p, q).sum(-1)
    return found
