"""Progress of a study: points, rate, remaining time, and the front so far."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tierform.exploration.evaluator import FIGURES
from tierform.units import format_quantity

if TYPE_CHECKING:
    from rich.progress import Progress

    from tierform.exploration.study import Study

# The front is read again after so many seconds, and after so many times what reading it took.
AGAIN_S, SHARE = 2.0, 50.0


class Watched:
    """Called with the study whenever points are done."""

    def __init__(self, bar: Progress, wanted: int) -> None:
        self._bar, self._task = bar, bar.add_task("exploring", total=wanted)
        self._begin, self._first = time.perf_counter(), -1
        self._next_s, self._front = 0.0, ""

    def __call__(self, study: Study) -> None:
        """Show where the study stands."""
        done, now = study.base.counts()[2], time.perf_counter()
        if self._first < 0:
            self._first, self._begin = done, now
        if now >= self._next_s and not self._bar.disable:
            self._front = self._read(study)
            spent = time.perf_counter() - now
            self._next_s = now + max(AGAIN_S, SHARE * spent)
        rate = (done - self._first) / max(now - self._begin, 1e-9)
        told = f"{rate:.3g} points/s{self._front}" if done > self._first else "exploring"
        self._bar.update(self._task, completed=done, description=told)

    @staticmethod
    def _read(study: Study) -> str:
        study.refresh()
        figure = study.space.objectives[0].figure
        rows = study.front()
        if not rows:
            return ", none within the limits yet"
        best = format_quantity(study.best(figure).outcome.figures[figure], FIGURES[figure])
        return f", {len(rows)} on the front, best {figure} {best}"
