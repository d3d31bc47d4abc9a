"""Which assumed constant of the winner's chip, within which range, would make another point the winner.

Every assumed constant is taken from a factor below to the same factor above its value, alone, and the winner and its
nearest rivals are simulated with it; where a rival wins at an end, the value at which it begins to is found by halving.
Limits: one constant at a time; rivals are the best of the points that were evaluated; a winner that loses in the middle
of the range and wins again at its end is not seen; a constant that is itself chosen by the space is not assumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tierform.chip.description import Chip
from tierform.errors import TierformError, fail
from tierform.exploration.evaluator import ACCURACY_FIGURES, JobEvaluator, figures_of_result, judge, timed
from tierform.exploration.results_base import Row
from tierform.exploration.study import Study
from tierform.provenance import Constant
from tierform.simulation.elasticity import assumed, varied_constants
from tierform.simulation.job import Job
from tierform.simulation.simulate import run_job

WITHIN, RIVALS = 2.0, 6
HALVINGS = 7  # the factor at which a rival begins to win is known to a hundredth then
# A rival wins where it is better by more than rounding.
BETTER = 1e-9


@dataclass(frozen=True, slots=True)
class Turn:
    """A factor of the constant from which on another point wins."""

    factor: float
    number: int  # of that point


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """An assumed constant: what it does to the winner's objective, and where another point wins."""

    path: str
    constant: Constant
    least: float  # winner's objective over that as assumed, the constant at its lower end; infinite where it cannot be
    most: float  # at its upper end
    below: Turn | None
    above: Turn | None

    @property
    def swing(self) -> float:
        """How far the winner's objective moves over the range, as a share; infinite where an end cannot be."""
        ends = (self.least, self.most)
        return max(abs(end - 1) for end in ends) if all(map(math.isfinite, ends)) else math.inf

    @property
    def changes(self) -> bool:
        """Whether another point wins somewhere in the range."""
        return self.below is not None or self.above is not None


def sensitivity(
    study: Study, figure: str = "", *, within: float = WITHIN, rivals: int = RIVALS
) -> tuple[Row, list[Sensitivity]]:
    """The winner by an objective (the first unless given), and its assumed constants: those that change it first.

    Accuracies stay as they were measured, and with them their limits.
    """
    if study.space.service:
        fail("is told of jobs, and the points of this space are services", key="sensitivity")
    if not 1 < within <= 100:
        fail("a factor above 1, at most 100, is needed", key="within", value=within)
    told = [one.figure for one in study.space.objectives if one.figure not in ACCURACY_FIGURES]
    figure = figure or next(iter(told), "")
    if figure not in told:
        fix = "Add an objective such as latency_s."
        fail("is told of time, energy or area, on which the chip's constants act", key="sensitivity", fix=fix)
    winner, *others = _ranked(study, figure)[: rivals + 1]
    found = list(_each(study, winner, others, figure, within))
    return winner, sorted(found, key=lambda one: (not one.changes, -one.swing))


def _ranked(study: Study, figure: str) -> list[Row]:
    best = study.best(figure)
    place = [wanted.figure for wanted in study.space.objectives].index(figure)
    good = [row for row in study.base.rows() if row.outcome.violation <= 0 and row.number != best.number]
    return [best, *sorted(good, key=lambda row: study.objectives(row.outcome)[place])]


def _each(study: Study, winner: Row, others: Sequence[Row], figure: str, within: float) -> Iterator[Sensitivity]:
    evaluator, space = JobEvaluator(study.space), timed(study.space)
    jobs = {row.number: evaluator.job(row.chosen).loaded() for row in (winner, *others)}
    sign = next(-1.0 if wanted.maximize else 1.0 for wanted in space.objectives if wanted.figure == figure)
    chosen = {p.path.removeprefix("chip.") for p in space.parameters} | {
        p.removeprefix("chip.") for p, _ in space.derived
    }

    def value(path: str, number: int, factor: float) -> float:
        """The objective of a point with the constant times a factor, least at best; infinite where it cannot be."""
        job = jobs[number]
        constant = _constants(job).get(path)
        if constant is None:
            return _simulated(job)
        assert isinstance(job.chip, Chip)
        try:
            return _simulated(replace(job, chip=job.chip.vary({path: _times(constant, factor)})))
        except TierformError:
            return math.inf

    def _simulated(job: Job) -> float:
        try:
            outcome = judge(space, figures_of_result(run_job(job)))
        except TierformError:
            return math.inf
        return sign * outcome.figures[figure] if outcome.violation <= 0 else math.inf

    own = abs(value("", winner.number, 1.0))
    for path in assumed(jobs[winner.number]):
        if path in chosen:
            continue
        reach = 1 / within, within
        ends = [value(path, winner.number, factor) for factor in reach]
        there = partial(value, path)
        turns = [_turn(end, winner.number, others, factor, there) for end, factor in zip(ends, reach, strict=True)]
        least, most = (abs(end) / own if math.isfinite(end) and own else math.inf for end in ends)
        yield Sensitivity(path, _constants(jobs[winner.number])[path], least, most, *turns)


def _turn(
    own: float, winner: int, others: Sequence[Row], end: float, value: Callable[[int, float], float]
) -> Turn | None:
    """Where between 1 and an end of the range a rival that wins at the end begins to."""

    def first(own: float, numbers: Sequence[int], factor: float) -> list[int]:
        found = {number: value(number, factor) for number in numbers}
        bar = own - BETTER * abs(own) if math.isfinite(own) else own
        return sorted((number for number in numbers if found[number] < bar), key=lambda number: found[number])

    ahead = first(own, [row.number for row in others], end)
    if not ahead:
        return None
    near, far = 0.0, math.log(end)
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        inside = first(value(winner, math.exp(middle)), ahead, math.exp(middle))
        if inside:
            far, ahead = middle, inside
        else:
            near = middle
    return Turn(math.exp(far), ahead[0])


def _constants(job: Job) -> dict[str, Constant]:
    assert isinstance(job.chip, Chip)
    return varied_constants(job.chip, heat=job.thermal != "none")


def _times(constant: Constant, factor: float) -> Constant:
    value = constant.value * factor
    if constant.unit == "bit":
        value = max(1.0, round(value))
    return Constant(value, constant.unit, "assumed", note="varied to see what it changes")


__all__ = ["Sensitivity", "Turn", "sensitivity"]
