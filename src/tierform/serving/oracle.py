"""The one seam between the scheduler and time: what a step takes.

A :class:`StepOracle` gives the seconds and the joules, by component, of a step; :class:`StepShape` says what is in it.
Oracles whose figures are sums of tables are *packed* into one flat list of numbers, which the compiled loop reads
(:mod:`tierform.serving.kernel_oracle`); any other object with ``cost`` is asked step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tierform.errors import Problem, TierformError
from tierform.serving.kernel_oracle import (
    F_CONTEXTS,
    F_LONGEST,
    F_PAIRS,
    F_PREFILLS,
    F_SAMPLED,
    F_SEQUENCES,
    F_SINGLES,
    F_TOKENS,
    FEATURES,
    FORMULA,
    OUTSIDE,
    SCRATCH,
    step_cost,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StepShape:
    """What a step computes.

    `prefills`: (new tokens, tokens computed before) of each entry with several new tokens.  `contexts`: of each entry
    with one new token, its context with that token.  `checked`: (new tokens, tokens computed before) of each entry
    whose new tokens but the first are drafts to be verified.  `sampled` rows go through the head; by default every
    entry's, and each draft's.
    """

    prefills: tuple[tuple[int, int], ...] = ()
    contexts: tuple[int, ...] = ()
    sampled: int | None = None
    checked: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        several = (*self.prefills, *self.checked)
        small = [new for new, past in several if new < 2 or past < 0]
        if small or any(context < 1 for context in self.contexts) or not (several or self.contexts):
            raise TierformError(
                [Problem("a prefill has two new tokens or more, a context one; a step has an entry", key="step")]
            )

    @property
    def tokens(self) -> int:
        """New tokens of the step."""
        return sum(new for new, _ in (*self.prefills, *self.checked)) + len(self.contexts)

    def features(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The step as the compiled loop sees it."""
        found = np.zeros(FEATURES, np.int64)
        several = [(new, past, 0) for new, past in self.prefills]
        several += [(new, past, new - 1) for new, past in self.checked]
        entries = len(several) + len(self.contexts)
        found[F_TOKENS], found[F_SINGLES], found[F_CONTEXTS] = self.tokens, len(self.contexts), sum(self.contexts)
        found[F_PAIRS] = sum(new * past + new * (new + 1) // 2 for new, past, _ in several)
        rows = entries + sum(drafts for _, _, drafts in several)
        found[F_SAMPLED] = rows if self.sampled is None else self.sampled
        found[F_SEQUENCES] = entries
        found[F_LONGEST], found[F_PREFILLS] = max(self.contexts, default=0), len(several)
        chunk = np.zeros((max(1, len(several)), 4), np.int32)
        for place, numbers in enumerate(several):
            chunk[place, 1:4] = numbers
        return found, chunk


@dataclass(frozen=True)
class StepCost:
    """What a step takes: seconds, and joules of each component."""

    seconds: float
    joules: tuple[float, ...] = ()


@runtime_checkable
class StepOracle(Protocol):
    """What a step takes; contract: :mod:`tierform.serving.contract`."""

    @property
    def components(self) -> tuple[str, ...]:
        """Whose energy is told, by name."""
        ...

    def cost(self, step: StepShape) -> StepCost:
        """Seconds and joules of a step."""
        ...


@runtime_checkable
class PackedOracle(StepOracle, Protocol):
    """An oracle that the compiled loop can read by itself."""

    def packed(self) -> Floats:
        """Its numbers, as :mod:`tierform.serving.kernel_oracle` reads them."""
        ...


def packed_cost(packed: Floats, step: StepShape) -> StepCost:
    """What the compiled loop finds for a step."""
    features, chunk = step.features()
    out = np.zeros(1 + int(packed[1]))
    nanoseconds = step_cost(packed, 0, features, chunk, np.zeros(SCRATCH), out)
    return StepCost(nanoseconds * 1e-9, tuple(float(one) for one in out[1:]))


def numbers_of(oracle: StepOracle) -> Floats:
    """The packed numbers of an oracle; of one that has none, a note that it must be asked."""
    if isinstance(oracle, PackedOracle):
        return oracle.packed()
    return np.array([OUTSIDE, len(oracle.components)], np.float64)


@dataclass(frozen=True)
class FormulaOracle:
    """A closed form in whole nanoseconds: a + b T + c D + d P // e  (see :mod:`tierform.serving.kernel_oracle`).

    `joules` holds (step, token, context, pair) for each component.
    """

    step_ns: int
    token_ns: int
    context_ns: int = 0
    pair_ns: int = 0
    pair_divisor: int = 1
    components: tuple[str, ...] = ()
    joules: tuple[tuple[float, float, float, float], ...] = field(default=())

    def __post_init__(self) -> None:
        problems = [
            Problem("must not be negative", key=name, value=getattr(self, name))
            for name in ("step_ns", "token_ns", "context_ns", "pair_ns")
            if getattr(self, name) < 0
        ]
        if self.pair_divisor < 1:
            problems.append(Problem("must be at least 1", key="pair_divisor", value=self.pair_divisor))
        if self.step_ns + self.token_ns < 1:
            problems.append(Problem("a step takes at least a nanosecond", key="step_ns", value=self.step_ns))
        if len(self.joules) != len(self.components):
            problems.append(Problem("four numbers for each component are needed", key="joules"))
        if problems:
            raise TierformError(problems)

    def packed(self) -> Floats:
        """Its numbers for the compiled loop."""
        times = (self.step_ns, self.token_ns, self.context_ns, self.pair_ns, self.pair_divisor)
        return np.array(
            [FORMULA, len(self.components), *times, *(one for row in self.joules for one in row)], np.float64
        )

    def cost(self, step: StepShape) -> StepCost:
        """Seconds and joules of a step."""
        return packed_cost(self.packed(), step)


def line(grid: Sequence[float] | Floats, values: Floats) -> Floats:
    """A table over one axis, packed: (points, grid, values (points, columns))."""
    return np.concatenate([[len(grid)], np.asarray(grid, float), np.asarray(values, float).ravel()])
