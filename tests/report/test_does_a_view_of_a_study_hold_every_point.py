"""Does the view of a study hold its points, its front and its reasons as the study's file has them?"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tierform.exploration.evaluator import Outcome, judge
from tierform.exploration.space import Bound, Objective, Parameter, Space, Values
from tierform.exploration.study import Study, explore
from tierform.report import study_view as views
from tierform.report.study_view import NOTHING, study_view, winners_of

SPACE = Space(
    "toy",
    (
        Parameter("cores", "chip.cores", choices=(1, 2, 4)),
        Parameter("width", "chip.width", low=8.0, high=64.0, log=True, unit="bit"),
        Parameter("cache", "chip.cache", choices=(1, 2), when=("cores", (4,))),
    ),
    (Objective("latency_s"), Objective("energy_J")),
    (Bound("peak_K", most=350.0),),
)


def evaluate(points: Sequence[Values]) -> list[Outcome]:
    """More cores are faster and hotter; four with a wide bus cannot be."""
    found = []
    for point in points:
        cores, width = float(str(point["cores"])), float(str(point["width"]))
        if cores == 4 and width > 40:
            found.append(Outcome({}, 1e6, "no room for the bus\nsecond line"))
            continue
        figures = {"latency_s": 1 / cores + 1 / width, "energy_J": cores * width, "peak_K": 330 + 5 * cores + width / 4}
        found.append(judge(SPACE, figures))
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    file = tmp_path_factory.mktemp("study") / "toy.db"
    return explore(SPACE, study=file, budget=80, strategy="sobol", evaluator=evaluate)


def column(given: dict[str, str]) -> list[float]:
    (kind, text), *_ = given.items()
    dtype = {"f4": "<f4", "u2": "<u2"}[kind]
    return [float(one) for one in np.frombuffer(base64.b64decode(text), dtype)]


def test_is_every_point_there_as_it_was_evaluated(study: Study) -> None:
    view = json.loads(json.dumps(study_view(study), allow_nan=False))
    rows = study.base.rows()
    points = view["points"]
    assert view["counts"] == {
        "waiting": 0,
        "leased": 0,
        "done": 80,
        "feasible": view["counts"]["feasible"],
        "shown": 80,
    }
    assert column(points["number"]) == [row.number for row in rows]
    latency = [row.outcome.figures.get("latency_s", np.nan) for row in rows]
    assert column(points["figures"]["latency_s"]) == pytest.approx(latency, rel=1e-6, nan_ok=True)
    cores = column(points["chosen"]["cores"])
    assert [(1, 2, 4)[int(one)] for one in cores] == [row.chosen["cores"] for row in rows]
    cache = column(points["chosen"]["cache"])
    assert {one for one, row in zip(cache, rows, strict=True) if row.chosen["cores"] != 4} == {NOTHING}
    width = [float(str(row.chosen["width"])) for row in rows]
    assert column(points["chosen"]["width"]) == pytest.approx(width, rel=1e-6)


def test_is_the_front_that_of_the_study(study: Study) -> None:
    view = study_view(study)
    numbers = column(view["points"]["number"])  # type: ignore[index, call-overload, arg-type]
    front = view["front"]
    assert isinstance(front, list)
    assert [numbers[one] for one in front] == [row.number for row in study.front()]
    knee = study.knee()
    assert knee is not None and numbers[view["knee"]] == knee.number  # type: ignore[index]
    winners = winners_of(study)
    assert winners[0].number == knee.number and len({row.number for row in winners}) == len(winners) <= 3
    feasible = sum(row.outcome.violation <= 0 for row in study.base.rows())
    assert view["counts"]["feasible"] == feasible < 80  # type: ignore[index, call-overload]


def test_are_refused_points_told_with_their_reason(study: Study) -> None:
    view = study_view(study)
    assert view["reasons"] == ["no room for the bus"]
    reasons = column(view["points"]["reason"])  # type: ignore[index, call-overload, arg-type]
    refused = [not row.outcome.figures for row in study.base.rows()]
    assert [one == 0 for one in reasons] == refused and any(refused)


def test_is_the_nearest_told_where_nothing_is_feasible(tmp_path: Path) -> None:
    space = Space("hot", SPACE.parameters, SPACE.objectives, (Bound("peak_K", most=300.0),))

    def hot(points: Sequence[Values]) -> list[Outcome]:
        return [judge(space, one.figures) if one.figures else one for one in evaluate(points)]

    study = explore(space, study=tmp_path / "hot.db", budget=20, strategy="sobol", evaluator=hot)
    view = study_view(study)
    least = min(study.base.rows(), key=lambda row: row.outcome.violation)
    assert view["front"] == [] and view["knee"] is None
    assert view["nearest"]["reason"] == least.outcome.reason  # type: ignore[index, call-overload]
    assert "peak_K" in least.outcome.reason and winners_of(study) == []


def test_are_many_points_thinned_with_the_front_whole(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = study_view(study)
    monkeypatch.setattr(views, "MOST_POINTS", 40)
    thin = study_view(study)
    numbers = column(thin["points"]["number"])  # type: ignore[index, call-overload, arg-type]
    assert len(numbers) <= 40 and thin["counts"]["done"] == 80  # type: ignore[index, call-overload]
    before = column(whole["points"]["number"])  # type: ignore[index, call-overload, arg-type]
    assert [numbers[one] for one in thin["front"]] == [before[one] for one in whole["front"]]  # type: ignore[union-attr]


def test_is_a_study_a_line_and_a_card(study: Study) -> None:
    front, knee = study.front(), study.knee()
    assert repr(study) == f"<Study: toy, {study.claim()}; {len(front)} on the front>"
    text = study._repr_html_()
    assert knee is not None and f"{knee.number} knee" in text and "latency_s" in text and "cores" in text
