"""Is a study the same after fifty kills at random moments, with one worker and with four, as when nobody disturbs it?

Workers are forked processes that evaluate the table of 288 chips (``tables/chips288.csv``), a fraction of a
millisecond a point, and are killed with SIGKILL wherever they are: asking, leasing, evaluating or writing.
"""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tierform.exploration.evaluator import Outcome, TableEvaluator
from tierform.exploration.results_base import ResultsBase
from tierform.exploration.space import Objective, Parameter, Space, Values
from tierform.exploration.study import Plan, Study

TABLE = Path(__file__).parent / "tables" / "chips288.csv"
NAMES = ("reram", "sm", "width", "memory", "columns")
KILLS, POINTS = 50, 288


def _space_and_rows() -> tuple[Space, list[dict[str, float]]]:
    with TABLE.open() as file:
        rows = [{k: int(v) if k in NAMES else float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    parameters = tuple(Parameter(n, f"chip.{n}", choices=tuple(sorted({int(row[n]) for row in rows}))) for n in NAMES)
    return Space("table", parameters, tuple(Objective(f) for f in ("latency_s", "energy_J", "area_m2"))), rows


class _Slow:
    def __init__(self, space: Space, rows: list[dict[str, float]], seconds: float) -> None:
        self._table, self._seconds = TableEvaluator(space, rows), seconds

    def __call__(self, points: list[Values]) -> list[Outcome]:
        time.sleep(self._seconds * len(points))
        return self._table(points)


def _study(path: Path, seconds: float) -> Study:
    space, rows = _space_and_rows()
    return Study(space, ResultsBase(path), Plan("sobol", POINTS, 0, 16), _Slow(space, rows, seconds))


def _begin(path: Path, seconds: float) -> int:
    process = os.fork()
    if process == 0:
        try:
            _study(path, seconds).work()
        finally:
            os._exit(0)
    return process


@pytest.mark.parametrize("workers", [1, 4])
def test_is_the_front_after_fifty_kills_that_of_an_undisturbed_study(workers: int, tmp_path: Path) -> None:
    undisturbed = _study(tmp_path / "undisturbed.db", 0.0)
    undisturbed.work()
    path, seconds = tmp_path / "killed.db", 5e-3
    ResultsBase(path).close()
    rng = np.random.default_rng(workers)
    running = [_begin(path, seconds) for _ in range(workers)]
    for _ in range(KILLS):
        time.sleep(rng.uniform(0.002, 0.05))
        victim = int(rng.integers(workers))
        os.kill(running[victim], signal.SIGKILL)
        os.waitpid(running[victim], 0)
        running[victim] = _begin(path, seconds)
    for process in running:
        os.waitpid(process, 0)
    killed = _study(path, 0.0)
    killed.work()
    assert killed.base.counts() == (0, 0, POINTS)
    rows, known = killed.base.rows(), undisturbed.base.rows()
    assert sorted((str(r.chosen), str(r.outcome)) for r in rows) == sorted(
        (str(r.chosen), str(r.outcome)) for r in known
    )
    assert [row.chosen for row in killed.front()] == [row.chosen for row in undisturbed.front()]
