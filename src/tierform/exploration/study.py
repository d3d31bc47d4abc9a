"""A study: a space, its results base, and the loop that any number of processes may run.

Points come in rounds.  A round is asked for when all points before it are done, from the finished points alone, so that
the same points are asked for whatever process asks and however often a study was interrupted.  The study's file holds
its space: a process needs nothing else to work on it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.exploration.draining import never
from tierform.exploration.evaluator import Evaluator, Outcome
from tierform.exploration.evaluators import evaluator_of
from tierform.exploration.front import front_of, hypervolume, knee_of
from tierform.exploration.ray_workers import parse_workers, run_on_ray
from tierform.exploration.results_base import ResultsBase, Row
from tierform.exploration.space import Space, Values, point_key
from tierform.exploration.space_file import load_space, space_of
from tierform.exploration.strategies import STRATEGIES, History
from tierform.exploration.study_card import study_card, study_line
from tierform.files import Document, read_yaml

Floats = NDArray[np.float64]
BUDGET = 200
ROUND = 4
# A worker takes so many points that it writes about so often.
WRITE_EVERY_S = 0.5
LONGEST_LEASE = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """How a study is made: kept in its file, so that every process follows the same."""

    strategy: str
    budget: int
    seed: int
    round_size: int


class Study:
    """See the module's text."""

    def __init__(self, space: Space, base: ResultsBase, plan: Plan, evaluator: Evaluator | None = None) -> None:
        self.space, self.base, self.plan = space, base, plan
        self._evaluator = evaluator

    def __repr__(self) -> str:
        return study_line(self)

    def _repr_html_(self) -> str:
        return study_card(self)

    @cached_property
    def evaluator(self) -> Evaluator:
        """What evaluates points: simulated jobs or services unless another was given."""
        return self._evaluator or evaluator_of(self.space)

    # -- ask and tell ----------------------------------------------------------------------------------------
    def history(self) -> History:
        """All points that are done."""
        rows = self.base.rows()
        objectives = np.array([self.objectives(row.outcome) for row in rows], np.float64)
        return History(
            space=self.space,
            positions=np.array([self.space.positions(row.chosen) for row in rows]).reshape(
                len(rows), len(self.space.parameters)
            ),
            objectives=objectives.reshape(len(rows), len(self.space.objectives)),
            violation=np.array([row.outcome.violation for row in rows], np.float64),
            keys=frozenset(point_key(row.chosen) for row in rows),
            margins=np.array(
                [
                    [bound.margin(row.outcome.figures.get(bound.figure, np.nan)) for bound in self.space.limits]
                    for row in rows
                ]
            ).reshape(len(rows), len(self.space.limits)),
        )

    def objectives(self, outcome: Outcome) -> Sequence[float]:
        """The objectives of an outcome, least at best; nan where it has none."""
        take, signs = self._taken
        try:
            found = take(outcome.figures)
        except KeyError:
            found = tuple(outcome.figures.get(wanted.figure, math.nan) for wanted in self.space.objectives)
        return found if signs is None else [sign * value for sign, value in zip(signs, found, strict=True)]

    @cached_property
    def _taken(self) -> tuple[Callable[[Mapping[str, float]], tuple[float, ...]], list[float] | None]:
        """The figures of the objectives, and the sign of each where one is wanted large."""
        names = [wanted.figure for wanted in self.space.objectives]
        take = itemgetter(*names) if len(names) > 1 else lambda figures: (figures[names[0]],)
        signs = [-1.0 if wanted.maximize else 1.0 for wanted in self.space.objectives]
        return take, signs if -1.0 in signs else None

    def ask(self, number: int) -> list[Values]:
        """Points to evaluate next, which are not known yet; for loops of one's own."""
        strategy = STRATEGIES.get(self.plan.strategy)
        asked: list[Values] = strategy(self.history(), number, self.plan.seed)
        return asked

    def tell(self, points: Sequence[Values], outcomes: Sequence[Outcome]) -> int:
        """Keep outcomes that were found elsewhere; how many were new."""
        told = zip(points, outcomes, strict=True)
        return self.base.write_done((point, outcome, self.objectives(outcome)) for point, outcome in told)

    # -- the loop --------------------------------------------------------------------------------------------
    def work(self, progress: Callable[[Study], None] | None = None, stop: Callable[[], bool] = never) -> None:
        """Evaluate until the budget is spent or the space is known, or after some points `stop` says so.

        KeyboardInterrupt gives back what was leased.
        """
        number = 1
        while not stop():
            leased = self.base.lease(number)
            if not leased:
                if not self.more():
                    return
                continue
            begin = time.perf_counter()
            try:
                outcomes = self.evaluator([point for _, point in leased])
            except BaseException:
                self.base.give_back([index for index, _ in leased])
                raise
            self.base.give(
                [(index, out, self.objectives(out)) for (index, _), out in zip(leased, outcomes, strict=True)]
            )
            spent = max(time.perf_counter() - begin, 1e-6) / len(leased)
            number = max(1, min(LONGEST_LEASE, round(WRITE_EVERY_S / spent), 4 * number))
            if progress is not None:
                progress(self)

    def more(self) -> bool:
        """Ask for the next round, or wait for others; False when there is nothing more to do."""
        waiting, leased, done = self.base.counts()
        if waiting:
            return True
        if leased:
            time.sleep(0.01)
            return True
        if done >= self.plan.budget:
            return False
        left = self.plan.budget - done
        asked = self.ask(left if self.plan.strategy == "exhaustive" else min(self.plan.round_size, left))
        if not asked:
            return False
        self.base.add(asked, done=done)
        return True

    # -- what was found --------------------------------------------------------------------------------------
    @cached_property
    def _values(self) -> tuple[NDArray[np.int64], Floats, Floats]:
        return self.base.values(len(self.space.objectives))

    def refresh(self) -> None:
        """Read the file again."""
        self.__dict__.pop("_values", None)

    def front(self) -> list[Row]:
        """The feasible points that no other beats, in the order of the first objective."""
        numbers, values, violation = self._values
        found = front_of(values, violation)
        found = found[np.argsort(values[found, 0], kind="stable")]
        return self.base.rows(numbers[found])

    def best(self, figure: str) -> Row:
        """The feasible point with the least (or most) of an objective."""
        names = [wanted.figure for wanted in self.space.objectives]
        if figure not in names:
            fail("not an objective of this study", value=figure, choices=names)
        rows = self.front()
        if not rows:
            fail("no point is within the limits", key=self.space.name, fix="See `tierform explore show` for reasons.")
        return min(rows, key=lambda row: self.objectives(row.outcome)[names.index(figure)])

    def knee(self) -> Row | None:
        """The point of the front that lies farthest below the plane through its ends."""
        rows = self.front()
        if not rows:
            return None
        return rows[knee_of(np.array([self.objectives(row.outcome) for row in rows]))]

    def hypervolume(self) -> float:
        """The share of the box between the best and worst feasible objectives (a tenth wider) that the front covers."""
        _, values, violation = self._values
        good = values[(violation <= 0) & np.isfinite(values).all(axis=1)]
        if len(good) == 0:
            return 0.0
        low, high = good.min(axis=0), good.max(axis=0)
        size = np.where(high > low, high - low, 1.0)
        whole = float(1.1 ** values.shape[1])
        return hypervolume((good - low) / size, np.full(values.shape[1], 1.1)) / whole

    def claim(self) -> str:
        """What is known of the gap to the best: everything was evaluated, or not."""
        _, _, done = self.base.counts()
        if self.space.size is not None and self.plan.strategy == "exhaustive" and self.base.fact("enumerated") == "yes":
            return "enumerated: no point of the space is better"
        size = "without end" if self.space.size is None else f"of {self.space.size:,}"
        return f"{done:,} points evaluated, {size}: no bound is known"


def explore(
    space: Space | Path | str,
    *,
    study: Path | str,
    budget: int = BUDGET,
    strategy: str = "auto",
    seed: int = 0,
    workers: int | str = 1,
    evaluator: Evaluator | None = None,
    progress: Callable[[Study], None] | None = None,
    stop: Callable[[], bool] = never,
) -> Study:
    """Search a space (a file or a Space) and keep everything in the file `study`; an old study goes on.

    ``auto`` enumerates where the budget suffices for the whole space, else takes ``surrogate``.  `workers` is a number
    of processes, for which a space file is needed since each reads it from the study, or a Ray cluster: ``ray``,
    ``ray:4`` or ``ray://host:port``.  Where `stop` says so, points at work are finished and no more are begun.
    """
    document = None if isinstance(space, Space) else read_yaml(space)
    made = space if isinstance(space, Space) else load_space(space)
    if budget < 1:
        fail("at least one point is needed", key="budget", value=budget)
    if strategy == "auto":
        strategy = "exhaustive" if made.size is not None and made.size <= budget else "surrogate"
    if strategy == "exhaustive" and made.size is None:
        fail("a space without end cannot be enumerated", key="strategy", value=strategy, fix="Choose auto.")
    STRATEGIES.get(strategy)
    parse_workers(str(workers))
    base = ResultsBase(study)
    plan = Plan(strategy, budget, seed, ROUND)
    _keep(base, made, plan, document)
    opened = Study(made, base, plan, evaluator)
    number, address = parse_workers(str(workers))
    if address:
        run_on_ray(opened, number, address, evaluator, progress, stop)
    elif number > 1:
        from tierform.exploration.workers import run_processes

        if document is None or evaluator is not None:
            fail("several workers need a space file", key="workers", value=workers)
        run_processes(Path(study), number - 1, lambda: opened.work(progress, stop), stop)
    else:
        opened.work(progress, stop)
    if strategy == "exhaustive" and made.size is not None and not opened.ask(1):
        base.set_fact("enumerated", "yes")
    opened.refresh()
    return opened


def _keep(base: ResultsBase, space: Space, plan: Plan, document: Document | None) -> None:
    """Write what the study is, or see that it is this one."""
    facts = {
        "fingerprint": space.fingerprint,
        "strategy": plan.strategy,
        "seed": str(plan.seed),
        "round": str(plan.round_size),
    }
    for key, value in facts.items():
        base.set_fact(key, value)
        kept = base.fact(key)
        if kept != value:
            fail(
                "this study was begun with another one",
                file=str(base.path),
                key=key,
                value=value if key != "fingerprint" else None,
                fix=f"It has {kept}; give another study file." if key != "fingerprint" else "Give another study file.",
            )
    if document is not None:
        base.set_fact("space", json.dumps(document.content))
        base.set_fact("file", str(Path(document.file).absolute()))
    base.put_fact("budget", str(plan.budget))


def open_study(path: Path | str) -> Study:
    """A study that was begun, to look at or to work on; its space is in the file."""
    base = ResultsBase(path, must_exist=True)
    content = base.fact("space")
    if content is None:
        fail("this study was made without a space file", file=str(path), fix="Open it with its Space in Python.")
    space = space_of(Document(json.loads(content), str(base.fact("file"))))
    plan = Plan(
        str(base.fact("strategy")),
        int(base.fact("budget") or BUDGET),
        int(base.fact("seed") or 0),
        int(base.fact("round") or ROUND),
    )
    return Study(space, base, plan)


def sample(space: Space, evaluator: Evaluator, number: int, seed: int = 0) -> tuple[list[Values], list[Outcome], float]:
    """Sobol points of a space, their outcomes and the seconds for one: what ``--dry-run`` tells."""
    empty: Any = np.zeros((0, 0))
    history = History(
        space=space, positions=empty, objectives=empty, violation=np.zeros(0), keys=frozenset(), margins=empty
    )
    points = STRATEGIES.get("sobol")(history, number, seed)
    evaluator(points[:1])
    begin = time.process_time()
    outcomes = evaluator(points)
    return points, outcomes, (time.process_time() - begin) / max(len(points), 1)
