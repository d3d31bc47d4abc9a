"""What a page shows of an exploration, as plain data (schema ``tierform.study_view/1``).

Figures and choices of the points stand as columns: little-endian numbers in base64, ``f4`` (not a number where there is
none) or ``u2`` (an index of the parameter's choices, 65535 where it does not act).  Of more than :data:`MOST_POINTS`
points the front, the best and an even share of the others are kept, and it is said.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tierform.exploration.evaluator import FIGURES
from tierform.exploration.front import front_of, knee_of
from tierform.exploration.results_base import Row
from tierform.exploration.space import Parameter
from tierform.exploration.study import Study

SCHEMA = "tierform.study_view/1"
Floats = NDArray[np.float64]
Plain = None | bool | int | float | str | Sequence["Plain"] | Mapping[str, "Plain"]
MOST_POINTS = 50_000
FEW_POINTS = 10_000  # with more, only figures that are wanted or limited are kept
NOTHING = 65535
MOST_REASONS = 200


def study_view(study: Study) -> dict[str, Plain]:
    """The view of a study as its file is now."""
    study.refresh()
    space = study.space
    waiting, leased, done = study.base.counts()
    rows = study.base.rows()
    values = np.array([study.objectives(row.outcome) for row in rows], float).reshape(len(rows), len(space.objectives))
    violation = np.array([row.outcome.violation for row in rows], float)
    front = front_of(values, violation)
    front = front[np.argsort(values[front, 0], kind="stable")] if len(front) else front
    kept = _kept(front, violation, values)
    place = {int(row): number for number, row in enumerate(kept)}
    shown = [rows[int(one)] for one in kept]
    feasible = int(((violation <= 0) & np.isfinite(values).all(axis=1)).sum())
    reasons = list(dict.fromkeys(_reason(row) for row in shown if not row.outcome.figures))[:MOST_REASONS]
    return {
        "schema": SCHEMA,
        "name": space.name,
        "file": study.base.path.name,
        "space_file": Path(study.base.fact("file") or "").name,
        "claim": study.claim(),
        "strategy": study.plan.strategy,
        "budget": study.plan.budget,
        "size": space.size,
        "counts": {"waiting": waiting, "leased": leased, "done": done, "feasible": feasible, "shown": len(shown)},
        "job": dict(space.base),
        "objectives": [{"figure": one.figure, "maximize": one.maximize} for one in space.objectives],
        "limits": [{"figure": one.figure, "most": one.most, "least": one.least} for one in space.limits],
        "units": {name: FIGURES.get(name, "") for name in _figures(study, shown)},
        "parameters": [_parameter(one) for one in space.parameters],
        "points": {
            "number": _numbers([float(row.number) for row in shown]),
            "figures": {name: _numbers([_figure(row, name) for row in shown]) for name in _figures(study, shown)},
            "chosen": {one.name: _chosen(one, shown) for one in space.parameters},
            "violation": _numbers([row.outcome.violation for row in shown]),
            "reason": _indices([_place(reasons, row) for row in shown]),
        },
        "reasons": reasons,
        "front": [place[int(one)] for one in front],
        "knee": place[int(front[knee_of(values[front])])] if len(front) else None,
        "hypervolume": study.hypervolume() if len(front) else 0.0,
        "nearest": None if len(front) or not rows else _nearest(rows, violation, place),
    }


def winners_of(study: Study) -> list[Row]:
    """The knee of the front and the best of each objective, each once: what a page holds as whole runs."""
    knee = study.knee()
    if knee is None:
        return []
    found = [knee, *(study.best(one.figure) for one in study.space.objectives)]
    return list({row.number: row for row in found}.values())


def _nearest(rows: Sequence[Row], violation: Floats, place: Mapping[int, int]) -> dict[str, Plain]:
    """The point that misses its limits by least, where none keeps them."""
    at = int(np.argmin(violation))
    return {"place": place.get(at), "reason": rows[at].outcome.reason}


def _kept(front: NDArray[np.int64], violation: Floats, values: Floats) -> NDArray[np.int64]:
    """Which rows a page gets, in order: all, or the front, the nearest to feasible, and an even share of the others."""
    number = len(violation)
    if number <= MOST_POINTS:
        return np.arange(number)
    best = np.argsort(violation, kind="stable")[:1]
    others = np.linspace(0, number - 1, MOST_POINTS - len(front) - 1).astype(np.int64)
    return np.unique(np.concatenate([front, best, others]))


def _figures(study: Study, shown: Sequence[Row]) -> list[str]:
    """Names of the figures that are kept: those wanted and limited, and where points are few what differs."""
    wanted = [one.figure for one in study.space.objectives] + [one.figure for one in study.space.limits]
    if len(shown) <= FEW_POINTS:
        for name in FIGURES:
            values = {row.outcome.figures[name] for row in shown if name in row.outcome.figures}
            if len([one for one in values if math.isfinite(one)]) > 1:
                wanted.append(name)
    return list(dict.fromkeys(wanted))


def _parameter(one: Parameter) -> dict[str, Plain]:
    return {
        "name": one.name,
        "path": one.path,
        "choices": list(one.choices) or None,
        "low": one.low,
        "high": one.high,
        "whole": one.whole,
        "log": one.log,
        "unit": one.unit,
        "ordered": one.ordered,
    }


def _chosen(one: Parameter, rows: Sequence[Row]) -> dict[str, str]:
    values = [row.chosen.get(one.name) for row in rows]
    if not one.choices:
        return _numbers([math.nan if value is None else float(value) for value in values])
    index = {repr(choice): place for place, choice in enumerate(one.choices)}
    return _indices([NOTHING if value is None else index.get(repr(value), NOTHING) for value in values])


def _figure(row: Row, name: str) -> float:
    return row.outcome.figures.get(name, math.nan)


def _reason(row: Row) -> str:
    return row.outcome.reason.splitlines()[0] if row.outcome.reason else ""


def _place(reasons: Sequence[str], row: Row) -> int:
    text = _reason(row)
    return reasons.index(text) if not row.outcome.figures and text in reasons else NOTHING


def _numbers(values: Sequence[float]) -> dict[str, str]:
    return {"f4": base64.b64encode(np.array(values, "<f4").tobytes()).decode("ascii")}


def _indices(values: Sequence[int]) -> dict[str, str]:
    return {"u2": base64.b64encode(np.array(values, "<u2").tobytes()).decode("ascii")}
