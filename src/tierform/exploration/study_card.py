"""A study as one line, and as a small card for notebooks: the front, and what is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierform.card import card
from tierform.exploration.evaluator import FIGURES
from tierform.units import format_quantity

if TYPE_CHECKING:
    from tierform.exploration.study import Study

MOST_ROWS = 12


def study_line(study: Study) -> str:
    """One line."""
    return f"<Study: {study.space.name}, {study.claim()}; {len(study.front())} on the front>"


def study_card(study: Study) -> str:
    """The card as HTML."""
    rows, knee = study.front(), study.knee()
    wanted = [one.figure for one in study.space.objectives]
    names = [parameter.name for parameter in study.space.parameters]
    step = max(1, -(-len(rows) // MOST_ROWS))
    body = [
        [
            f"{row.number}{' knee' if knee is not None and row.number == knee.number else ''}",
            *(format_quantity(row.outcome.figures[name], FIGURES.get(name, "")) for name in wanted),
            *("-" if row.chosen[name] is None else str(row.chosen[name]) for name in names),
        ]
        for place, row in enumerate(rows)
        if place % step == 0 or (knee is not None and row.number == knee.number)
    ]
    done = study.base.counts()[2]
    figures = [
        ("designs tried", f"{done:,}"),
        ("on the front", f"{len(rows):,}"),
        ("hypervolume", f"{study.hypervolume():.4f}"),
    ]
    notes = [f"{len(body)} of {len(rows)} of the front are shown."] if len(body) < len(rows) else []
    if not rows:
        notes.append("No point is within the limits.")
    return card(study.space.name, study.claim(), figures, [(["point", *wanted, *names], body)], notes)
