"""Which points to evaluate next: strategies behind one function, ``ask(history, number, seed)``.

A strategy has no memory of its own: what it asks follows from the points that are done and a seed.  So a study that was
killed asks for the same points again, and any process may ask.  `number` points come back at most, none of them known.

``exhaustive`` every point; ``sobol`` scrambled Sobol points; ``surrogate`` (the default where the space is larger than
the budget) Sobol points, then those that a Gaussian process expects to add most to the front; ``nsga2``, ``nsga3`` and
``tpe`` are Optuna's; ``local`` neighbours of the front.  A plug-in package may add others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tierform.exploration.front import front_of
from tierform.exploration.space import Space, Values, point_key
from tierform.registry import Registry

Floats = NDArray[np.float64]
# Where a finite space has at most so many points, a strategy may look at all of them.
LOOK_AT_ALL = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Points that are done: positions (points, parameters), objectives (nan where refused), violation, keys.

    `margins` (points, limits) tell how far each figure is from its limit: above zero beyond it, nan where refused.
    """

    space: Space
    positions: Floats
    objectives: Floats
    violation: Floats
    keys: frozenset[str]
    margins: Floats

    def __len__(self) -> int:
        return len(self.positions)


Strategy = Callable[[History, int, int], list[Values]]
STRATEGIES = Registry(
    "strategy",
    "tierform.strategies",
    {
        "exhaustive": "tierform.exploration.strategies:exhaustive",
        "sobol": "tierform.exploration.strategies:sobol",
        "local": "tierform.exploration.strategies:local",
        "surrogate": "tierform.exploration.surrogate:surrogate",
        "nsga2": "tierform.exploration.optuna_strategies:nsga2",
        "nsga3": "tierform.exploration.optuna_strategies:nsga3",
        "tpe": "tierform.exploration.optuna_strategies:tpe",
    },
)


def unknown(history: History, proposed: Iterator[Values], number: int) -> list[Values]:
    """The first `number` points that are neither done nor repeated."""
    found: dict[str, Values] = {}
    for values in proposed:
        if len(found) >= number:
            break
        key = point_key(values)
        if key not in history.keys and key not in found and history.space.fits(values):
            found[key] = values
    return list(found.values())


def exhaustive(history: History, number: int, seed: int) -> list[Values]:
    """Points in the order of the space."""
    return unknown(history, history.space.every(), number)


def sobol_positions(dimensions: int, seed: int, start: int, number: int) -> Floats:
    """Scrambled Sobol positions from the `start`-th on."""
    from scipy.stats import qmc

    engine = qmc.Sobol(dimensions, seed=seed)
    engine.fast_forward(start) if start else None
    made: Floats = engine.random(number)
    return made


def _sobol_points(space: Space, seed: int) -> Iterator[Values]:
    tries, step = 0, 256
    # A small space is left to `every` once most of its points were drawn.
    most = 1 << 17 if space.size is None else min(1 << 17, 4 * space.size + step)
    while tries < most:
        for position in sobol_positions(len(space.parameters), seed, tries, step):
            yield space.point(position)
        tries += step
    if space.size is not None:
        yield from space.every()


def sobol(history: History, number: int, seed: int) -> list[Values]:
    """Scrambled Sobol points that are not known yet; what is left of a small space at last."""
    return unknown(history, _sobol_points(history.space, seed), number)


def local(history: History, number: int, seed: int) -> list[Values]:
    """Neighbours of the front's points in one parameter, in turn; Sobol points where all are known."""
    space = history.space
    rng = np.random.default_rng([seed, len(history)])
    ends = front_of(history.objectives, history.violation) if len(history) else np.zeros(0, np.int64)
    if len(ends) == 0 and len(history):
        ends = np.argsort(history.violation, kind="stable")[:5]
    found: list[Values] = []
    for index in rng.permutation(ends):
        for axis in rng.permutation(len(space.parameters)):
            parameter = space.parameters[axis]
            count = parameter.count or 64
            steps = (-1, 1) if parameter.ordered else range(1, count)
            for step in steps:
                position = history.positions[index].copy()
                moved = int(position[axis] * count) + step
                if not parameter.ordered:
                    moved %= count
                if 0 <= moved < count:
                    position[axis] = (moved + 0.5) / count
                    found.append(space.point(position))
    made = unknown(history, iter(found), number)
    if len(made) < number:
        known = {point_key(values) for values in made}
        more = (values for values in _sobol_points(space, seed) if point_key(values) not in known)
        made += unknown(history, more, number - len(made))
    return made


def candidates(history: History, seed: int) -> list[Values]:
    """Unknown points to choose among: all of a small space, else Sobol points and neighbours of the front."""
    space = history.space
    if space.size is not None and space.size <= LOOK_AT_ALL:
        return unknown(history, space.every(), LOOK_AT_ALL)
    near = local(history, 500, seed)
    known = {point_key(values) for values in near}
    far = islice((v for v in _sobol_points(space, seed + 1 + len(history)) if point_key(v) not in known), 2000)
    return near + unknown(history, far, 2000)
