"""Do two workers of a Ray cluster, or two processes, take a study's points once each, and twice as fast as one?"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tierform.errors import TierformError
from tierform.exploration.evaluator import Evaluator, Outcome
from tierform.exploration.ray_workers import parse_workers
from tierform.exploration.results_base import ResultsBase
from tierform.exploration.space import Objective, Parameter, Space, Values
from tierform.exploration.study import ROUND, Plan, Study, explore

SPACE = Space(
    "waits",
    (Parameter("a", "chip.a", low=0, high=9, whole=True), Parameter("b", "chip.b", low=0, high=23, whole=True)),
    (Objective("f"), Objective("g")),
)


def _waiting(seconds: float) -> Evaluator:
    """An evaluator that waits: made here, so that it travels with its code and not as a name of this file."""

    class Waits:
        def __call__(self, points: Sequence[Values]) -> list[Outcome]:
            found = []
            for point in points:
                time.sleep(seconds)
                a, b = float(point["a"] or 0), float(point["b"] or 0)
                told = {"f": a + b, "g": (9 - a) ** 2 + b, "worker": float(os.getpid()), "end_s": time.time()}
                found.append(Outcome(told))
            return found

    return Waits()


def _run(path: Path, workers: str, seconds: float) -> Study:
    return explore(SPACE, study=path, budget=240, strategy="exhaustive", workers=workers, evaluator=_waiting(seconds))


def _points_per_s(study: Study) -> tuple[int, float]:
    """Workers, and points a second while all of them were at work: a worker's start is not a point's cost."""
    ends: dict[float, list[float]] = {}
    for row in study.base.rows():
        ends.setdefault(row.outcome.figures["worker"], []).append(row.outcome.figures["end_s"])
    begin, end = max(min(times) for times in ends.values()), min(max(times) for times in ends.values())
    return len(ends), sum(begin < at <= end for times in ends.values() for at in times) / (end - begin)


def test_are_workers_of_a_cluster_named_as_they_are_meant() -> None:
    assert parse_workers("4") == (4, "")
    assert parse_workers("ray") == (0, "ray") and parse_workers("ray:2") == (2, "ray")
    assert parse_workers("ray://head:10001") == (0, "ray://head:10001")
    for wrong in ("0", "-1", "ray:0", "ray://", "rays", "two", ""):
        with pytest.raises(TierformError):
            parse_workers(wrong)


def _forked(path: Path, number: int, seconds: float) -> Study:
    """The study by so many processes, each with its own connection to the file."""
    plan = Plan("exhaustive", 240, 0, ROUND)
    ResultsBase(path).close()
    running = []
    for _ in range(number):
        process = os.fork()
        if process == 0:
            try:
                Study(SPACE, ResultsBase(path), plan, _waiting(seconds)).work()
            finally:
                os._exit(0)
        running.append(process)
    for process in running:
        os.waitpid(process, 0)
    return Study(SPACE, ResultsBase(path), plan, _waiting(seconds))


def test_are_two_processes_twice_as_fast(tmp_path: Path) -> None:
    one, two = (_forked(tmp_path / f"{number}.db", number, 0.05) for number in (1, 2))
    assert one.base.counts() == two.base.counts() == (0, 0, 240)
    assert [row.chosen for row in two.front()] == [row.chosen for row in one.front()]
    (alone, slow), (both, fast) = _points_per_s(one), _points_per_s(two)
    assert (alone, both) == (1, 2)
    assert fast / slow >= 1.8, (slow, fast)


def test_are_two_real_workers_twice_as_fast(tmp_path: Path) -> None:
    """240 points of 50 ms that wait and do not compute, so that other work on this machine counts little."""
    ray = pytest.importorskip("ray")
    calm = _run(tmp_path / "calm.db", "1", 0.0)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=40)
    try:
        one, two = (_run(tmp_path / f"{number}.db", f"ray:{number}", 0.05) for number in (1, 2))
    finally:
        ray.shutdown()
    assert one.base.counts() == two.base.counts() == (0, 0, 240)
    assert [row.chosen for row in two.front()] == [row.chosen for row in calm.front()]
    (alone, slow), (both, fast) = _points_per_s(one), _points_per_s(two)
    assert (alone, both) == (1, 2)
    assert fast / slow >= 1.8, (slow, fast)


def test_does_a_study_survive_a_worker_that_dies(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    flag = tmp_path / "died"

    class Dies:
        def __call__(self, points: Sequence[Values]) -> list[Outcome]:
            if not flag.exists() and any(point["a"] == 5 for point in points):
                flag.touch()
                os._exit(1)
            return [Outcome({"f": float(point["a"] or 0), "g": 0.0}) for point in points]

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=40)
    try:
        made = explore(
            SPACE, study=tmp_path / "s.db", budget=240, strategy="exhaustive", workers="ray:2", evaluator=Dies()
        )
    finally:
        ray.shutdown()
    assert flag.exists() and made.base.counts() == (0, 0, 240)
