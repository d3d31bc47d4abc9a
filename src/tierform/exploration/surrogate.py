"""Points that a Gaussian process expects to add most to the front: for spaces larger than what can be evaluated.

Each objective (its logarithm where all are positive) and the violation have a process of their own over the positions:
one length for each parameter, chosen by likelihood among a few, nearest first.  Points are taken greedily by the gain
of hypervolume at an optimistic estimate times the chance to be feasible; a point that was taken counts with its mean.
Limits: a few hundred points; beyond that the latest and the front stand for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import ndtr
from scipy.stats import qmc

from tierform.exploration.front import front_of
from tierform.exploration.space import Space, Values
from tierform.exploration.strategies import History, candidates, sobol

Floats = NDArray[np.float64]
MOST_POINTS = 300
NOISE = 1e-6
# Places of the space of objectives at which a gain is counted, and how far below the best values they reach.
PLACES = 2048
BELOW = 0.3
# Deviations by which an estimate is taken to be better than its mean.
CURIOSITY = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """A fitted process over features (points, features)."""

    features: Floats
    scale: Floats
    factor: tuple[Floats, bool]
    weights: Floats
    mean: float
    spread: float

    def at(self, features: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation at features."""
        cross = _kernel(features, self.features, self.scale)
        mean = cross @ self.weights
        variance = 1.0 - (cross * cho_solve(self.factor, cross.T).T).sum(axis=1)
        return self.mean + self.spread * mean, self.spread * np.sqrt(np.maximum(variance, 1e-12))


def _kernel(one: Floats, other: Floats, scale: Floats) -> Floats:
    """Matern 5/2 over features with a scale each."""
    a, b = one * scale, other * scale
    square = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0.0)
    far = np.sqrt(5 * square)
    made: Floats = (1 + far + far**2 / 3) * np.exp(-far)
    return made


def fit(features: Floats, values: Floats) -> Process:
    """The process with the scales of greatest likelihood (a weak prior keeps them near 1)."""
    mean, spread = float(values.mean()), float(values.std()) or 1.0
    target = (values - mean) / spread

    def cost(logs: Floats) -> float:
        scale = np.exp(logs)
        kernel = _kernel(features, features, scale)
        kernel[np.diag_indices_from(kernel)] += NOISE
        try:
            factor = cho_factor(kernel, lower=True)
        except np.linalg.LinAlgError:
            return 1e10
        fitted = target @ cho_solve(factor, target)
        return float(0.5 * fitted + np.log(np.diag(factor[0])).sum() + 0.5 * (logs**2).sum() / 4)

    found = minimize(cost, np.zeros(features.shape[1]), method="L-BFGS-B", bounds=[(-4, 3)] * features.shape[1],
                     options={"maxiter": 25})  # fmt: skip
    scale = np.exp(found.x)
    kernel = _kernel(features, features, scale)
    kernel[np.diag_indices_from(kernel)] += NOISE
    factor = cho_factor(kernel, lower=True)
    return Process(features, scale, factor, cho_solve(factor, target), mean, spread)


def _features(space: Space, positions: Floats) -> Floats:
    """Positions of ordered parameters, and one feature for each choice of the others."""
    columns = []
    for axis, parameter in enumerate(space.parameters):
        if parameter.ordered:
            columns.append(positions[:, axis])
        else:
            chosen = np.minimum((positions[:, axis] * parameter.count).astype(int), parameter.count - 1)
            columns += [(chosen == choice) / 2**0.5 for choice in range(parameter.count)]
    return np.stack(columns, axis=1).astype(np.float64)


def _scaled(values: Floats) -> Floats:
    """Objectives as the process sees them: logarithms where all are above zero."""
    made = values.copy()
    for column in range(values.shape[1]):
        if (values[:, column] > 0).all():
            made[:, column] = np.log(values[:, column])
    return made


def surrogate(history: History, number: int, seed: int) -> list[Values]:
    """Sobol points first (four a parameter, at least eight), then those of greatest expected gain."""
    space = history.space
    start = max(8, 2 * len(space.parameters) + 2)
    if len(history) < start:
        return sobol(history, min(number, start - len(history)), seed)
    usable = np.isfinite(history.objectives).all(axis=1)
    if usable.sum() < 4:
        return sobol(history, number, seed)
    choice = np.flatnonzero(usable)
    if len(choice) > MOST_POINTS:
        ends = front_of(history.objectives, history.violation)
        choice = np.unique(np.concatenate([ends[:MOST_POINTS], choice[-MOST_POINTS:]]))
    pool = candidates(history, seed)
    if not pool:
        return []
    positions = np.stack([space.positions(values) for values in pool])
    features, known = _features(space, positions), _features(space, history.positions[choice])
    values = _scaled(history.objectives[choice])
    processes = [fit(known, values[:, column]) for column in range(values.shape[1])]
    estimates = [process.at(features) for process in processes]
    mean, deviation = (np.stack([pair[part] for pair in estimates], axis=1) for part in (0, 1))
    chance = _chance(history, features, _features(space, history.positions))
    feasible = history.violation[choice] <= 0
    return _greedy(pool, mean, deviation, chance, values[feasible], values, number)


def _chance(history: History, features: Floats, known: Floats) -> Floats:
    """(candidates,) the chance to be within all limits, and not to be refused."""
    chance = np.ones(len(features))
    refused = ~np.isfinite(history.objectives).all(axis=1)
    if refused.any():
        mean, deviation = fit(known[-MOST_POINTS:], np.asarray(refused, np.float64)[-MOST_POINTS:]).at(features)
        chance *= ndtr((0.5 - mean) / deviation)
    for column in range(history.margins.shape[1]):
        margin = history.margins[:, column]
        seen = np.flatnonzero(np.isfinite(margin))[-MOST_POINTS:]
        if len(seen) and (margin[seen] > 0).any():
            mean, deviation = fit(known[seen], margin[seen]).at(features)
            chance *= ndtr(-mean / deviation)
    return chance


def _greedy(
    pool: list[Values], mean: Floats, deviation: Floats, chance: Floats, feasible: Floats, values: Floats, number: int
) -> list[Values]:  # fmt: skip
    chosen: list[Values] = []
    left = np.ones(len(pool), bool)
    low, high = values.min(axis=0), values.max(axis=0)
    size = np.where(high > low, high - low, 1.0)
    front = (feasible - low) / size
    mean, deviation = (mean - low) / size, deviation / size
    # Places that no point of the front beats: a candidate gains the share of them that it would.
    places = qmc.Sobol(values.shape[1], seed=number).random(PLACES) * (1.1 + BELOW) - BELOW
    if len(front):
        places = places[~(front[front_of(front)][None] <= places[:, None]).all(axis=2).any(axis=1)]
    hope = mean - CURIOSITY * deviation
    for _ in range(min(number, len(pool))):
        score = (hope[:, None] <= places[None]).all(axis=2).sum(axis=1) / PLACES + 1e-9
        # Where nothing adds to the front, the points nearest to it come first.
        score = (score + 1e-6 * np.exp(-hope.mean(axis=1))) * np.maximum(chance, 1e-6)
        if len(front) == 0:
            score = chance * np.exp(-hope.mean(axis=1))
        best = int(np.argmax(np.where(left, score, -np.inf)))
        left[best] = False
        chosen.append(pool[best])
        if len(front):
            places = places[~(mean[best] <= places).all(axis=1)]
    return chosen


__all__ = ["Process", "fit", "surrogate"]
