"""Assumed constants over their plausible ranges, every combination tried, and which published figures hold together.

A system has *sides* (the chip, each of its baselines), and each side assumptions with the values that are tried.  What
a side takes does not depend on the other sides, so each of its designs is simulated once; figures are ratios between
sides, and every combination of all sides is looked at as an array.  What is told of combinations is exact for the
values that are tried, and says nothing of those between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

Value = float | str
Design = Mapping[str, Value]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# Larger sets that cannot hold together are not listed: each of their halves is told already, or is easily read off.
MOST_TOGETHER = 3


@dataclass(frozen=True, slots=True)
class Knob:
    """An assumption: the values that are tried, lowest first, the library's own, and why these are plausible."""

    name: str
    values: tuple[Value, ...]
    own: Value
    unit: str = ""
    why: str = ""

    def tried(self, quick: bool) -> tuple[Value, ...]:
        """All values; for a quick look the library's own and the one farthest from it."""
        if not quick:
            return self.values
        at = self.values.index(self.own)
        return self.own, self.values[0 if 2 * at >= len(self.values) else -1]

    def steps(self, value: Value) -> int:
        """How many values away from the library's own; of words, any other is one away."""
        if isinstance(value, str):
            return int(value != self.own)
        return abs(self.values.index(value) - self.values.index(self.own))


@dataclass(frozen=True, slots=True)
class Side:
    """A chip with its assumptions; `evaluate` gives the figures of a design (nan where it cannot run)."""

    name: str
    knobs: tuple[Knob, ...]
    evaluate: Callable[[Design], dict[str, float]]

    @property
    def own(self) -> dict[str, Value]:
        """The design of the library."""
        return {knob.name: knob.own for knob in self.knobs}

    def designs(self, quick: bool) -> list[dict[str, Value]]:
        """Every combination of what is tried."""
        names = [knob.name for knob in self.knobs]
        return [dict(zip(names, chosen, strict=True)) for chosen in product(*(k.tried(quick) for k in self.knobs))]

    def ends(self) -> Iterator[tuple[Knob, Value, dict[str, Value]]]:
        """One assumption at the end of its range, the others as in the library."""
        for knob in self.knobs:
            for value in dict.fromkeys((knob.values[0], knob.values[-1])):
                yield knob, value, {**self.own, knob.name: value}


@dataclass(frozen=True, slots=True)
class Claim:
    """A published figure: it holds from `low` to `high`.  `figure` makes it from figures by "side: name".

    Another reading of the same figure is told, but does not `count` among those that hold at once.
    """

    name: str
    published: float | str
    low: float
    high: float
    figure: Callable[[Mapping[str, Floats]], Floats]
    unit: str = "times"
    counts: bool = True

    @property
    def rule(self) -> str:
        """When it holds, in a few characters."""
        if np.isinf(self.high):
            return f"at least {self.low:.4g}"
        return f"at most {self.high:.4g}" if np.isinf(self.low) else f"{self.low:.4g} to {self.high:.4g}"

    @property
    def headline(self) -> bool:
        """Whether a number was published for it."""
        return isinstance(self.published, float)


@dataclass(frozen=True, slots=True)
class System:
    """Sides and claims of one paper."""

    name: str
    sides: tuple[Side, ...]
    claims: tuple[Claim, ...]


@dataclass(frozen=True, eq=False)
class Tried:
    """All combinations of a system: designs of each side, and their figures by "side: name" along the side's axis."""

    system: System
    designs: tuple[list[dict[str, Value]], ...]
    figures: Mapping[str, Floats]
    own: Mapping[str, Floats] = field(repr=False)  # the same of the library's design

    @cached_property
    def values(self) -> list[Floats]:
        """The figure of each claim, over the axes on which it depends."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return [np.asarray(claim.figure(self.figures), np.float64) for claim in self.system.claims]

    @cached_property
    def as_shipped(self) -> list[float]:
        """The figure of each claim with the library's own values."""
        return [float(np.asarray(claim.figure(self.own)).ravel()[0]) for claim in self.system.claims]

    @cached_property
    def holds(self) -> list[Bools]:
        """Whether each claim holds, over the axes on which it depends."""
        return [
            (value >= claim.low) & (value <= claim.high)
            for claim, value in zip(self.system.claims, self.values, strict=True)
        ]

    @cached_property
    def mask(self) -> NDArray[np.int64]:
        """Of every combination, which of the claims that count hold: a bit for each."""
        mask = np.zeros(tuple(map(len, self.designs)), np.int64)
        for bit, (claim, holds) in enumerate(zip(self.system.claims, self.holds, strict=True)):
            if claim.counts:
                mask += holds.astype(np.int64) << bit
        return mask

    @cached_property
    def found(self) -> list[int]:
        """Every mask that occurs."""
        return [int(one) for one in np.unique(self.mask)]

    def can(self, claims: Sequence[int]) -> bool:
        """Whether some combination has all of these (or the one, if it is another reading)."""
        if len(claims) == 1:
            return bool(self.holds[claims[0]].any())
        wanted = sum(1 << bit for bit in claims)
        return any(one & wanted == wanted for one in self.found)

    @cached_property
    def largest(self) -> list[tuple[int, ...]]:
        """The largest sets of claims that hold at once."""
        most = max(one.bit_count() for one in self.found)
        return [self._bits(one) for one in self.found if one.bit_count() == most]

    def _bits(self, mask: int) -> tuple[int, ...]:
        return tuple(bit for bit in range(len(self.system.claims)) if mask >> bit & 1)

    @cached_property
    def conflicts(self) -> list[tuple[int, ...]]:
        """The smallest sets that no combination has at once, up to three claims."""
        smallest: list[tuple[int, ...]] = []
        counting = [number for number, claim in enumerate(self.system.claims) if claim.counts]
        for size in range(1, MOST_TOGETHER + 1):
            for claims in combinations(counting, size):
                if not any(set(less) <= set(claims) for less in smallest) and not self.can(claims):
                    smallest.append(claims)
        return smallest

    def where(self, claims: Sequence[int]) -> Bools:
        """The combinations in which all of these hold."""
        wanted = sum(1 << bit for bit in claims)
        return np.asarray(self.mask & wanted == wanted, np.bool_)

    def needed(self, claims: Sequence[int]) -> dict[tuple[str, str], list[Value]]:
        """By side and assumption, the values with which all of these can hold; those that leave no choice or little."""
        where, found = self.where(claims), {}
        for axis, side in enumerate(self.system.sides):
            other = tuple(number for number in range(len(self.designs)) if number != axis)
            able = [
                design
                for design, one in zip(self.designs[axis], np.any(where, axis=other).tolist(), strict=True)
                if one
            ]
            for knob in side.knobs:
                taken = {design[knob.name] for design in able}
                found[side.name, knob.name] = [value for value in knob.values if value in taken]
        return found

    def nearest(self, claims: Sequence[int]) -> tuple[dict[str, dict[str, Value]], int]:
        """Of the combinations with all of these the one with the fewest steps from the library, and the steps."""
        steps = np.zeros(self.mask.shape, np.int64)
        for axis, (side, designs) in enumerate(zip(self.system.sides, self.designs, strict=True)):
            own = np.array([sum(knob.steps(design[knob.name]) for knob in side.knobs) for design in designs])
            steps += own.reshape([-1 if number == axis else 1 for number in range(len(self.designs))])
        steps = np.where(self.where(claims), steps, np.iinfo(np.int64).max)
        at = np.unravel_index(int(steps.argmin()), steps.shape)
        chosen = {
            side.name: designs[place] for side, designs, place in zip(self.system.sides, self.designs, at, strict=True)
        }
        return chosen, int(steps[at])


@dataclass(frozen=True, slots=True)
class Swing:
    """A claim's figure with one assumption at its lowest and at its highest, all others as in the library."""

    side: str
    knob: Knob
    low: float
    high: float

    @property
    def spread(self) -> float:
        """How far apart the two are, as a factor or its inverse."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return abs(float(np.log(self.high / self.low)))


def swings(system: System, claim: Claim, figures: Callable[[Side, Design], Mapping[str, float]]) -> list[Swing]:
    """What each assumption alone does to a claim, the most first; those that do nothing are left out."""
    own = {f"{side.name}: {key}": value for side in system.sides for key, value in figures(side, side.own).items()}
    found = []
    for side in system.sides:
        ends: dict[str, list[float]] = {}
        for knob, _, design in side.ends():
            changed = {f"{side.name}: {key}": value for key, value in figures(side, design).items()}
            arrays = {key: np.array([value]) for key, value in {**own, **changed}.items()}
            ends.setdefault(knob.name, []).append(float(claim.figure(arrays)[0]))
        for knob in side.knobs:
            low, high = ends[knob.name][0], ends[knob.name][-1]
            swing = Swing(side.name, knob, low, high)
            if np.isfinite(swing.spread) and swing.spread > 1e-6:
                found.append(swing)
    return sorted(found, key=lambda swing: -swing.spread)
